/** Commands of a sequence: every operation, several at once, and daemons that die in between. */
import fc from "fast-check";
import type { ErrorCode } from "../../../src/domain/index.ts";
import { Cluster, EMPTY, isUsed, without, type Outcome, type State } from "./model.ts";

/** fast-check changes the model in place. */
interface Model {
  state: State;
}

/** Who is asked, and which of those that there are: numbers that pick from whatever there is. */
interface Choice {
  readonly node: string;
  readonly first: number;
  readonly second: number;
}

interface Input {
  readonly state: State;
  readonly cluster: Cluster;
  readonly choice: Choice;
}

/** Answers the states that may follow. */
type Act = (input: Input) => Promise<readonly State[]>;

const NODES = ["a", "b", "c"];
const IMAGES = ["registry.sim/app:1", "registry.sim/app:2"];
const MOST = { templates: 3, sandboxes: 5, snapshots: 4 };

const pick = (from: readonly string[], index: number): string => from[index % from.length] ?? "";
const idsOf = ({ templates, snapshots }: State): string[] => [
  ...templates,
  ...Object.keys(snapshots),
];
const codeOf = (outcome: Outcome<unknown> | undefined): ErrorCode | "ok" =>
  outcome !== undefined && "code" in outcome ? outcome.code : "ok";

function expectCode(
  what: string,
  outcome: Outcome<unknown> | undefined,
  ...allowed: (ErrorCode | "ok")[]
) {
  const code = codeOf(outcome);
  if (!allowed.includes(code)) throw new Error(`${what}: ${code}, not ${allowed.join(" or ")}`);
  return code === "ok";
}

/* ---- what is asked of the cluster ------------------------------------------------------------ */

const create = (cluster: Cluster, node: string, image: string) =>
  cluster
    .commandsOf(node)
    .createFromImage(
      { source_image_ref: image, writable_layer_size: "1Gi" },
      cluster.context("model"),
    );
const removal = async (cluster: Cluster, state: State, node: string, id: string) => {
  const commands = cluster.commandsOf(node);
  const context = cluster.context("model");
  if (id in state.snapshots) await commands.deleteSnapshot(id, {}, context);
  else await commands.deleteTemplate(id, {}, context);
};
const redo = (cluster: Cluster, node: string, id: string) =>
  cluster.commandsOf(node).redoTemplate(id, {}, cluster.context("model"));
const snapshot = (cluster: Cluster, node: string, sandbox: string) =>
  cluster.commandsOf(node).createSnapshot(sandbox, {}, cluster.context("model"));
const rollback = (cluster: Cluster, node: string, sandbox: string, to: string) =>
  cluster.commandsOf(node).rollbackSandbox(sandbox, { snapshot_id: to }, cluster.context("model"));
const acquire = (cluster: Cluster, by: string, at: string, sandbox: string, on: string) =>
  cluster
    .commandsOf(by)
    .acquireRuntimeRef(
      { snapshot_id: on, sandbox_id: sandbox, node_id: at },
      cluster.context("model"),
    );

const removed = (state: State, id: string): State => ({
  ...state,
  templates: state.templates.filter((one) => one !== id),
  snapshots: without(state.snapshots, id),
});
const moved = (state: State, sandbox: string, on: string): State => {
  const { node = "" } = state.sandboxes[sandbox] ?? {};
  return { ...state, sandboxes: { ...state.sandboxes, [sandbox]: { node, on } } };
};
/** Only on the node where it was taken can a sandbox run on a snapshot. */
const isHeldBy = (cluster: Cluster, node: string, id: string): boolean =>
  cluster.node(node).daemon?.runtime.replicas.made(id) !== undefined;

/* ---- one after the other --------------------------------------------------------------------- */

const createOne: Act = async ({ state, cluster, choice: { node, first } }) => {
  const asked = await cluster.answer(create(cluster, node, pick(IMAGES, first)));
  if (!("value" in asked)) throw new Error(`a template could not be asked for: ${asked.code}`);
  const job = await cluster.jobEnd(asked.value.job_id);
  if (job?.status !== "READY") throw new Error(job?.error_message ?? "its job is gone");
  return [{ ...state, templates: [...state.templates, job.template_id] }];
};

/** Two nodes are asked for the same at once: two templates, and their bytes are built once. */
const createTwice: Act = async ({ state, cluster, choice: { first } }) => {
  const image = pick(IMAGES, first);
  const both = [create(cluster, "a", image), create(cluster, "b", image)];
  const templates: string[] = [];
  for (const asked of await cluster.atOnce(
    0,
    both.map((one) => () => one),
  )) {
    if (!("value" in asked)) throw new Error(`a template could not be asked for: ${asked.code}`);
    const job = await cluster.jobEnd(asked.value.job_id);
    if (job?.status !== "READY") throw new Error(job?.error_message ?? "its job is gone");
    templates.push(job.template_id);
  }
  return [{ ...state, templates: [...state.templates, ...templates] }];
};

const removeOne: Act = async ({ state, cluster, choice: { node, first } }) => {
  const id = pick(idsOf(state), first);
  const outcome = await cluster.answer(removal(cluster, state, node, id));
  const inUse = id in state.snapshots ? "snapshot_in_use" : "template_in_use";
  if (!expectCode(`deleting ${id}`, outcome, isUsed(state, id) ? inUse : "ok")) return [state];
  return [removed(state, id)];
};

const redoOne: Act = async ({ state, cluster, choice: { node, first } }) => {
  const asked = await cluster.answer(redo(cluster, node, pick(state.templates, first)));
  if (!("value" in asked)) throw new Error(`a redo was refused: ${asked.code}`);
  const job = await cluster.jobEnd(asked.value.job_id);
  if (job?.status !== "READY") throw new Error(job?.error_message ?? "its job is gone");
  return [state];
};

const run: Act = async ({ state, cluster, choice: { node, first } }) => {
  const on = pick(idsOf(state), first);
  const isHere = isHeldBy(cluster, node, on);
  const call = cluster.commandsOf(node).runSandbox({ template_id: on }, cluster.context("model"));
  const outcome = await cluster.answer(call);
  expectCode(`running ${on}`, outcome, isHere ? "ok" : "template_has_no_ready_replica");
  if (!("value" in outcome)) return [state];
  const { sandbox_id: id } = outcome.value;
  return [{ ...state, sandboxes: { ...state.sandboxes, [id]: { node, on } } }];
};

const end: Act = async ({ state, cluster, choice: { first } }) => {
  const id = pick(Object.keys(state.sandboxes), first);
  const { node = "" } = state.sandboxes[id] ?? {};
  const call = cluster.commandsOf(node).deleteSandbox(id, cluster.context("model"));
  expectCode(`ending ${id}`, await cluster.answer(call), "ok");
  return [{ ...state, sandboxes: without(state.sandboxes, id) }];
};

const snapshotOne: Act = async ({ state, cluster, choice: { node, first } }) => {
  const id = pick(Object.keys(state.sandboxes), first);
  const outcome = await cluster.answer(snapshot(cluster, node, id));
  if (!("value" in outcome)) throw new Error(`no snapshot of ${id}: ${outcome.code}`);
  return [{ ...state, snapshots: { ...state.snapshots, [outcome.value.snapshot_id]: id } }];
};

const rollbackOne: Act = async ({ state, cluster, choice: { node, first, second } }) => {
  const sandbox = pick(Object.keys(state.sandboxes), first);
  const to = pick(Object.keys(state.snapshots), second);
  const isOwn = state.snapshots[to] === sandbox;
  const outcome = await cluster.answer(rollback(cluster, node, sandbox, to));
  const what = `putting ${sandbox} back to ${to}`;
  return expectCode(what, outcome, isOwn ? "ok" : "snapshot_foreign")
    ? [moved(state, sandbox, to)]
    : [state];
};

const acquireOne: Act = async ({ state, cluster, choice: { node, first, second } }) => {
  const on = pick(idsOf(state), first);
  const at = pick(NODES, second);
  const sandbox = `ext-${at}-${first % 2}`;
  const isHere = isHeldBy(cluster, at, on);
  const outcome = await cluster.answer(acquire(cluster, node, at, sandbox, on));
  const expected = isHere ? "ok" : "template_has_no_ready_replica";
  if (!expectCode(`a ref of ${on} at ${at}`, outcome, expected)) return [state];
  return [{ ...state, refs: { ...state.refs, [sandbox]: { node: at, on } } }];
};

const release: Act = async ({ state, cluster, choice: { node, first } }) => {
  const sandbox = pick(Object.keys(state.refs), first);
  const call = cluster
    .commandsOf(node)
    .releaseRuntimeRefs(sandbox, "ended", cluster.context("model"));
  expectCode(`releasing ${sandbox}`, await cluster.answer(call), "ok");
  return [{ ...state, refs: without(state.refs, sandbox) }];
};

const collect: Act = async ({ state, cluster, choice: { node } }) => {
  const call = cluster.commandsOf(node).collectGarbage({ dryRun: false }, cluster.context("model"));
  expectCode("collecting", await cluster.answer(call), "ok");
  return [state];
};

/* ---- at once --------------------------------------------------------------------------------- */

/** The second of two calls comes some time into the first. */
const gapOf = ({ first, second }: Choice): number => (first * 13 + second * 7) % 90;

const removeAgainstAcquire: Act = async ({ state, cluster, choice }) => {
  const { node, first, second } = choice;
  const on = pick(state.templates, first);
  const at = pick(NODES, second);
  const sandbox = `ext-${at}-race`;
  const [gone, held] = await cluster.atOnce<unknown>(gapOf(choice), [
    () => removal(cluster, state, node, on),
    () => acquire(cluster, at, at, sandbox, on),
  ]);
  const refused = ["snapshot_not_found", "snapshot_deleting"] as const;
  const noReplica = "template_has_no_ready_replica";
  const isHeld = expectCode("a ref at once", held, "ok", ...refused, noReplica);
  const after = isHeld ? { ...state, refs: { ...state.refs, [sandbox]: { node: at, on } } } : state;
  const isGone = expectCode("deleting", gone, isUsed(after, on) ? "template_in_use" : "ok");
  return [isGone ? removed(after, on) : after];
};

const removeTwice: Act = async ({ state, cluster, choice }) => {
  const id = pick(idsOf(state), choice.first);
  const both = NODES.slice(0, 2).map((node) => () => removal(cluster, state, node, id));
  const outcomes = await cluster.atOnce(gapOf(choice), both);
  const notFound = id in state.snapshots ? "snapshot_not_found" : "template_not_found";
  const inUse = id in state.snapshots ? "snapshot_in_use" : "template_in_use";
  const isFree = !isUsed(state, id);
  const allowed = isFree ? (["ok", notFound] as const) : ([inUse] as const);
  for (const outcome of outcomes) {
    expectCode("one of two deletions", outcome, ...allowed, "template_attempt_in_progress");
  }
  const isGone = outcomes.some((outcome) => codeOf(outcome) === "ok");
  if (isFree && !isGone) throw new Error(`neither of two deletions has removed ${id}`);
  return [isGone ? removed(state, id) : state];
};

const removeAgainstRedo: Act = async ({ state, cluster, choice }) => {
  const { node, first, second } = choice;
  const id = pick(state.templates, first);
  let jobId = "";
  const again = async () => void (jobId = (await redo(cluster, pick(NODES, second), id)).job_id);
  const outcomes = await cluster.atOnce(gapOf(choice), [
    () => removal(cluster, state, node, id),
    again,
  ]);
  const busy = "template_attempt_in_progress";
  expectCode("redo at once", outcomes[1], "ok", busy, "template_not_found");
  const inUse = isUsed(state, id) ? "template_in_use" : "ok";
  const isGone = expectCode("deleting at once", outcomes[0], inUse, busy);
  if (jobId !== "") await cluster.jobEnd(jobId);
  return [isGone ? removed(state, id) : state];
};

const rollbackAgainstSnapshot: Act = async ({ state, cluster, choice }) => {
  const [to = "", sandbox = ""] =
    Object.entries(state.snapshots).find(([, of]) => of in state.sandboxes) ?? [];
  let taken = "";
  const take = async () => {
    taken = (await snapshot(cluster, pick(NODES, choice.second), sandbox)).snapshot_id;
  };
  const back = async () => {
    await rollback(cluster, choice.node, sandbox, to);
  };
  const outcomes = await cluster.atOnce(gapOf(choice), [back, take]);
  const busy = "snapshot_operation_in_progress";
  const isBack = expectCode("rollback at once", outcomes[0], "ok", busy);
  expectCode("snapshot at once", outcomes[1], "ok", busy);
  const after = isBack ? moved(state, sandbox, to) : state;
  if (taken === "") return [after];
  return [{ ...after, snapshots: { ...after.snapshots, [taken]: sandbox } }];
};

/* ---- daemons that die ------------------------------------------------------------------------ */

const withoutNode = (state: State, node: string): State => ({
  ...state,
  sandboxes: Object.fromEntries(
    Object.entries(state.sandboxes).filter(([, sandbox]) => sandbox.node !== node),
  ),
});

const crash: Act = async ({ state, cluster, choice: { node } }) => {
  await cluster.crash(node, false);
  return [state];
};

const powerOff: Act = async ({ state, cluster, choice: { node } }) => {
  await cluster.crash(node, true);
  return [withoutNode(state, node)];
};

/** Any operation, and the node that is asked, or the sandbox's, dies in the middle of it. */
const crashDuring: Act = async ({ state, cluster, choice: { node, first, second } }) => {
  const sandbox = pick(Object.keys(state.sandboxes), first);
  const id = pick(idsOf(state), first);
  const [own = ""] = Object.entries(state.snapshots).find(([, of]) => of === sandbox) ?? [];
  const works: (readonly [Promise<unknown>, readonly State[]])[] = [];
  switch (second % 4) {
    case 0:
      if (id !== "") works.push([removal(cluster, state, node, id), [removed(state, id)]]);
      break;
    case 1:
      if (sandbox !== "") works.push([snapshot(cluster, node, sandbox), []]);
      break;
    case 2:
      if (own !== "")
        works.push([rollback(cluster, node, sandbox, own), [moved(state, sandbox, own)]]);
      break;
    default:
      if (state.templates.length > 0)
        works.push([redo(cluster, node, pick(state.templates, first)), []]);
  }
  const [work] = works;
  if (work === undefined) return [state];
  work[0].catch(() => undefined);
  await cluster.passes((first * 37 + second * 11) % 400);
  const dies = second % 2 === 0 ? node : (state.sandboxes[sandbox]?.node ?? node);
  await cluster.crash(dies, false);
  await cluster.until("no job is active", () => cluster.truth.activeJobs().length === 0);
  // A snapshot's id is known only when it is there.
  const taken = cluster.truth
    .templates()
    .filter((it) => it.kind === "snapshot" && !(it.template_id in state.snapshots));
  const snapshots = Object.fromEntries(
    taken.map((it) => [it.template_id, it.origin_sandbox_id ?? ""]),
  );
  const grown = { ...state, snapshots: { ...state.snapshots, ...snapshots } };
  return [state, grown, ...work[1]];
};

/* ---- sequences ------------------------------------------------------------------------------- */

const has = (all: object | readonly unknown[], least = 1) => Object.keys(all).length >= least;

const COMMANDS: Readonly<Record<string, readonly [can: (state: State) => boolean, act: Act]>> = {
  create: [({ templates }) => templates.length < MOST.templates, createOne],
  createTwice: [({ templates }) => templates.length < MOST.templates - 1, createTwice],
  remove: [(state) => has(idsOf(state)), removeOne],
  redo: [({ templates }) => has(templates), redoOne],
  run: [(state) => has(idsOf(state)) && !has(state.sandboxes, MOST.sandboxes), run],
  end: [({ sandboxes }) => has(sandboxes), end],
  snapshot: [
    ({ sandboxes, snapshots }) => has(sandboxes) && !has(snapshots, MOST.snapshots),
    snapshotOne,
  ],
  rollback: [({ sandboxes, snapshots }) => has(sandboxes) && has(snapshots), rollbackOne],
  acquire: [(state) => has(idsOf(state)), acquireOne],
  release: [({ refs }) => has(refs), release],
  collect: [() => true, collect],
  removeAgainstAcquire: [({ templates }) => has(templates), removeAgainstAcquire],
  removeTwice: [(state) => has(idsOf(state)), removeTwice],
  removeAgainstRedo: [({ templates }) => has(templates), removeAgainstRedo],
  rollbackAgainstSnapshot: [
    ({ sandboxes, snapshots }) => Object.values(snapshots).some((of) => of in sandboxes),
    rollbackAgainstSnapshot,
  ],
  crash: [() => true, crash],
  powerOff: [() => true, powerOff],
  crashDuring: [() => true, crashDuring],
};

/** What others need, and what only some states allow. */
const OFTEN = ["create", "run", "run", "snapshot", "snapshot", "rollback", "rollback"];

/** How many of each were carried out. */
export type Counts = Record<string, number>;

class Step implements fc.AsyncCommand<Model, Cluster> {
  readonly #name: string;
  readonly #choice: Choice;
  readonly #counts: Counts;

  constructor(name: string, choice: Choice, counts: Counts) {
    this.#name = name;
    this.#choice = choice;
    this.#counts = counts;
  }

  check({ state }: Readonly<Model>): boolean {
    return COMMANDS[this.#name]?.[0](state) === true;
  }

  async run(model: Model, cluster: Cluster): Promise<void> {
    const [, act] = COMMANDS[this.#name] as readonly [unknown, Act];
    const { state } = model;
    cluster.sim.world.note(`---- ${this.toString()}`);
    const after = await act({ state, cluster, choice: this.#choice });
    model.state = await cluster.becomes(after);
    this.#counts[this.#name] = (this.#counts[this.#name] ?? 0) + 1;
  }

  toString(): string {
    const { node, first, second } = this.#choice;
    return `${this.#name}(${node}, ${first}, ${second})`;
  }
}

export interface ModelRun {
  readonly ran: number;
  readonly counts: Counts;
  /** How a sequence failed, the shortest found that does. */
  readonly failure?: string;
}

/** Runs so many random sequences; the same for the same seed. */
export async function runModel(seed: number, sequences: number): Promise<ModelRun> {
  const counts: Counts = {};
  const choice = fc.record({
    node: fc.constantFrom(...NODES),
    first: fc.nat(11),
    second: fc.nat(11),
  });
  const commands = fc.commands(
    [...Object.keys(COMMANDS), ...OFTEN].map((name) =>
      choice.map((chosen) => new Step(name, chosen, counts)),
    ),
    { size: "+1", maxCommands: 24 },
  );
  let trace: readonly string[] = [];
  const property = fc.asyncProperty(fc.nat(), commands, async (worldSeed, sequence) => {
    const cluster = new Cluster(worldSeed);
    trace = cluster.sim.world.trace;
    const setup = async () => {
      await cluster.start();
      return { model: { state: EMPTY }, real: cluster };
    };
    await fc.asyncModelRun(setup, sequence);
    counts["sequences"] = (counts["sequences"] ?? 0) + 1;
  });
  const result = await fc.check(property, { seed, numRuns: sequences, endOnFailure: true });
  const ran = result.numRuns;
  if (!result.failed) return { ran, counts };
  const [worldSeed, sequence] = result.counterexample ?? [];
  const shown = [...(sequence ?? [])].map((command) => command.toString()).join(", ");
  const failure = [
    ...trace.slice(-60),
    `${shown} in the world of seed ${String(worldSeed)}:`,
    String(result.errorInstance).replaceAll("\n", " "),
  ];
  return { ran, counts, failure: failure.join("\n") };
}
