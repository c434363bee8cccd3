// Records a second through a quorum of three, against etcd's three members, both flushed to disk.
import { etcdWriteRate } from "./etcd.mjs";
import { median, printRow } from "./table.mjs";
import { runTypeScript } from "./typescript.mjs";

const CLIENTS = 32;
const RUN_MS = 6_000;
const ROUNDS = 3;

export async function benchRecords() {
  const ours = [];
  const etcd = [];
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(runTypeScript("records.ts", [CLIENTS, RUN_MS]).per_second);
    etcd.push(await etcdWriteRate(CLIENTS, RUN_MS));
  }
  const [mine, theirs] = [median(ours), median(etcd)];
  return [
    printRow({
      name: `Records a second at ${CLIENTS} writers, 3 voters in one process, flushed, median of ${ROUNDS}`,
      ours: `${mine.toFixed(0)}/s`,
      reference: `etcd's puts through its HTTP gateway, 3 processes, ${theirs.toFixed(0)}/s`,
      ratio: `${(mine / theirs).toFixed(2)}`,
      target: "at least 1",
      met: mine >= theirs,
    }),
  ];
}
