/** What the nodes do in each scenario, and what must hold after every step and at the end. */
import { CONFIG_ID, type Entry } from "../../src/domain/index.ts";
import type { FenceToken, Lease } from "../../src/gossip/ports.ts";
import { SimNode, configOf, type Life } from "./node.ts";
import { Network, World, peerOf, type Faults } from "./world.ts";

export class Violation extends Error {}

const NAMES = ["a", "b", "c", "d", "e"];
const RUN_MS = 40_000;
/** After the faults have ended: everything has to come to rest. */
const CALM_MS = 40_000;

export interface Outcome {
  readonly counts: Readonly<Record<string, number>>;
  readonly traceHash: number;
  readonly trace: readonly string[];
  readonly violation?: string;
}

type Work = (sim: Simulation, node: SimNode, life: Life) => void;

interface Scenario {
  readonly members: number;
  voters(world: World): readonly string[];
  readonly faults: (world: { next(): number }) => Partial<Faults>;
  readonly work: Work;
  /** What happens besides the faults, once. */
  start?(sim: Simulation): void;
  check?(sim: Simulation): void;
  end?(sim: Simulation): Promise<void>;
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const decode = (body: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(body));

/** A value that any kind of record may hold here: nothing checks schemas in the simulation. */
interface Journal {
  readonly n: number;
  readonly tokens: readonly string[];
}

export class Simulation {
  readonly world: World;
  readonly network: Network;
  readonly nodes: SimNode[];
  readonly scenario: Scenario;
  /** Tokens whose update was acknowledged, by register. */
  readonly acknowledged = new Map<string, string[]>();
  readonly effects = new Set<string>();
  readonly leases = new Map<SimNode, Lease[]>();
  readonly known = new Map<string, Known>();
  readonly #versions = new Map<string, string>();
  readonly #seen = new Map<string, number>();
  broken = "";
  calm = false;

  constructor(scenario: Scenario, seed: number) {
    const draw = new World(seed ^ 0x5bd1e995, NO_FAULTS).chance;
    const faults = { ...drawFaults(draw), ...scenario.faults(draw) };
    this.scenario = scenario;
    this.world = new World(seed, faults);
    this.network = new Network(this.world);
    const names = NAMES.slice(0, scenario.members);
    const config = configOf(names, scenario.voters(this.world));
    this.nodes = names.map(
      (name) =>
        new SimNode(
          this.world,
          this.network,
          name,
          config,
          (at, entry) => this.#onMerge(at, entry),
          () => this.nodes,
        ),
    );
  }

  fail(what: string): void {
    if (this.broken === "") this.broken = what;
    this.world.note(`VIOLATION ${what}`);
  }

  async run(): Promise<Outcome> {
    for (const node of this.nodes) this.#boot(node);
    this.#faults();
    this.scenario.start?.(this);
    const check = () => {
      if (this.broken === "") this.scenario.check?.(this);
      if (this.broken !== "") throw new Violation(this.broken);
    };
    try {
      await this.world.runUntil(RUN_MS, check);
      this.calm = true;
      this.network.calm = true;
      this.network.heal();
      for (const node of this.nodes) {
        node.disk.fullUntil = 0;
        node.host.pausedUntil = Math.min(node.host.pausedUntil, this.world.now);
        if (!node.host.up) this.#boot(node);
      }
      await this.world.runUntil(RUN_MS + CALM_MS, check);
      const ended = this.scenario.end?.(this) ?? Promise.resolve();
      let isOver = false;
      void ended.finally(() => (isOver = true)).catch(() => undefined);
      for (let turn = 0; turn < 120 && !isOver; turn++) {
        await this.world.runUntil(this.world.now + 500, check);
      }
      if (!isOver) this.fail("the final check did not end: no quorum, or no rest");
      else await ended.catch((error: unknown) => this.fail(String(error)));
      check();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
    }
    const { counts, traceHash, trace } = this.world;
    const outcome = { counts, traceHash, trace };
    return this.broken === "" ? outcome : { ...outcome, violation: this.broken };
  }

  /** Repeats while the node lives and the faults last. */
  every(node: SimNode, meanMs: number, work: () => Promise<void>): void {
    const again = () => {
      if (this.calm) return;
      node.host.later(this.world.chance.between(0.2, 1.8) * meanMs, () => {
        work().then(again, again);
      });
    };
    again();
  }

  acknowledge(register: string, token: string): void {
    const tokens = this.acknowledged.get(register) ?? [];
    tokens.push(token);
    this.acknowledged.set(register, tokens);
    this.world.count("acknowledged");
  }

  /** Takes a node down for longer than a tombstone's age; some of what it holds is deleted. */
  away(node: SimNode, fromMs: number, untilMs: number): void {
    this.world.after(fromMs, () => {
      if (!node.host.up) return;
      node.crash();
      this.world.count("long absences");
      this.world.after(untilMs - fromMs, () => {
        if (!node.host.up) this.#boot(node);
      });
    });
  }

  #boot(node: SimNode): void {
    node
      .start((started, life) => this.scenario.work(this, started, life))
      .catch((error: unknown) => this.world.note(`${node.name} did not start: ${String(error)}`));
  }

  /** Versions never fork, and nobody's view of an entry goes back. */
  #onMerge(at: string, entry: Entry): void {
    const key = `${entry.kind}/${entry.id}/${entry.owner}`;
    const text = JSON.stringify(entry.value ?? null);
    const known = this.#versions.get(`${key}@${entry.version}`);
    if (known !== undefined && known !== text) {
      this.fail(`${key} has two values in version ${entry.version}: ${known} and ${text}`);
    }
    this.#versions.set(`${key}@${entry.version}`, text);
    const life = this.nodes.find((node) => node.name === at)?.host.life ?? 0;
    const view = `${at}#${life} ${key}`;
    if ((this.#seen.get(view) ?? 0) > entry.version) this.fail(`${key} went back at ${at}`);
    this.#seen.set(view, entry.version);
  }

  #faults(): void {
    const { faults, chance } = this.world;
    this.#repeat(faults.crashEveryMs, () => {
      const node = chance.pick(this.nodes);
      if (!node.host.up) return;
      node.crash();
      this.world.after(chance.between(10, 5_000), () => {
        if (!node.host.up) this.#boot(node);
      });
    });
    this.#repeat(faults.pauseEveryMs, () => {
      const { host } = chance.pick(this.nodes);
      host.pausedUntil = this.world.now + chance.between(100, 9_000);
      this.world.count("pauses");
      this.world.note(`${host.name} is stopped until ${host.pausedUntil.toFixed(0)}`);
    });
    this.#repeat(faults.diskFullEveryMs, () => {
      chance.pick(this.nodes).disk.fullUntil = this.world.now + chance.between(50, 3_000);
      this.world.count("full disks");
    });
    this.#repeat(faults.cutEveryMs, () => {
      this.network.heal();
      if (chance.happens(0.3)) return;
      const side = this.nodes.filter(() => chance.happens(0.5)).map((node) => node.name);
      const oneWay = chance.happens(0.3);
      for (const from of side) {
        for (const { name } of this.nodes) {
          if (side.includes(name)) continue;
          this.network.cut(from, name);
          if (!oneWay) this.network.cut(name, from);
        }
      }
      this.world.count("cuts");
      this.world.note(`cut off: ${side.join(",")}${oneWay ? " one way" : ""}`);
    });
  }

  #repeat(meanMs: number, act: () => void): void {
    if (meanMs === 0) return;
    const again = () => {
      this.world.after(this.world.chance.between(0.2, 1.8) * meanMs, () => {
        if (this.calm) return;
        act();
        again();
      });
    };
    again();
  }
}

const NO_FAULTS: Faults = {
  loss: 0,
  doubling: 0,
  late: 0,
  lateMs: 0,
  latencyMs: 5,
  crashEveryMs: 0,
  pauseEveryMs: 0,
  cutEveryMs: 0,
  diskFullEveryMs: 0,
  drift: 0,
  skewMs: 3_600_000,
  syncMs: 5,
};

/**
 * Each seed has its own mix: each fault is absent in some runs, rare in some, frequent in others.
 */
function drawFaults(chance: { next(): number }): Faults {
  const often = (low: number, high: number) =>
    chance.next() < 0.4 ? 0 : low + chance.next() * (high - low);
  return {
    loss: often(0, 0.12),
    doubling: often(0, 0.15),
    late: often(0, 0.1),
    lateMs: 4_000,
    latencyMs: 2 + chance.next() * 40,
    crashEveryMs: often(1_500, 15_000),
    pauseEveryMs: often(2_000, 15_000),
    cutEveryMs: often(1_500, 12_000),
    diskFullEveryMs: often(3_000, 20_000),
    drift: chance.next() < 0.3 ? 0 : 0.1 * chance.next(),
    skewMs: 3_600_000,
    syncMs: 1 + chance.next() * 20,
  };
}

/* ---- registers ---------------------------------------------------------------------------- */

let tokens = 0;

/** Appends a token to a register's journal; acknowledged only when the update resolves. */
async function append(sim: Simulation, node: SimNode, life: Life, id: string): Promise<void> {
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
    { timeoutMs: 3_000 },
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

/** What a register's only writer knows of it; nothing while an update's outcome is not known. */
type Known = { readonly live: boolean } | "unknown";

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
  voters,
  leaders,
  drift,
  copies,
  spread,
  purge,
};

export async function simulate(name: string, seed: number): Promise<Outcome> {
  const scenario = SCENARIOS[name];
  if (scenario === undefined) throw new Error(`there is no scenario ${name}`);
  tokens = 0;
  return new Simulation(scenario, seed).run();
}
