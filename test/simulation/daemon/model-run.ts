/** Sequences of commands, drawn by fast-check: each by a seed of its own, which gives it again. */
import fc from "fast-check";
import { NAMES } from "../simulation.ts";
import { Cluster, emptyState, type State } from "./model.ts";
import { has, idsOf, pick, type Act, type Choice } from "./model-asks.ts";
import * as commands from "./model-commands.ts";
import * as races from "./model-races.ts";
import * as records from "./model-records.ts";

/** fast-check changes the model in place. */
interface Model {
  state: State;
}

const MEMBERS = NAMES.slice(0, 3);
const MOST = { templates: 3, sandboxes: 4, snapshots: 4 };
const LONGEST = 14;

type Can = (state: State) => boolean;
const always: Can = () => true;
const hasTemplate: Can = ({ templates }) => has(templates);
const hasAny: Can = (state) => has(idsOf(state));
const hasSandbox: Can = ({ sandboxes }) => has(sandboxes);
const hasRoom: Can = ({ templates }) => !has(templates, MOST.templates);
const canRollBack: Can = (state) => has(state.sandboxes) && has(state.snapshots);

const COMMANDS: Readonly<Record<string, readonly [can: Can, act: Act]>> = {
  create: [hasRoom, commands.createOne],
  createTwice: [({ templates }) => !has(templates, 2), commands.createTwice],
  createLike: [(state) => hasTemplate(state) && hasRoom(state), commands.createLike],
  createPartly: [hasRoom, commands.createPartly],
  forceAgainstCreate: [hasRoom, races.forceAgainstCreate],
  remove: [hasAny, commands.removeOne],
  redo: [hasTemplate, commands.redoOne],
  run: [(state) => hasAny(state) && !has(state.sandboxes, MOST.sandboxes), commands.run],
  end: [hasSandbox, commands.end],
  snapshot: [
    (state) => hasSandbox(state) && !has(state.snapshots, MOST.snapshots),
    commands.snapshotOne,
  ],
  commit: [(state) => hasSandbox(state) && hasRoom(state), commands.commitOne],
  rollback: [canRollBack, commands.rollbackOne],
  acquire: [hasAny, commands.acquireOne],
  release: [({ refs }) => has(refs), commands.release],
  collect: [always, commands.collect],
  promote: [hasTemplate, records.promote],
  rollbackTag: [always, records.rollbackTag],
  deleteTag: [always, records.deleteTag],
  label: [hasTemplate, records.label],
  protect: [hasTemplate, records.protect],
  retain: [always, records.retain],
  scanAndAdopt: [always, records.scanAndAdopt],
  upgrade: [hasTemplate, records.upgrade],
  removeNode: [({ members }) => has(members, MEMBERS.length), records.removeNode],
  removeAgainstAcquire: [hasTemplate, races.removeAgainstAcquire],
  removeTwice: [hasAny, races.removeTwice],
  removeAgainstRedo: [hasTemplate, races.removeAgainstRedo],
  rollbackAgainstSnapshot: [
    (state) => Object.values(state.snapshots).some((one) => races.isOwn(state, one)),
    races.rollbackAgainstSnapshot,
  ],
  rollbackAgainstRemove: [
    (state) => Object.values(state.snapshots).some((one) => races.isOwn(state, one)),
    races.rollbackAgainstRemove,
  ],
  crash: [always, races.crash],
  powerOff: [always, races.powerOff],
  crashDuring: [always, races.crashDuring],
};

/** What others need, and what only some states allow. */
const OFTEN = {
  ...{
    create: 3,
    run: 3,
    snapshot: 3,
    rollback: 3,
    rollbackAgainstSnapshot: 2,
    rollbackAgainstRemove: 3,
    remove: 2,
  },
  ...{ removeAgainstAcquire: 2, removeAgainstRedo: 2, crashDuring: 4, commit: 2, promote: 2 },
} as Readonly<Record<string, number>>;
const WEIGHED = Object.keys(COMMANDS).flatMap((name) =>
  Array.from({ length: OFTEN[name] ?? 1 }, () => name),
);

/** What the state allows; where what most others need is not there, every third time that. */
function allowedIn(state: State): readonly string[] {
  const allowed = WEIGHED.filter((name) => COMMANDS[name]?.[0](state) === true);
  const { templates, sandboxes, snapshots } = state;
  const needed = !has(templates) ? "create" : !has(sandboxes) ? "run" : "snapshot";
  if (needed === "snapshot" && has(snapshots)) return allowed;
  return [...allowed, ...Array.from({ length: Math.ceil(allowed.length / 2) }, () => needed)];
}

/** How many of each were carried out. */
export type Counts = Record<string, number>;

/** One of the commands that the state allows: a number picks it when it is its turn. */
class Step implements fc.AsyncCommand<Model, Cluster> {
  readonly #drawn: number;
  readonly #choice: Choice;
  readonly #counts: Counts;
  #name = "";

  constructor(drawn: number, choice: Choice, counts: Counts) {
    this.#drawn = drawn;
    this.#choice = choice;
    this.#counts = counts;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, cluster: Cluster): Promise<void> {
    const { state } = model;
    this.#name = pick(allowedIn(state), this.#drawn);
    const [, act] = COMMANDS[this.#name] as readonly [Can, Act];
    const choice = this.#choice;
    cluster.sim.world.note(`---- ${this.toString()}`);
    const after = await act({ state, cluster, choice, node: pick(state.members, choice.node) });
    model.state = await cluster.becomes(after);
    this.#counts[this.#name] = (this.#counts[this.#name] ?? 0) + 1;
  }

  toString(): string {
    const { node, first, second } = this.#choice;
    return this.#name === "" ? "" : `${this.#name}(${node}, ${first}, ${second})`;
  }
}

export interface ModelRun {
  readonly counts: Counts;
  /** What was seen, and why it is wrong. */
  readonly failure?: { readonly trace: readonly string[]; readonly violation: string };
}

/** Runs the random sequence of this seed. */
export async function runSequence(seed: number): Promise<ModelRun> {
  const counts: Counts = {};
  const number = fc.nat(11);
  const choice = fc.record({ node: fc.nat(2), first: number, second: number });
  const step = fc
    .tuple(fc.nat(10_000), choice)
    .map(([drawn, chosen]) => new Step(drawn, chosen, counts));
  const sequences = fc.commands([step], { size: "max", maxCommands: LONGEST });
  let trace: readonly string[] = [];
  const property = fc.asyncProperty(sequences, async (sequence) => {
    const cluster = new Cluster(seed);
    trace = cluster.sim.world.trace;
    const setup = async () => {
      await cluster.start();
      return { model: { state: emptyState(MEMBERS) }, real: cluster };
    };
    await fc.asyncModelRun(setup, sequence);
  });
  // A sequence is reported as it was drawn: a shorter one runs in other worlds.
  const options = { seed, numRuns: 1, endOnFailure: true, unbiased: true } as const;
  const { failed, counterexample, errorInstance } = await fc.check(property, options);
  counts["sequences"] = 1;
  if (!failed) return { counts };
  const shown = [...(counterexample?.[0] ?? [])].map((command) => command.toString()).join(", ");
  const violation = `${String(errorInstance).replaceAll("\n", " ")}, after ${shown}`;
  return { counts, failure: { trace: trace.slice(-60), violation } };
}
