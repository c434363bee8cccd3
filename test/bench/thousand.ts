/**
 * So many members in one process, each with 10,000 templates: what ships of registers, failure
 * detector and replication, over the simulation's clock, disk and network. How long until one
 * change is everywhere, with gossip and without, and what a node takes. The values of all nodes'
 * templates are shared, the rest is each one's own. Times are simulated, so they are the same on a
 * busy machine. Run by scripts/bench/thousand.mjs, with `--expose-gc`, once
 * for each number of nodes; prints one line of JSON.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock } from "../../src/daemon/effects/clock.ts";
import { CLUSTER, type Entry, type Log, type TemplateRecord } from "../../src/domain/index.ts";
import { createLiveness } from "../../src/gossip/liveness.ts";
import { createMembers } from "../../src/gossip/members.ts";
import type { Topic, Transport } from "../../src/gossip/ports.ts";
import { createRegisters, type OpenedRegisters } from "../../src/gossip/registers.ts";
import { createReplication } from "../../src/gossip/sync/index.ts";
import { openCatalog } from "../../src/storage/index.ts";
import { Disk, openSimulatedCatalog, type OnMerge } from "../simulation/disk.ts";
import { configOf } from "../simulation/node.ts";
import { Host, Network, World, peerOf, type Faults } from "../simulation/world.ts";

const [count = 1_000, templates = 10_000] = process.argv.slice(2).map(Number);
const SEED = 1;
const VOTERS = 5;
/** Between two comparisons of a node with one other; src/gossip/sync/index.ts. */
const ROUND_MS = 3_500;
const STEP_MS = 50;
const LIMIT_MS = 100 * ROUND_MS;
/** Start, and the failure detector's first turns. */
const WARM_MS = 3_000;
const REST_MS = 10_000;
const SETTLE_MS = 4_000;
const CHANGES = 3;
const AT = "2026-01-01T00:00:00.000Z";

/** A network on which nothing fails; what is to be lost is lost below. */
const CALM: Faults = {
  ...{ loss: 0, doubling: 0, late: 0, lateMs: 0, latencyMs: 5, syncMs: 5 },
  ...{ crashEveryMs: 0, pauseEveryMs: 0, cutEveryMs: 0, diskFullEveryMs: 0 },
  ...{ drift: 0.02, skewMs: 60_000 },
};

const nodeName = (index: number): string => `node-${String(index).padStart(4, "0")}`;
const templateId = (index: number): string => `tpl-${String(index).padStart(24, "0")}`;

/** As one of a small web service is. */
function templateValue(index: number): TemplateRecord {
  const envs = Array.from({ length: 6 }, (_, n) => ({ key: `SETTING_${n}`, value: `value-${n}` }));
  const image = `registry.example.org/team-${index % 50}/service-${index}:1.${index % 9}`;
  return {
    template_id: templateId(index),
    ...{ instance_type: "cubebox", version: "v1", kind: "template", status: "READY" },
    artifact_id: `rfs-${String(index).padStart(24, "0")}`,
    ...{ image_info: image, job_id: `job-${index}`, generation: 1, epoch: 1 },
    desired_nodes: [0, 1, 2].map((n) => nodeName((index + n) % count)),
    request: {
      containers: [{ name: "main", image: { image }, envs, command: ["/usr/bin/server"] }],
      labels: { team: `team-${index % 50}` },
    },
    ...{ last_error: "", created_at: AT, updated_at: AT },
  };
}

const entries: readonly Entry[] = Array.from({ length: templates }, (_, index) => ({
  owner: CLUSTER,
  kind: "template",
  id: templateId(index),
  version: 1,
  value: templateValue(index),
}));

const heapBytes = (): number => {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
};

/** Which share of the messages about changes is lost. */
let lossOfGossip = 0;
let received = { gossip: 0, feed: 0, probe: 0, register: 0 };

/** Counts what comes in, bodies only, and loses what is to be lost. */
function metered(transport: Transport, world: World, isOpen: () => boolean): Transport {
  return {
    ...transport,
    // All have been connected for long, and have been compared then.
    connections: () => (isOpen() ? transport.connections() : []),
    subscribe: (topic: Topic, handler) =>
      transport.subscribe(topic, (from, body) => {
        if (topic === "changes" && world.chance.happens(lossOfGossip)) return "ignore";
        received.gossip += body.length;
        return handler(from, body);
      }),
    request: async (to, protocol, body, options) => {
      const answer = await transport.request(to, protocol, body, options);
      // The question came in there, the answer here.
      const kind = protocol === "feed" || protocol === "probe" ? protocol : "register";
      received[kind] += body.length + answer.length;
      return answer;
    },
  };
}

interface Member {
  readonly registers: OpenedRegisters;
  start(): Promise<void>;
}

class Fleet {
  readonly world = new World(SEED, CALM);
  readonly #network = new Network(this.world);
  readonly #members: Member[] = [];
  #isOpen = false;

  constructor(onMerge: OnMerge) {
    const names = Array.from({ length: count }, (_, index) => nodeName(index));
    const config = configOf(names, names.slice(0, Math.min(VOTERS, count)));
    const all = [{ owner: CLUSTER, kind: "cluster", id: "config", version: 1, value: config }];
    const rows = [...all, ...entries].map((entry, index) => {
      const { kind, id, owner } = entry as Entry;
      return [`${kind}\0${id}\0${owner}`, { entry: entry as Entry, sequence: index + 1 }] as const;
    });
    // How far each has come with each other: as far as there is.
    const marks = names.map((name) => {
      const checkpoint = { feed: `feed of ${name}`, seq: rows.length };
      return [`checkpoint\0${peerOf(name)}`, checkpoint] as const;
    });
    for (const name of names) this.#members.push(this.#member(name, rows, marks, onMerge));
  }

  #member(
    name: string,
    rows: Iterable<readonly [string, { entry: Entry; sequence: number }]>,
    marks: Iterable<readonly [string, unknown]>,
    onMerge: OnMerge,
  ): Member {
    const host = new Host(this.world, name);
    const disk = new Disk();
    disk.rows.entries = new Map(rows);
    disk.rows.local = new Map(marks);
    disk.rows.local.set("checkpoint\0@feed", `feed of ${name}`);
    disk.sequence = disk.rows.entries.size;
    const catalog = openSimulatedCatalog(host, disk, onMerge);
    const members = createMembers(catalog, name);
    const bare = this.#network.transport(host);
    const transport = metered(bare, this.world, () => this.#isOpen);
    const [clock, random, log] = [host.clock(), host.random(), host.log()];
    const parts = { catalog, members, transport, clock, random, log };
    const liveness = createLiveness(parts);
    const registers = createRegisters({ ...parts, liveness });
    const replication = createReplication({ ...parts, registers, liveness });
    const start = async () => {
      await registers.start();
      liveness.start();
      replication.start();
    };
    return { registers, start };
  }

  async start(): Promise<void> {
    const started = Promise.all(this.#members.map((member) => member.start()));
    await this.run(WARM_MS);
    await started;
    this.#isOpen = true;
  }

  run(milliseconds: number): Promise<void> {
    return this.world.runUntil(this.world.now + milliseconds, () => undefined);
  }

  member(index: number): Member {
    return this.#members[index % count] as Member;
  }
}

/** Who has the change that is waited for; nobody's version is 1 then. */
const wanted = { id: "", nodes: new Set<string>() };
const onMerge: OnMerge = (node, { id, version, kind }) => {
  if (kind === "template" && id === wanted.id && version > 1) wanted.nodes.add(node);
};

/** Changes one record through the quorum; simulated time and bytes until the last node has it. */
async function change(fleet: Fleet, index: number, loss: number) {
  const id = templateId((index * 7_919) % templates);
  Object.assign(wanted, { id, nodes: new Set() });
  lossOfGossip = loss;
  let failed: unknown;
  const { registers } = fleet.member(index * 7_907 + 17);
  const written = registers.update("template", id, (current) => {
    // The registers of the voters are empty: what the catalogs hold was not written in this life.
    const base = current ?? templateValue((index * 7_919) % templates);
    return { ...base, labels: { change: String(index) } };
  });
  const began = fleet.world.now;
  written.catch((error: unknown) => (failed = error));
  received = { gossip: 0, feed: 0, probe: 0, register: 0 };
  while (wanted.nodes.size < count) {
    await fleet.run(STEP_MS);
    if (failed !== undefined) throw failed as Error;
    if (fleet.world.now - began > LIMIT_MS) throw new Error(`${wanted.nodes.size} have it`);
  }
  const milliseconds = fleet.world.now - began;
  const bytes = (received.feed + received.gossip + received.register) / count;
  lossOfGossip = 0;
  return { milliseconds, rounds: milliseconds / ROUND_MS, bytes };
}

/** What the catalog that ships takes in memory with these templates; LevelDB's caches aside. */
async function catalogBytes(): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), "templatecenter-thousand-"));
  const silent = () => undefined;
  const log: Log = { debug: silent, info: silent, warn: silent, error: silent, child: () => log };
  try {
    const before = heapBytes();
    const catalog = await openCatalog({ dir: join(dir, "catalog"), log, clock: realClock });
    // It keeps what it parsed itself, not these objects.
    await catalog.merge(structuredClone(entries));
    const bytes = heapBytes() - before;
    await catalog.close();
    return bytes;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const catalogOne = await catalogBytes();
const before = heapBytes();
const fleet = new Fleet(onMerge);
await fleet.start();
const memory = (heapBytes() - before) / count;

received = { gossip: 0, feed: 0, probe: 0, register: 0 };
await fleet.run(REST_MS);
const rest = { ...received };
const perSecond = (bytes: number) => bytes / count / (REST_MS / 1_000);

const runs = async (loss: number, from: number) => {
  const found = [];
  for (let n = 0; n < CHANGES; n++) {
    found.push(await change(fleet, from + n, loss));
    // What the change left behind comes to rest: echoes, voters that look.
    await fleet.run(SETTLE_MS);
  }
  return found;
};
console.log(
  JSON.stringify({
    count,
    templates,
    memory_bytes: memory,
    catalog_bytes: catalogOne,
    rest: {
      feed_bps: perSecond(rest.feed),
      probe_bps: perSecond(rest.probe + rest.gossip),
    },
    gossip: await runs(0, 0),
    lossy: await runs(0.1, CHANGES),
    silent: await runs(1, 2 * CHANGES),
  }),
);
process.exit(0);
