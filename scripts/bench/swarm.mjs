// Distribution of an artifact: the schedule alone (network in memory), and eight real daemons.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { largeImage } from "./cluster-image.mjs";
import { startCluster } from "./local-cluster.mjs";
import { printRow } from "./table.mjs";
import { runTypeScript } from "./typescript.mjs";

const MIB = 1024 * 1024;
const NODES = 8;

/** Seconds from the artifact being built to the last replica READY, and what the builder sent. */
async function distribute(image) {
  const cluster = await startCluster(NODES, ["--upload-limit", "8"]);
  try {
    const [first] = cluster.daemons;
    const job = await first.call("POST", "/v1/templates/from-image", {
      source_image_ref: image,
      writable_layer_size: "64Mi",
    });
    const ended = await first.finish(job);
    const at = (name) => Date.parse(ended.phases.find(({ phase }) => phase === name).started_at);
    const builder = cluster.daemons[Number(ended.worked_by.slice(1))];
    const { items } = await builder.call("GET", "/v1/swarms");
    const own = items[0].nodes.find(({ node_id }) => node_id === ended.worked_by);
    return {
      seconds: (at("REGISTERING") - at("DISTRIBUTING")) / 1_000,
      copies: own.sent_bytes / (items[0].chunk_count * 64 * 1024),
      ready: ended.ready_node_count,
    };
  } finally {
    await cluster.stop();
  }
}

export async function benchSwarm() {
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  try {
    const found = await distribute(await largeImage(join(work, "image"), 128));
    const schedule = runTypeScript("swarm.ts", [128, 7, 8]);
    const { second } = schedule;
    return [
      printRow({
        name: "128 MiB to 7 receivers at 8 MiB/s upload a node, real daemons on loopback: last one",
        ours: `${found.seconds.toFixed(1)} s, ${found.ready} of ${NODES} nodes READY`,
        ratio: `${found.seconds.toFixed(1)} s`,
        target: "20 s (ideal 16)",
        met: found.seconds <= 20 && found.ready === NODES,
      }),
      printRow({
        name: "The same: copies that the builder sent",
        ours: `${found.copies.toFixed(2)} copies`,
        ratio: `${found.copies.toFixed(2)}`,
        target: "1.5",
        met: found.copies <= 1.5,
      }),
      printRow({
        name: "The schedule alone, network in memory: last of 7",
        ours: `${schedule.first.last_s.toFixed(1)} s, ${schedule.first.builder_copies.toFixed(2)} copies`,
        ratio: `${schedule.first.last_s.toFixed(1)} s`,
        target: "20 s",
        met: schedule.first.last_s <= 20,
      }),
      printRow({
        name: "A second version with 4 % of its chunks changed: bytes a receiver gets",
        ours: `${((second.receiver_share * 128 * MIB) / MIB).toFixed(1)} MiB of 128`,
        ratio: `${(second.receiver_share * 100).toFixed(1)} %`,
        target: "8 %",
        met: second.receiver_share <= 0.08,
      }),
    ];
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
