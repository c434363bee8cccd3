// A thousand members with 10,000 templates in simulated time: how one change gets everywhere when
// gossip works, when it loses a tenth, and by the comparisons alone; and what a node takes.
import { median, printRow } from "./table.mjs";
import { runTypeScript } from "./typescript.mjs";

const SIZES = [30, 100, 300, 1_000];
const TEMPLATES = 10_000;
const FLAGS = ["--expose-gc", "--max-old-space-size=8192"];
/** A logarithm's growth from the least to the most, and so much more. */
const TOLERANCE = 1.25;
/** Rest may cost a node of the largest so much more than one of the smallest. */
const FLAT = 1.5;

const roundsOf = (runs) => median(runs.map(({ rounds }) => rounds));
const bytesOf = (runs) => median(runs.map(({ bytes }) => bytes));
const slowestMs = (runs) => Math.max(...runs.map(({ milliseconds }) => milliseconds));
const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
const listOf = (found, text) => found.map((one) => `${one.count}: ${text(one)}`).join(", ");

export async function benchThousand(sizes = SIZES) {
  const found = sizes.map((count) => runTypeScript("thousand.ts", [count, TEMPLATES], FLAGS));
  const [least, most] = [found[0], found.at(-1)];
  const growth = roundsOf(most.silent) / roundsOf(least.silent);
  const logarithm = Math.log(most.count) / Math.log(least.count);
  const restOf = ({ rest }) => rest.feed_bps + rest.probe_bps;
  const restGrowth = restOf(most) / restOf(least);
  const perNode = (one) => `${bytesOf(one.silent).toFixed(0)} B`;
  return [
    printRow({
      name: "Rounds of comparison until one change is at all nodes, all gossip about it lost, median",
      ours: listOf(found, (one) => roundsOf(one.silent).toFixed(1)),
      ratio: `${growth.toFixed(2)} times for ${(most.count / least.count).toFixed(0)} times the nodes`,
      target: `O(log n): ${logarithm.toFixed(2)} times, and a quarter more`,
      met: growth <= logarithm * TOLERANCE,
    }),
    printRow({
      name: `The same at ${most.count} nodes with gossip, and with a tenth of it lost: slowest`,
      ours: `${slowestMs(most.gossip)} ms, ${slowestMs(most.lossy)} ms of simulated time`,
      ratio: `${(slowestMs(most.lossy) / 1_000).toFixed(1)} s`,
      target: "nothing missing after 5 s",
      met: slowestMs(most.lossy) <= 5_000,
    }),
    printRow({
      name: "Bytes that a node gets and sends for that change, gossip lost; and a second at rest",
      ours: `${listOf(found, perNode)}; ${listOf(found, (one) => `${restOf(one).toFixed(0)} B/s`)}`,
      ratio: `at rest ${restGrowth.toFixed(2)}`,
      target: `flat: at most ${FLAT}`,
      met: restGrowth <= FLAT,
    }),
    printRow({
      name: `Memory of a node with ${TEMPLATES} templates: the catalog that ships; the rest of a member`,
      ours:
        `${mib(most.catalog_bytes)} MiB; ` +
        listOf(found, ({ memory_bytes }) => `${mib(memory_bytes)} MiB`),
      ratio: `${(most.memory_bytes / least.memory_bytes).toFixed(2)}`,
      target: "printed",
      met: true,
    }),
  ];
}
