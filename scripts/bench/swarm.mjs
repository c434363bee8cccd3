// Distribution of an artifact to eight real daemons, each on a host of its own with the same limit
// of upload, against aria2's BitTorrent in the same run; then a second version of it. Bytes are
// those of the kernel's counters of each host's cable, headers and gossip included.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bittorrentTimes } from "./bittorrent.mjs";
import { imageVersions } from "./cluster-image.mjs";
import { startCluster, until } from "./local-cluster.mjs";
import { makeNetwork } from "./namespaces.mjs";
import { printRow } from "./table.mjs";
import { runTypeScript } from "./typescript.mjs";

const MIB = 1024 * 1024;
/** Of the issue. */
const SETUP = { nodes: 8, artifactMib: 128, limitMib: 8 };
const CHUNK_BYTES = 64 * 1024;

/**
 * Makes a template of the image: seconds from the artifact being built to its being on the last
 * node, the copies that the builder sent, and the share that the receiver who got most received.
 */
async function distribute({ daemons }, hosts, image) {
  const before = hosts.map((host) => host.traffic());
  const [first] = daemons;
  const job = await first.call("POST", "/v1/templates/from-image", {
    source_image_ref: image,
    writable_layer_size: "64Mi",
  });
  const ended = await first.finish(job);
  const traffic = hosts.map((host, n) => {
    const { sent, received } = host.traffic();
    return { sent: sent - before[n].sent, received: received - before[n].received };
  });
  const at = (name) => Date.parse(ended.phases.find(({ phase }) => phase === name).started_at);
  const builder = Number(ended.worked_by.slice(1));
  const bytes = await until("the builder's count of chunks", async () => {
    const { items } = await daemons[builder].call("GET", "/v1/swarms");
    const swarm = items.find(({ artifact_id }) => artifact_id === ended.artifact_id);
    return swarm === undefined ? undefined : swarm.chunk_count * CHUNK_BYTES;
  });
  const receivers = traffic.filter((_, index) => index !== builder);
  return {
    seconds: (at("REGISTERING") - at("DISTRIBUTING")) / 1_000,
    copies: traffic[builder].sent / bytes,
    share: Math.max(...receivers.map(({ received }) => received)) / bytes,
    mebibytes: bytes / MIB,
    ready: ended.ready_node_count,
  };
}

async function distributeVersions(images, { nodes, limitMib }) {
  const network = makeNetwork(nodes);
  try {
    const flags = ["--upload-limit", String(limitMib)];
    const cluster = await startCluster(nodes, flags, network.hosts);
    try {
      const first = await distribute(cluster, network.hosts, images.first);
      const second = await distribute(cluster, network.hosts, images.second);
      return { first, second };
    } finally {
      await cluster.stop();
    }
  } finally {
    network.remove();
  }
}

export async function benchSwarm(setup = SETUP) {
  const { nodes, artifactMib, limitMib } = setup;
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  try {
    const found = await distributeVersions(await imageVersions(work, artifactMib), setup);
    const order = [artifactMib, nodes - 1, limitMib];
    const aria2 = await bittorrentTimes(...order);
    return rowsOf(setup, found, aria2, runTypeScript("swarm.ts", order));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function rowsOf({ nodes, artifactMib, limitMib }, { first, second }, aria2, schedule) {
  const receivers = nodes - 1;
  const ideal = (artifactMib / limitMib).toFixed(0);
  const star = (artifactMib * receivers) / limitMib;
  return [
    printRow({
      name: `${artifactMib} MiB to ${receivers} receivers at ${limitMib} MiB/s upload a node: the last has it`,
      ours: `${first.seconds.toFixed(1)} s, ${first.ready} of ${nodes} nodes READY`,
      reference: `aria2's BitTorrent ${aria2.seconds.toFixed(1)} s, a star ${star.toFixed(0)} s`,
      ratio: `${(aria2.seconds / first.seconds).toFixed(2)} times faster than aria2`,
      target: `20 s, ideal ${ideal}`,
      met: first.seconds <= 20 && first.ready === nodes,
    }),
    printRow({
      name: "The same: copies that the builder sent",
      ours: `${first.copies.toFixed(2)} copies`,
      reference: `aria2's seeder ${aria2.copies.toFixed(2)}`,
      ratio: `${first.copies.toFixed(2)}`,
      target: "1.5",
      met: first.copies <= 1.5,
    }),
    printRow({
      name: "The second version, one of 25 files replaced by a longer one: what a receiver gets",
      ours:
        `${(second.share * second.mebibytes).toFixed(1)} MiB of ${second.mebibytes.toFixed(0)} ` +
        `in ${second.seconds.toFixed(1)} s, ${second.ready} of ${nodes} nodes READY`,
      ratio: `${(second.share * 100).toFixed(1)} %`,
      target: "8 %",
      met: second.share <= 0.08 && second.ready === nodes,
    }),
    printRow({
      name: "The order of chunks alone, network in memory: last, copies, second version",
      ours:
        `${schedule.first.last_s.toFixed(1)} s, ${schedule.first.builder_copies.toFixed(2)} ` +
        `copies, ${(schedule.second.receiver_share * 100).toFixed(1)} %`,
      ratio: `${schedule.first.last_s.toFixed(1)} s`,
      target: "20 s",
      met: schedule.first.last_s <= 20,
    }),
  ];
}
