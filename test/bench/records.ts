/**
 * Records written through a quorum of three voters with real LevelDB and real libp2p on loopback,
 * by so many writers at once at one of them. All three voters share this one process. Run by
 * scripts/bench/records.mjs; prints one line of JSON.
 */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock } from "../../src/daemon/effects/clock.ts";
import { realRandom } from "../../src/daemon/effects/random.ts";
import { CLUSTER, CONFIG_ID, type Log } from "../../src/domain/index.ts";
import { connectPeers } from "../../src/gossip/connect.ts";
import { createMembers } from "../../src/gossip/members.ts";
import { createRegisters } from "../../src/gossip/registers.ts";
import { openCatalog } from "../../src/storage/index.ts";

const [writers = 32, milliseconds = 8_000] = process.argv.slice(2).map(Number);
const silent = () => undefined;
const log: Log = { debug: silent, info: silent, warn: silent, error: silent, child: () => log };
const root = await mkdtemp(join(tmpdir(), "templatecenter-records-"));
const alive = setInterval(silent, 1_000);
const presharedKey = randomBytes(32).toString("hex");
const names = ["a", "b", "c"];
const at = new Date().toISOString();

const parts = await Promise.all(
  names.map(async (name) => {
    const dataDir = join(root, name);
    await mkdir(dataDir);
    const ports = { log, clock: realClock, random: realRandom };
    const catalog = await openCatalog({ dir: join(dataDir, "catalog"), ...ports });
    const transport = await connectPeers({
      dataDir,
      nodeId: name,
      hostMark: name,
      presharedKey,
      listen: ["/ip4/127.0.0.1/tcp/0"],
      announce: [],
      admitStrangers: () => false,
      ...ports,
    });
    return { name, catalog, transport, ...ports };
  }),
);
const members = parts.map(({ name, transport }) => ({
  node_id: name,
  peer_id: transport.peerId,
  addresses: [...transport.addresses()],
  joined_at: at,
  drained: false,
}));
const peers = new Map(members.map(({ peer_id, addresses }) => [peer_id, addresses]));
const nodes = await Promise.all(
  parts.map(async (part) => {
    await part.catalog.merge([
      {
        owner: CLUSTER,
        kind: "cluster",
        id: CONFIG_ID,
        version: 1,
        value: {
          cluster_id: "bench",
          created_at: at,
          members: Object.fromEntries(members.map((member) => [member.node_id, member])),
          // Nobody to ask: all three begin with nothing.
          voters: { number: 1, nodes: names, previous: [] },
          removed: {},
          tokens: {},
        },
      },
    ]);
    part.transport.setMembers(peers, new Map());
    const registers = createRegisters({
      ...part,
      members: createMembers(part.catalog, part.name),
      liveness: { isUp: () => true },
    });
    await registers.start();
    return { ...part, registers };
  }),
);
const [writer] = nodes;
if (writer === undefined) throw new Error("no node");
const value = (job: string, beat: number) => ({
  template_id: job,
  node_id: "a",
  incarnation: 1,
  epoch: beat,
  released: false,
  since: "x".repeat(400),
});
await writer.registers.update("leader", "warm", () => value("warm", 1));
let written = 0;
const began = performance.now();
await Promise.all(
  Array.from({ length: writers }, async (_, index) => {
    const id = `t${index}`;
    while (performance.now() - began < milliseconds) {
      await writer.registers.update("leader", id, (current) =>
        value(id, (current?.epoch ?? 0) + 1),
      );
      written++;
    }
  }),
);
const seconds = (performance.now() - began) / 1_000;
console.log(JSON.stringify({ writers, written, per_second: written / seconds }));
for (const { registers } of nodes) await registers.stop();
for (const { transport, catalog } of nodes) {
  await transport.close();
  await catalog.close();
}
clearInterval(alive);
await rm(root, { recursive: true, force: true });
process.exit(0);
