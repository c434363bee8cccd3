// A change at one daemon, seen at the last of 12, against serf, Debian's package, in the same run.
import { setTimeout as sleep } from "node:timers/promises";
import { follow, startCluster, until } from "./local-cluster.mjs";
import { serfEventTimes } from "./serf.mjs";
import { median, printRow } from "./table.mjs";

const CHANGES = 30;
const NODES = 12;

/** From the request of a change at one daemon to its event at the last of all. */
async function changeTimes(cluster, changes) {
  const { daemons } = cluster;
  const abort = new AbortController();
  const seen = new Map();
  await Promise.all(
    daemons.map((daemon, index) =>
      follow(
        daemon,
        "job",
        ({ subject }) => {
          const nodes = seen.get(subject) ?? new Map();
          seen.set(subject, nodes);
          if (!nodes.has(index)) nodes.set(index, performance.now());
        },
        abort.signal,
      ),
    ),
  );
  const times = [];
  for (let change = 0; change < changes; change++) {
    const began = performance.now();
    // An image that is not there: the job's record is the change, and it ends at once.
    const job = await daemons[change % daemons.length].call("POST", "/v1/templates/from-image", {
      source_image_ref: "oci:/nonexistent:none",
      writable_layer_size: "64Mi",
    });
    const nodes = await until("the last to see it", () => {
      const found = seen.get(job.job_id);
      return found?.size === daemons.length ? found : undefined;
    });
    times.push(Math.max(...nodes.values()) - began);
    // The job that the record stands for is taken up, fails, and its leadership is given up: that is
    // not what is measured.
    await sleep(2_000);
  }
  abort.abort();
  return times;
}

export async function benchCluster() {
  const reference = await serfEventTimes(NODES, 10);
  const cluster = await startCluster(NODES);
  try {
    const times = (await changeTimes(cluster, CHANGES)).sort((a, b) => a - b);
    const p50 = median(times);
    const p99 = times[Math.ceil(times.length * 0.99) - 1];
    const serf = median(reference);
    return [
      printRow({
        name: "A record written at one node, seen at the last of 12 (quorum write included), median",
        ours: `${p50.toFixed(0)} ms`,
        reference: `serf's user event at the last of 12 handlers ${serf.toFixed(0)} ms`,
        ratio: `${(serf / p50).toFixed(1)} times faster`,
        target: "20 times",
        met: serf / p50 >= 20,
      }),
      printRow({
        name: "The same, p99 of ours against serf's median",
        ours: `${p99.toFixed(0)} ms`,
        reference: `${serf.toFixed(0)} ms`,
        ratio: `${(p99 / serf).toFixed(2)}`,
        target: "below 1",
        met: p99 < serf,
      }),
    ];
  } finally {
    await cluster.stop();
  }
}
