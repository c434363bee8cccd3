// What a daemon costs that has nothing to do, in clusters of several sizes: processor and memory
// from /proc, bytes from the kernel's counters of each daemon's own sockets.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { startCluster } from "./local-cluster.mjs";
import { printRow } from "./table.mjs";

const SIZES = [10, 30, 60];
/** Joining has its echoes: voters change, registers are filled. */
const REST_MS = 10_000;
const IDLE_MS = 30_000;
const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
const CPU_PCT = 0.5;
const BYTES_PER_SECOND = 2_000;
/** The largest cluster may cost a node so much more than the smallest and still be called flat. */
const FLAT = 1.5;

/** Seconds of processor time of a process so far. */
function processorSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Bytes of memory that would be free without it: what it shares with others is divided. */
function memoryBytes(pid) {
  const line = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"));
  return Number(line[1]) * 1_024;
}

/** TCP payload received so far over the sockets of each process that are open now, by pid. */
function receivedBytes(pids) {
  const text = execFileSync("ss", ["-tinpOH", "state", "established"], {
    encoding: "utf8",
    maxBuffer: 256 * 1024 * 1024,
  });
  const bytes = new Map(pids.map((pid) => [pid, 0]));
  for (const line of text.split("\n")) {
    const pid = Number(/pid=(\d+)/.exec(line)?.[1]);
    if (!bytes.has(pid)) continue;
    bytes.set(pid, bytes.get(pid) + Number(/bytes_received:(\d+)/.exec(line)?.[1] ?? 0));
  }
  return bytes;
}

const mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;

/** What each of the daemons costs now, as means. */
async function idleCost(daemons) {
  const pids = daemons.map(({ pid }) => pid);
  await sleep(REST_MS);
  const before = pids.map(processorSeconds);
  const bytes = receivedBytes(pids);
  const began = performance.now();
  await sleep(IDLE_MS);
  const seconds = (performance.now() - began) / 1_000;
  const after = receivedBytes(pids);
  const cpu = pids.map((pid, n) => ((processorSeconds(pid) - before[n]) / seconds) * 100);
  return {
    count: daemons.length,
    cpuPct: mean(cpu),
    cpuMostPct: Math.max(...cpu),
    bytesPerSecond: mean(pids.map((pid) => (after.get(pid) - bytes.get(pid)) / seconds)),
    memory: mean(pids.map(memoryBytes)),
  };
}

const rowOf = ({ count, cpuPct, cpuMostPct, bytesPerSecond, memory }) =>
  printRow({
    name: `Idle daemon in a cluster of ${count}, a node: processor and bytes received`,
    ours:
      `${cpuPct.toFixed(2)} % of a core (most ${cpuMostPct.toFixed(2)} %), ` +
      `${bytesPerSecond.toFixed(0)} B/s, ${(memory / 2 ** 20).toFixed(0)} MiB of memory`,
    ratio: `${cpuPct.toFixed(2)} %`,
    target: `${CPU_PCT} % and 2 KB/s`,
    met: cpuPct <= CPU_PCT && bytesPerSecond <= BYTES_PER_SECOND,
  });

/** One cluster that grows to each of the sizes. */
export async function benchIdle(sizes = SIZES) {
  const [first = 1, ...further] = sizes;
  const cluster = await startCluster(first);
  const costs = [];
  const rows = [];
  const measure = async () => {
    costs.push(await idleCost(cluster.daemons));
    rows.push(rowOf(costs.at(-1)));
  };
  try {
    await measure();
    for (const size of further) {
      await cluster.grow(size);
      await measure();
    }
  } finally {
    await cluster.stop();
  }
  const [least, most] = [costs[0], costs.at(-1)];
  const growth = most.cpuPct / least.cpuPct;
  const traffic = most.bytesPerSecond / least.bytesPerSecond;
  rows.push(
    printRow({
      name: `A node of ${most.count} against a node of ${least.count}: processor, bytes`,
      ours: `${growth.toFixed(2)} times, ${traffic.toFixed(2)} times`,
      ratio: `${Math.max(growth, traffic).toFixed(2)}`,
      target: `flat: at most ${FLAT}`,
      met: growth <= FLAT && traffic <= FLAT,
    }),
  );
  return rows;
}
