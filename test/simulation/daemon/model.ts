/**
 * What three daemons do, against the simplest thing that it could be: a few sets. Each command of a
 * sequence says which states may follow; the cluster has to come to one of them, on every node.
 */
import {
  isAppError,
  type Commands,
  type ErrorCode,
  type JobRecord,
} from "../../../src/domain/index.ts";
import { NO_FAULTS, Simulation, type Scenario } from "../simulation.ts";
import { settle } from "../world.ts";
import type { DaemonNode } from "./daemon-node.ts";
import { die, drawnOf, operations } from "./operations.ts";
import type { Truth } from "./truth.ts";

const SETTLED_MS = 30_000;
const STEP_MS = 50;

/** What there is, by id. */
export interface State {
  readonly templates: readonly string[];
  /** Snapshot → sandbox that it was taken of. */
  readonly snapshots: Readonly<Record<string, string>>;
  readonly sandboxes: Readonly<Record<string, { readonly node: string; readonly on: string }>>;
  /** Refs of a runtime that the daemons don't drive: its sandbox → where, and of what. */
  readonly refs: Readonly<Record<string, { readonly node: string; readonly on: string }>>;
}

export const EMPTY: State = { templates: [], snapshots: {}, sandboxes: {}, refs: {} };

const byKey = <T>(all: Readonly<Record<string, T>>): [string, T][] =>
  Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1));

/** Equal for equal states. */
export const textOf = ({ templates, snapshots, sandboxes, refs }: State): string =>
  JSON.stringify([
    [...templates].sort(),
    byKey(snapshots),
    byKey(sandboxes).map(([id, { node, on }]) => [id, node, on]),
    byKey(refs).map(([id, { node, on }]) => [id, node, on]),
  ]);

export const without = <T>(all: Readonly<Record<string, T>>, id: string): Record<string, T> =>
  Object.fromEntries(Object.entries(all).filter(([key]) => key !== id));

/** Who uses a template or a snapshot. */
export const isUsed = ({ sandboxes, refs }: State, id: string): boolean =>
  [...Object.values(sandboxes), ...Object.values(refs)].some(({ on }) => on === id);

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
  readonly nodes: readonly DaemonNode[];
  #requests = 0;

  constructor(seed: number) {
    this.sim = new Simulation(scenario, seed);
    const drawn = drawnOf(this.sim);
    drawn.trouble.effects = 0;
    drawn.deaths = 0;
    this.truth = drawn.truth;
    this.nodes = drawn.nodes;
  }

  async start(): Promise<void> {
    for (const node of this.nodes) this.sim.boot(node);
    await settle();
    await this.until("all nodes are up", () => this.nodes.every((node) => node.daemon));
    // What each says of itself has come to the others.
    const isKnown = () =>
      this.nodes.every(({ daemon }) => daemon?.core.queries.nodes().length === this.nodes.length);
    await this.until("all nodes are known", isKnown);
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

  /** The job when it has ended. */
  async jobEnd(jobId: string): Promise<JobRecord | undefined> {
    const find = () => this.truth.jobs().find((job) => job.job_id === jobId);
    const hasEnded = () => ["READY", "FAILED", undefined].includes(find()?.status);
    await this.until(`job ${jobId} has ended`, hasEnded);
    return find();
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
    const sandboxes: Record<string, { node: string; on: string }> = {};
    const refs: Record<string, { node: string; on: string }> = {};
    let shared = "";
    let state: State | undefined;
    for (const { name: node, daemon, machine } of this.nodes) {
      if (daemon === undefined) return `${node} is down`;
      const records = [...daemon.state.records.list("template")];
      const moving = records.find(({ status }) => status !== "READY");
      if (moving !== undefined) return `${moving.template_id} is ${moving.status} on ${node}`;
      const templates = records.flatMap((it) => (it.kind === "template" ? [it.template_id] : []));
      const snapshots = Object.fromEntries(
        records.flatMap((it) =>
          it.kind === "snapshot" ? [[it.template_id, it.origin_sandbox_id ?? ""]] : [],
        ),
      );
      const text = textOf({ templates, snapshots, sandboxes: {}, refs: {} });
      if (state !== undefined && text !== shared) return `${node} has other records`;
      shared = text;
      state = { templates, snapshots, sandboxes, refs };
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
