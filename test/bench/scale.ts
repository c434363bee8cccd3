/**
 * Fills a stopped daemon's catalog as a busy fleet's would be: of the one template that it has made
 * so many more, each with a job, a replica on every one of so many nodes, and refs of sandboxes on
 * this one. Records are written through the quorum's registers (this node is the one voter), facts
 * and rows through the catalog, and each replica here has its files. Run by
 * scripts/bench/scale.mjs; prints one line of JSON.
 */
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { generateKeyPair } from "@libp2p/crypto/keys";
import { peerIdFromPrivateKey } from "@libp2p/peer-id";
import { realClock } from "../../src/daemon/effects/clock.ts";
import { realRandom } from "../../src/daemon/effects/random.ts";
import {
  CLUSTER,
  CONFIG_ID,
  type DriverSnapshot,
  type Entry,
  type Holding,
  type JobRecord,
  type LocalWrite,
  type Log,
  type NodeFact,
  type ReplicaStatus,
  type RuntimeRef,
  type TemplateRecord,
} from "../../src/domain/index.ts";
import { createMembers } from "../../src/gossip/members.ts";
import { createRegisters } from "../../src/gossip/registers.ts";
import { createTransportSwitch } from "../../src/gossip/switch.ts";
import { openCatalog } from "../../src/storage/index.ts";

const [dataDir = "", ...numbers] = process.argv.slice(2);
const [templates = 1_000, nodes = 10, refs = 100_000] = numbers.map(Number);
const BATCH = 500;

const quiet = (): undefined => undefined;
const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet, child: () => log };
const catalog = await openCatalog({ dir: join(dataDir, "catalog"), log, clock: realClock });

function only<K extends "template" | "job" | "replica" | "node">(kind: K) {
  const [entry] = catalog.list(kind);
  if (entry?.value === undefined) throw new Error(`the daemon has no ${kind}`);
  return entry;
}
const template = only("template").value as TemplateRecord;
const job = only("job").value as JobRecord;
const replica = only("replica").value as ReplicaStatus;
const node = only("node").value as NodeFact;
const self = node.node_id;
const snapshot = (await catalog
  .table("driver-snapshot")
  .get(template.template_id)) as DriverSnapshot;
const [held] = catalog.list("holding");
const holding = held?.value as Holding;

const others = Array.from({ length: nodes - 1 }, (_, index) => `scale-${index + 1}`);
const all = [self, ...others].sort();
const idOf = (index: number): string => `tpl-${String(index).padStart(24, "0")}`;
const atOf = (index: number): string =>
  new Date(Date.parse(template.created_at) - index * 1_000).toISOString();
const rename = <T>(value: T, id: string): T =>
  JSON.parse(JSON.stringify(value).replaceAll(template.template_id, id)) as T;

/** What each node writes itself, of a template. */
const replicaOn = (owner: string, id: string): Entry => ({
  owner,
  kind: "replica",
  id,
  version: Date.now(),
  value: { ...replica, node_id: owner, last_job_id: `job-${id}` },
});

async function inBatches<T>(items: readonly T[], work: (some: readonly T[]) => Promise<unknown>) {
  for (let at = 0; at < items.length; at += BATCH) await work(items.slice(at, at + BATCH));
}

const members = createMembers(catalog, self);
const transport = createTransportSwitch();
const parts = { transport, members, catalog, clock: realClock, random: realRandom, log };
const registers = createRegisters({ ...parts, liveness: { isUp: () => true } });
await registers.start();
const added = await Promise.all(
  others.map(async (node_id) => {
    const peer_id = peerIdFromPrivateKey(await generateKeyPair("Ed25519")).toString();
    // Nobody listens on the discard port: they are down, and their entries are what is measured.
    const addresses = [`/ip4/127.0.0.1/tcp/9/p2p/${peer_id}`];
    const joined_at = template.created_at;
    return [node_id, { node_id, peer_id, addresses, joined_at, drained: false }] as const;
  }),
);
await registers.update("cluster", CONFIG_ID, (config) =>
  config === undefined
    ? undefined
    : { ...config, members: { ...config.members, ...Object.fromEntries(added) } },
);
await catalog.merge(
  others.flatMap((owner): Entry[] => [
    { owner, kind: "node", id: owner, version: Date.now(), value: { ...node, node_id: owner } },
    { owner, kind: "holding", id: holding.artifact_id, version: Date.now(), value: holding },
  ]),
);

// The first is the one that the daemon has made.
const ids = [template.template_id];
for (let index = 1; index < templates; index++) ids.push(idOf(index));
await registers.update("template", template.template_id, (current) =>
  current === undefined ? undefined : { ...current, desired_nodes: all },
);
await inBatches(ids.slice(1), (some) =>
  Promise.all(
    some.flatMap((id) => {
      const at = atOf(ids.indexOf(id));
      const times = { created_at: at, updated_at: at, job_id: `job-${id}` };
      const named = { display_name: `service-${id.slice(-4)}`, desired_nodes: all };
      const labels = { team: `team-${Number(id.slice(-4)) % 50}` };
      return [
        registers.update("template", id, () => ({
          ...rename(template, id),
          ...{ ...times, ...named, labels },
        })),
        registers.update("job", `job-${id}`, () => ({ ...rename(job, id), ...times })),
      ];
    }),
  ),
);
await inBatches(
  ids.flatMap((id) => all.map((owner) => [owner, id] as const)),
  async (some) => {
    const rows: LocalWrite[] = [];
    const entries: Entry[] = [];
    for (const [owner, id] of some) {
      if (id === template.template_id && owner === self) continue;
      entries.push(replicaOn(owner, id));
      if (owner !== self) continue;
      const dir = join(dataDir, "templates", `${id}.g${replica.generation ?? 1}`);
      await cp(snapshot.dir, dir, { recursive: true });
      rows.push({ table: "driver-snapshot", key: id, value: { ...rename(snapshot, id), dir } });
    }
    await catalog.merge(entries, { local: rows });
  },
);
await inBatches(
  Array.from({ length: refs }, (_, index) => index + 1),
  (some) =>
    catalog.merge([], {
      local: some.map((id): LocalWrite => {
        const ref: RuntimeRef = {
          id,
          snapshot_id: ids[id % ids.length] ?? template.template_id,
          sandbox_id: `sb-${String(id).padStart(24, "0")}`,
          node_id: self,
          node_ip: node.node_ip,
          binding_type: "memory_backing",
          sandbox_gen: 1,
          status: "ACTIVE",
          attached_at: template.created_at,
          last_seen_at: template.created_at,
          last_error: "",
          source: "runtime",
        };
        return { table: "runtime-ref", key: String(id).padStart(16, "0"), value: ref };
      }),
    }),
);
await registers.stop();
const counts = { templates: ids.length, replicas: [...catalog.list("replica")].length, refs };
const records = [...catalog.list("template", { owner: CLUSTER })].length;
await catalog.close();
console.log(JSON.stringify({ ...counts, records, ids }));
process.exit(0);
