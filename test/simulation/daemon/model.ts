/**
 * What three daemons do, against the simplest thing that it could be: a few sets. Each command of a
 * sequence says which states may follow; the cluster has to come to one of them, on every node.
 */
import {
  CLUSTER,
  isActiveJob,
  isAppError,
  sortKeys,
  type Commands,
  type ErrorCode,
  type JobRecord,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { NO_FAULTS, Simulation, type Scenario } from "../simulation.ts";
import { settle } from "../world.ts";
import type { DaemonLife, DaemonNode } from "./daemon-node.ts";
import { die, drawnOf, operations } from "./operations.ts";
import type { Truth } from "./truth.ts";

const SETTLED_MS = 30_000;
const STEP_MS = 50;

/** What an operator says of a template. */
export interface TemplateState {
  readonly isProtected: boolean;
  readonly labels: Readonly<Record<string, string>>;
}
export const PLAIN: TemplateState = { isProtected: false, labels: {} };

/** Where it runs, and what of. */
export interface Placed {
  readonly node: string;
  readonly on: string;
}

/** What there is, by id. */
export interface State {
  readonly members: readonly string[];
  readonly templates: Readonly<Record<string, TemplateState>>;
  /** FAILED ones are those that a daemon's end has cut off: nothing but deleting is left. */
  readonly snapshots: Readonly<Record<string, { readonly of: string; readonly failed: boolean }>>;
  readonly sandboxes: Readonly<Record<string, Placed>>;
  /** Refs of a runtime that the daemons don't drive, by its sandbox. */
  readonly refs: Readonly<Record<string, Placed>>;
  /** Name → where it pointed, oldest first. */
  readonly tags: Readonly<Record<string, readonly string[]>>;
}

export const emptyState = (members: readonly string[]): State => ({
  ...{ members, templates: {}, snapshots: {}, sandboxes: {}, refs: {}, tags: {} },
});

/** Equal for equal states. */
export const textOf = (state: State): string => JSON.stringify(sortKeys(state));

export const without = <T>(all: Readonly<Record<string, T>>, id: string): Record<string, T> =>
  Object.fromEntries(Object.entries(all).filter(([key]) => key !== id));

/** Who uses a template or a snapshot. */
export const isUsed = ({ sandboxes, refs }: State, id: string): boolean =>
  [...Object.values(sandboxes), ...Object.values(refs)].some(({ on }) => on === id);

/** A tag of which no template is left goes with the last one. */
export function removed(state: State, id: string): State {
  const templates = without(state.templates, id);
  const kept = Object.entries(state.tags).filter(([, history]) =>
    history.some((step) => step in templates),
  );
  const tags = Object.fromEntries(kept);
  return { ...state, templates, snapshots: without(state.snapshots, id), tags };
}

/** Calm, but for what a command does. */
const scenario: Scenario = {
  ...operations,
  faults: () => ({ ...NO_FAULTS, latencyMs: 6, syncMs: 2, skewMs: 2_000 }),
  work: (sim, started) => {
    const node = started as DaemonNode;
    node.daemon?.state.cluster.liveness.onChange((name, state) => {
      if (state === "dead") drawnOf(sim).truth.troubled(name);
    });
  },
};

export type Outcome<T> = { readonly value: T } | { readonly code: ErrorCode };

export class Cluster {
  readonly sim: Simulation;
  readonly truth: Truth;
  #nodes: readonly DaemonNode[];
  #requests = 0;

  constructor(seed: number) {
    this.sim = new Simulation(scenario, seed);
    const drawn = drawnOf(this.sim);
    drawn.trouble.effects = 0;
    drawn.deaths = 0;
    this.truth = drawn.truth;
    this.#nodes = [...drawn.nodes];
  }

  /** Those that were not taken out. */
  get nodes(): readonly DaemonNode[] {
    return this.#nodes;
  }

  async start(): Promise<void> {
    for (const node of this.nodes) this.sim.boot(node);
    await settle();
    await this.until("all nodes are up", () => this.nodes.every((node) => node.daemon));
    await this.until("all nodes are known", () => this.#isKnown());
  }

  /** What each says of itself has come to the others. */
  #isKnown(): boolean {
    return this.nodes.every(
      ({ daemon }) => daemon?.core.queries.nodes().length === this.nodes.length,
    );
  }

  /** Its host loses its power for good, and it is taken out. */
  async removeNode(name: string, by: string): Promise<void> {
    const node = this.node(name);
    die(this.sim, node, true);
    node.crash();
    this.#nodes = this.nodes.filter((one) => one !== node);
    const gone = await this.answer(this.commandsOf(by).removeNode(name, this.context("model")));
    if ("code" in gone) throw new Error(`${name} could not be taken out: ${gone.code}`);
    await this.until(`${name} is forgotten`, () => this.#isKnown());
  }

  node(name: string): DaemonNode {
    return this.nodes.find((node) => node.name === name) as DaemonNode;
  }

  commandsOf(name: string): Commands {
    const { daemon } = this.node(name);
    if (daemon === undefined) throw new Error(`${name} is down`);
    return daemon.core.commands;
  }

  context(actor: string) {
    return { requestId: `q${++this.#requests}`, actor };
  }

  async passes(milliseconds: number): Promise<void> {
    const { world } = this.sim;
    // What was asked for just now is on its way before anything else happens.
    await settle();
    await world.runUntil(world.now + milliseconds, () => {
      this.truth.check();
      if (this.sim.broken !== "") throw new Error(this.sim.broken);
    });
  }

  /** @throws Error it does not come true in the time that everything has to settle in */
  async until(what: string, isTrue: () => unknown): Promise<void> {
    const { world } = this.sim;
    for (const end = world.now + SETTLED_MS; !isTrue(); await this.passes(STEP_MS)) {
      if (world.now > end) throw new Error(`it did not come true in 30 s that ${what}`);
    }
  }

  /** Runs the world until the call has its answer. @throws Error it has none, or is a fault */
  async answer<T>(call: Promise<T>): Promise<Outcome<T>> {
    const [outcome] = await this.atOnce(0, [() => call]);
    return outcome as Outcome<T>;
  }

  /** The same of several, each begun so many milliseconds after the one before it. */
  async atOnce<T>(gapMs: number, calls: readonly (() => Promise<T>)[]): Promise<Outcome<T>[]> {
    const outcomes: Outcome<T>[] = [];
    let fault: unknown;
    let answered = 0;
    for (const [index, call] of calls.entries()) {
      if (index > 0) await this.passes(gapMs);
      const ended = (outcome: Outcome<T>) => {
        outcomes[index] = outcome;
        answered++;
      };
      call().then(
        (value) => ended({ value }),
        (error: unknown) => {
          if (isAppError(error) && error.code !== "internal") ended({ code: error.code });
          else fault = error;
        },
      );
    }
    await settle();
    const areAnswered = () => answered === calls.length || fault !== undefined;
    await this.until("all calls are answered", areAnswered);
    if (fault !== undefined) throw fault as Error;
    return outcomes;
  }

  /** The job when it has ended, and every node has heard so. */
  async jobEnd(jobId: string): Promise<JobRecord | undefined> {
    const find = () => this.truth.jobs().find((job) => job.job_id === jobId);
    const hasEnded = () => {
      const status = find()?.status;
      if (status === "PENDING" || status === "RUNNING") return false;
      return this.nodes.every(
        ({ daemon }) => daemon?.state.records.get("job", jobId)?.status === status,
      );
    };
    await this.until(`job ${jobId} has ended`, hasEnded);
    return find();
  }

  /**
   * What was asked for and never answered has been decided, one way or the other: voters read what
   * they accepted and were not told the end of.
   */
  async decided(): Promise<void> {
    await this.until("everything is decided", () => this.nodes.every(hasLearned));
    await this.until("no job is active", () => this.truth.activeJobs().length === 0);
  }

  /** The daemon dies; with the host's power its VMs die too. It is back a moment later. */
  async crash(name: string, isPower: boolean): Promise<void> {
    const node = this.node(name);
    if (!node.host.up) return;
    die(this.sim, node, isPower);
    node.host.crash();
    node.life = undefined;
    node.daemon = undefined;
    await this.passes(300);
    this.sim.boot(node);
    await settle();
    await this.until(`${name} is back`, () => node.daemon !== undefined);
  }

  /** As all nodes see it; or what they do not agree on yet. */
  observe(): State | string {
    const sandboxes: Record<string, Placed> = {};
    const refs: Record<string, Placed> = {};
    let shared = "";
    let state: State | undefined;
    for (const { name: node, daemon, machine } of this.nodes) {
      if (daemon === undefined) return `${node} is down`;
      const seen = this.#recordsOf(daemon);
      if (typeof seen === "string") return `${seen} on ${node}`;
      const text = JSON.stringify(sortKeys(seen));
      if (state !== undefined && text !== shared) return `${node} has other records`;
      shared = text;
      state = { ...seen, sandboxes, refs };
      for (const { sandbox_id: id, status } of daemon.runtime.sandboxes.list()) {
        const vm = machine.vms.get(id)?.sandbox;
        if (vm === undefined) return `${id} is ${status} on ${node} and has no VM`;
        sandboxes[id] = { node, on: vm.snapshotId ?? vm.templateId };
      }
      for (const ref of daemon.runtime.refs.active()) {
        const { sandbox_id: id, snapshot_id: on } = ref;
        if (ref.source === "runtime") refs[id] = { node, on };
        else if (sandboxes[id]?.on !== on) return `${node} has a ref of ${on} for ${id}`;
      }
      for (const [id, { sandbox }] of machine.vms) {
        const on = sandbox.snapshotId ?? sandbox.templateId;
        const held = daemon.runtime.refs.active({ sandboxId: id });
        if (held.length !== 1 || held[0]?.snapshot_id !== on) return `${id} has no ref of ${on}`;
      }
    }
    return state ?? "there is no node";
  }

  /** What one daemon has heard; or what is not settled. */
  #recordsOf({ state }: DaemonLife): Omit<State, "sandboxes" | "refs"> | string {
    const records = [...state.records.list("template")];
    const moving = records.find((one) => one.status !== "READY" && !isCutOff(one));
    if (moving !== undefined) return `${moving.template_id} is ${moving.status}`;
    const job = [...state.records.list("job")].find(isActiveJob);
    if (job !== undefined) return `job ${job.job_id} is ${job.status}`;
    const templates: Record<string, TemplateState> = {};
    const snapshots: Record<string, State["snapshots"][string]> = {};
    for (const one of records) {
      const { template_id: id, kind, labels = {} } = one;
      if (kind === "snapshot") {
        snapshots[id] = { of: one.origin_sandbox_id ?? "", failed: one.status === "FAILED" };
      } else templates[id] = { isProtected: one.protected === true, labels };
    }
    const tags = Object.fromEntries(
      [...state.records.list("tag")].map(({ name, history }) => [
        name,
        history.map(({ template_id }) => template_id),
      ]),
    );
    return { members: this.nodes.map(({ name }) => name), templates, snapshots, tags };
  }

  /** The one of these that the cluster has come to. @throws Error none of them in time */
  async becomes(candidates: readonly State[]): Promise<State> {
    const texts = candidates.map(textOf);
    const { world } = this.sim;
    let seen: State | string = "";
    for (const end = world.now + SETTLED_MS; world.now <= end; await this.passes(STEP_MS)) {
      if (this.truth.activeJobs().length > 0) continue;
      seen = this.observe();
      if (typeof seen === "string") continue;
      const found = candidates[texts.indexOf(textOf(seen))];
      if (found !== undefined) return found;
    }
    const is = typeof seen === "string" ? seen : textOf(seen);
    throw new Error(`after 30 s it is ${is}, not ${texts.join(" or ")}`);
  }
}

const DECIDED = ["job", "template", "artifact", "tag"] as const;

/** Nothing is accepted on its disk that is above what its catalog holds. */
function hasLearned({ disk, daemon }: DaemonNode): boolean {
  for (const kind of DECIDED) {
    const prefix = `register\0${kind}/`;
    for (const [key, row] of disk.rows.local) {
      if (!key.startsWith(prefix)) continue;
      const held = daemon?.state.catalog.get(CLUSTER, kind, key.slice(prefix.length));
      const { a: accepted } = row as { a: { n: number; x?: unknown } };
      // A deletion of what is not held: it may be forgotten here already.
      const heard = held?.version ?? (accepted.x === undefined ? accepted.n : 0);
      if (accepted.n > heard) return false;
    }
  }
  return true;
}

/** A snapshot that a daemon's end has cut off says so until it is deleted. */
const isCutOff = ({ kind, status }: TemplateRecord): boolean =>
  kind === "snapshot" && status === "FAILED";
