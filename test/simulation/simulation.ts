/** A run of one seed: nodes, faults by chance, and what must hold after every step. */
import type { ClusterConfig, Entry } from "../../src/domain/index.ts";
import type { Lease } from "../../src/gossip/ports.ts";
import { SimNode, configOf, type Life } from "./node.ts";
import { Network, World, settle, type Faults } from "./world.ts";

export class Violation extends Error {}

export const NAMES = ["a", "b", "c", "d", "e"];
const RUN_MS = 40_000;
/** After the faults have ended: everything has to come to rest. */
const CALM_MS = 40_000;

export interface Outcome {
  readonly counts: Readonly<Record<string, number>>;
  readonly traceHash: number;
  readonly trace: readonly string[];
  readonly violation?: string;
}

export type Work = (sim: Simulation, node: SimNode, life: Life) => void;

export interface Scenario {
  readonly members: number;
  voters(world: World): readonly string[];
  readonly faults: (world: { next(): number }) => Partial<Faults>;
  /** What a member is; absent: its side of the protocols, without a daemon. */
  readonly node?: (sim: Simulation, name: string, config: ClusterConfig) => SimNode;
  readonly work: Work;
  /** From the end of the faults until everything has come to rest. */
  readonly calmMs?: number;
  /** A start that fails is tried again, as a supervisor does. */
  readonly restarts?: boolean;
  /** Told of every entry that a node has taken in. */
  hear?(sim: Simulation, at: string, entry: Entry): void;
  /** What happens besides the faults, once. */
  start?(sim: Simulation): void;
  check?(sim: Simulation): void;
  end?(sim: Simulation): Promise<void>;
}

/** What a register's only writer knows of it; nothing while an update's outcome is not known. */
export type Known = { readonly live: boolean } | "unknown";

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
  readonly #versions = new Map<string, Entry>();
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
        scenario.node?.(this, name, config) ??
        new SimNode(this.world, this.network, name, config, this.onMerge, () => this.nodes),
    );
  }

  /** For the nodes' catalogs. */
  readonly onMerge = (at: string, entry: Entry): void => {
    this.#checkMerge(at, entry);
    this.scenario.hear?.(this, at, entry);
  };

  fail(what: string): void {
    if (this.broken === "") this.broken = what;
    this.world.note(`VIOLATION ${what}`);
  }

  async run(): Promise<Outcome> {
    for (const node of this.nodes) this.boot(node);
    // A daemon's first timer comes after some turns.
    if (this.scenario.node !== undefined) await settle();
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
        if (!node.host.up) this.boot(node);
      }
      await this.world.runUntil(RUN_MS + (this.scenario.calmMs ?? CALM_MS), check);
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
        if (!node.host.up) this.boot(node);
      });
    });
  }

  boot(node: SimNode): void {
    node
      .start((started, life) => this.scenario.work(this, started, life))
      .catch((error: unknown) => {
        this.world.note(`${node.name} did not start: ${String(error)}`);
        if (this.scenario.restarts === true) this.kill(node, 1_000, 3_000);
      });
  }

  /** Ends the process at once; it is started again after a while. */
  kill(node: SimNode, lowMs: number, highMs: number): void {
    node.crash();
    this.world.after(this.world.chance.between(lowMs, highMs), () => {
      if (!node.host.up) this.boot(node);
    });
  }

  /** Versions never fork, and nobody's view of an entry goes back. */
  #checkMerge(at: string, entry: Entry): void {
    const key = `${entry.kind}/${entry.id}/${entry.owner}`;
    const told = `${key}@${entry.version}`;
    const known = this.#versions.get(told) ?? entry;
    this.#versions.set(told, known);
    if (!isSame(known.value, entry.value)) {
      const both = `${JSON.stringify(known.value)} and ${JSON.stringify(entry.value)}`;
      this.fail(`${key} has two values in version ${entry.version}: ${both}`);
    }
    const life = this.nodes.find((node) => node.name === at)?.host.life ?? 0;
    const view = `${at}#${life} ${key}`;
    if ((this.#seen.get(view) ?? 0) > entry.version) this.fail(`${key} went back at ${at}`);
    this.#seen.set(view, entry.version);
  }

  #faults(): void {
    const { faults, chance } = this.world;
    this.#repeat(faults.crashEveryMs, () => {
      const node = chance.pick(this.nodes);
      if (node.host.up) this.kill(node, 10, 5_000);
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

/** Whether two values are written alike, but for the order of their fields. */
function isSame(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const [a, b] = [one, other] as Record<string, unknown>[];
  if (a === undefined || b === undefined) return false;
  for (const key of Object.keys(a)) if (!isSame(a[key], b[key])) return false;
  return Object.keys(b).every((key) => b[key] === undefined || key in a);
}

export const NO_FAULTS: Faults = {
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
