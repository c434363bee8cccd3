/** What the nodes do in each scenario, and what must hold after every step and at the end. */
import { CONFIG_ID } from "../../src/domain/index.ts";
import type { FenceToken, Lease } from "../../src/gossip/ports.ts";
import { operations } from "./daemon/operations.ts";
import type { SimNode, Life } from "./node.ts";
import {
  NAMES,
  NO_FAULTS,
  Simulation,
  type Outcome,
  type Scenario,
  type Work,
} from "./simulation.ts";
import { peerOf } from "./world.ts";

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const decode = (body: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(body));

/** A value that any kind of record may hold here: nothing checks schemas in the simulation. */
interface Journal {
  readonly n: number;
  readonly tokens: readonly string[];
}

/* ---- registers ---------------------------------------------------------------------------- */

let tokens = 0;

/** Appends a token to a register's journal; acknowledged only when the update resolves. */
async function append(
  sim: Simulation,
  node: SimNode,
  life: Life,
  id: string,
  isNew = false,
): Promise<void> {
  const token = `${node.name}${++tokens}`;
  const entry = await life.registers.update(
    "leader",
    id,
    (current) => {
      const journal = (current ?? { n: 0, tokens: [] }) as unknown as Journal;
      // An earlier attempt of this very update may have been accepted by a few, and read again.
      if (journal.tokens.includes(token)) return undefined;
      return {
        template_id: id,
        node_id: node.name,
        incarnation: 1,
        epoch: journal.n + 1,
        released: false,
        since: "",
        n: journal.n + 1,
        tokens: [...journal.tokens, token],
      };
    },
    { timeoutMs: 3_000, isNew },
  );
  if (entry !== undefined) sim.acknowledge(id, token);
}

async function checkJournals(sim: Simulation): Promise<void> {
  for (const [id, wanted] of sim.acknowledged) {
    const life = sim.nodes.find((node) => node.life !== undefined)?.life;
    const entry = await life?.registers.read("leader", id, { timeoutMs: 20_000 });
    const journal = entry?.value as unknown as Journal | undefined;
    const held = new Set(journal?.tokens ?? []);
    const lost = wanted.filter((token) => !held.has(token));
    if (lost.length > 0) throw new Error(`acknowledged and lost in ${id}: ${lost.join(", ")}`);
    if (held.size !== (journal?.n ?? 0)) throw new Error(`${id} counts ${String(journal?.n)}`);
  }
}

/** All members hold the same once the network has healed. */
function checkConverged(sim: Simulation): void {
  const hashes = sim.nodes.map((node) => node.life?.catalog.stateHash() ?? "none");
  if (new Set(hashes).size > 1) sim.fail(`catalogs differ: ${hashes.join(", ")}`);
}

const writers: Work = (sim, node, life) => {
  for (const id of ["r1", "r2"]) {
    sim.every(node, 700, () => append(sim, node, life, id));
  }
};

const registers: Scenario = {
  members: 5,
  voters: (world) => NAMES.slice(0, world.chance.pick([1, 2, 3, 3, 5])),
  faults: () => ({}),
  work: writers,
  async end(sim) {
    await checkJournals(sim);
    checkConverged(sim);
  },
};

/* ---- creations ---------------------------------------------------------------------------- */

/** Of each run, the ids that were made last. */
const made = new WeakMap<Simulation, string[]>();

/** Registers that their maker writes without asking, while the others write them too. */
const creations: Scenario = {
  members: 5,
  voters: (world) => NAMES.slice(0, world.chance.pick([1, 2, 3, 3, 5])),
  faults: (chance) => (chance.next() < 0.5 ? { skewMs: 20 } : {}),
  work(sim, node, life) {
    const ids = made.get(sim) ?? [];
    made.set(sim, ids);
    sim.every(node, 1_500, async () => {
      const id = `${node.name}-${ids.length}`;
      ids.push(id);
      await append(sim, node, life, id, true);
    });
    sim.every(node, 300, async () => {
      const id = ids.at(-1 - Math.floor(sim.world.chance.next() * 2));
      if (id !== undefined) await append(sim, node, life, id);
    });
  },
  async end(sim) {
    await checkJournals(sim);
    checkConverged(sim);
  },
};

/* ---- voters ------------------------------------------------------------------------------- */

const voters: Scenario = {
  members: 5,
  voters: () => ["a"],
  // Ballots are times: with equal clocks they cross more often.
  faults: (chance) => (chance.next() < 0.8 ? { skewMs: 20 } : {}),
  work(sim, node, life) {
    writers(sim, node, life);
    sim.every(node, 2_500, async () => {
      let changed = false;
      await life.registers.update(
        "cluster",
        CONFIG_ID,
        (current) => {
          changed = false;
          if (current === undefined) return undefined;
          const { number, nodes } = current.voters;
          const spare = NAMES.filter((name) => !nodes.includes(name));
          const isMore = nodes.length < 2 || (spare.length > 0 && sim.world.chance.happens(0.55));
          const next = isMore
            ? [...nodes, sim.world.chance.pick(spare)]
            : nodes.filter((name) => name !== sim.world.chance.pick(nodes));
          if (next.length === 0 || next.length === nodes.length) return undefined;
          changed = true;
          return {
            ...current,
            voters: { number: number + 1, nodes: next.sort(), previous: nodes },
          };
        },
        { timeoutMs: 3_000 },
      );
      if (changed) sim.world.count("voter changes");
    });
  },
  async end(sim) {
    await checkJournals(sim);
    checkConverged(sim);
  },
};

/* ---- leaders ------------------------------------------------------------------------------ */

const TEMPLATES = ["t1", "t2"];

function oneLeader(sim: Simulation): void {
  for (const template of TEMPLATES) {
    const holders = sim.nodes.filter((node) =>
      (sim.leases.get(node) ?? []).some(
        (lease) => node.life !== undefined && lease.templateId === template && lease.isValid(),
      ),
    );
    if (holders.length > 1) {
      sim.fail(`two leaders of ${template}: ${holders.map((node) => node.name).join(", ")}`);
    }
  }
}

async function lead(sim: Simulation, node: SimNode, life: Life, template: string): Promise<void> {
  const lease = await life.leadership.acquire(template);
  if (lease === undefined) return;
  const held = sim.leases.get(node) ?? [];
  if (!held.includes(lease)) {
    held.push(lease);
    sim.world.count("leaderships");
    sim.world.note(`${node.name} leads ${template} in epoch ${lease.epoch}`);
  }
  sim.leases.set(node, held.slice(-20));
  if (lease.isValid()) {
    const { epoch, operation } = lease.token();
    const effect = `${template}@${epoch}.${operation}`;
    if (sim.effects.has(effect)) sim.fail(`the effect ${effect} happened twice`);
    sim.effects.add(effect);
  }
  if (sim.world.chance.happens(0.05)) await life.leadership.release(template);
}

const leaders: Scenario = {
  members: 5,
  voters: (world) => NAMES.slice(0, world.chance.pick([1, 3, 3, 5])),
  faults: () => ({}),
  work(sim, node, life) {
    sim.leases.set(node, []);
    for (const template of TEMPLATES) {
      sim.every(node, 400, () => lead(sim, node, life, template));
      life.leadership.onOpportunity((free) => {
        if (free === template && !sim.calm) {
          lead(sim, node, life, template).catch(() => undefined);
        }
      });
    }
  },
  check: oneLeader,
};

/** Clocks at the edge of what is allowed, and nothing else wrong. */
const drift: Scenario = {
  ...leaders,
  voters: () => NAMES.slice(0, 3),
  faults: () => ({
    ...NO_FAULTS,
    drift: 0.1,
    pauseEveryMs: 3_000,
    cutEveryMs: 2_500,
    latencyMs: 30,
    late: 0.05,
    lateMs: 3_000,
  }),
};

/* ---- copies: commands with fence tokens ---------------------------------------------------- */

const COPIES = 2;
interface Command {
  readonly kind: "inventory" | "drop" | "add";
  readonly token: FenceToken;
}

const holds = (node: SimNode): boolean => node.disk.rows.local.get("setting\0copy") !== "gone";

const copies: Scenario = {
  members: 4,
  voters: () => NAMES.slice(0, 3),
  faults: (chance) => ({
    ...NO_FAULTS,
    doubling: 0.4,
    late: 0.15,
    lateMs: 6_000,
    latencyMs: 8,
    drift: 0.1,
    pauseEveryMs: 2_500 + 6_000 * chance.next(),
    crashEveryMs: chance.next() < 0.5 ? 0 : 9_000,
    cutEveryMs: chance.next() < 0.5 ? 0 : 6_000,
  }),
  work(sim, node, life) {
    life.transport.handle("ask", async (_from, body) => {
      const { kind, token } = decode(body) as Command;
      if (!(await life.fence.admit("t1", token))) return encode({ refused: true });
      const table = life.catalog.table("setting");
      if (kind === "drop") await table.put("copy", "gone");
      if (kind === "add") await table.put("copy", "here");
      return encode({ holds: (await table.get("copy")) !== "gone" });
    });
    sim.every(node, 120, async () => {
      const lease = await life.leadership.acquire("t1");
      if (lease === undefined) return;
      await tend(sim, life, lease);
    });
  },
  check(sim) {
    const held = sim.nodes.filter(holds).length;
    if (held < COPIES) sim.fail(`only ${held} copies are left`);
  },
};

/** Counts copies, then takes one away or adds one; each command with its own token. */
async function tend(sim: Simulation, life: Life, lease: Lease): Promise<void> {
  const ask = async (node: SimNode, kind: Command["kind"]) => {
    const body = encode({ kind, token: lease.token() });
    const options = { timeoutMs: 400 };
    const answer = await life.transport.request(peerOf(node.name), "ask", body, options);
    const found = decode(answer) as { holds?: boolean; refused?: boolean };
    if (found.refused === true) throw new Error("refused");
    return found.holds === true;
  };
  // Whoever answers obeys nobody before this leader any more: all have to.
  const holders: SimNode[] = [];
  const empty: SimNode[] = [];
  for (const node of sim.nodes) ((await ask(node, "inventory")) ? holders : empty).push(node);
  if (holders.length > COPIES) {
    await ask(sim.world.chance.pick(holders), "drop");
    sim.world.count("drops");
  } else {
    for (const node of empty) await ask(node, "add");
  }
}

/* ---- spreading ---------------------------------------------------------------------------- */

const spread: Scenario = {
  members: 5,
  voters: () => NAMES.slice(0, 3),
  faults: () => ({}),
  work(sim, node, life) {
    sim.every(node, 300, async () => {
      const id = `f${sim.world.chance.below(4)}`;
      // As the daemon does it: the first version is the time of the making, so that a fact whose
      // tombstone is purged begins above what it was.
      const last = life.catalog.get(node.name, "refs", id)?.version ?? Math.floor(sim.world.now);
      const version = last + 1;
      const value = { template_id: id, count: version, sandboxes: [] };
      const address = { owner: node.name, kind: "refs", id, version } as const;
      const isGone = sim.world.chance.happens(0.2);
      await life.catalog.merge([isGone ? address : { ...address, value }]);
      sim.world.count("facts");
    });
  },
  async end(sim) {
    checkConverged(sim);
  },
};

/* ---- deleting, and forgetting what was deleted ---------------------------------------------- */

const purge: Scenario = {
  members: 5,
  voters: (world) => NAMES.slice(0, world.chance.pick([1, 3, 3, 5])),
  // Below a tombstone's age, which is an hour's many times outside.
  faults: () => ({ skewMs: 5_000 }),
  start(sim) {
    const node = sim.world.chance.pick(sim.nodes);
    sim.away(node, sim.world.chance.between(2_000, 8_000), 38_000);
  },
  work(sim, node, life) {
    spread.work(sim, node, life);
    /** True when it was written; a value that was on its way may still turn up when it was not. */
    const write = async (id: string, live: boolean): Promise<boolean> => {
      let changed = false;
      await life.registers.update(
        "leader",
        id,
        (current) => {
          // An attempt before this one may have done it.
          changed ||= live || current !== undefined;
          if (!live) return current === undefined ? undefined : null;
          const epoch = (current?.epoch ?? 0) + 1;
          return {
            ...{ template_id: id, node_id: node.name, incarnation: 1, epoch },
            ...{ released: false, since: "" },
          };
        },
        { timeoutMs: 3_000 },
      );
      if (changed) sim.world.count(live ? "created" : "deleted");
      return changed;
    };
    for (const turn of [1, 2]) {
      const id = `own-${node.name}-${turn}`;
      sim.every(node, 1_500, async () => {
        const live = sim.world.chance.happens(0.5);
        const before = sim.known.get(id) ?? "unknown";
        sim.known.set(id, "unknown");
        sim.known.set(id, (await write(id, live)) ? { live } : before);
      });
    }
    // Made at the start, deleted while a node is away, and never touched again.
    const { now } = sim.world;
    const at = (time: number, what: () => Promise<unknown>) => {
      if (now < time) node.host.later(time - now, () => void what().catch(() => undefined));
    };
    const once = `once-${node.name}`;
    const fact = { owner: node.name, kind: "refs", id: once } as const;
    const value = { template_id: once, count: 1, sandboxes: [] };
    at(500, () => write(once, true));
    at(600, () => life.catalog.merge([{ ...fact, version: 1, value }]));
    const deletedAt = sim.world.chance.between(9_000, 11_000);
    at(deletedAt, () => write(once, false));
    at(deletedAt, () => life.catalog.merge([{ ...fact, version: 2 }]));
    // When the others have purged it, and the node that was away has not yet.
    at(46_000, () => life.registers.read("leader", once));
    sim.every(node, 2_500, async () => {
      await write(
        sim.world.chance.pick(["any-1", "any-2", "any-3"]),
        sim.world.chance.happens(0.4),
      );
    });
  },
  async end(sim) {
    const [node] = sim.nodes;
    for (const [id, known] of sim.known) {
      if (known === "unknown") continue;
      const entry = await node?.life?.registers.read("leader", id, { timeoutMs: 20_000 });
      const isLive = entry?.value !== undefined;
      if (isLive !== known.live) sim.fail(`${id} is ${isLive ? "back" : "gone"}`);
    }
    const left = async () => {
      let sum = 0;
      for (const { life } of sim.nodes) {
        sum += (await life?.catalog.tombstones(Infinity, 1_000))?.length ?? 0;
      }
      return sum;
    };
    // A voter that accepted what few others did keeps the tombstone before it until the register is
    // used again: rare, and nothing comes back by it.
    while ((await left()) > 3) await new Promise<void>((next) => sim.world.after(1_000, next));
    checkConverged(sim);
  },
};

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  registers,
  creations,
  voters,
  leaders,
  drift,
  copies,
  spread,
  purge,
  operations,
};

export async function simulate(name: string, seed: number): Promise<Outcome> {
  const scenario = SCENARIOS[name];
  if (scenario === undefined) throw new Error(`there is no scenario ${name}`);
  tokens = 0;
  return new Simulation(scenario, seed).run();
}
