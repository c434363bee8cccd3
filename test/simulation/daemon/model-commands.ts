/** Commands of a sequence, one after the other: templates, sandboxes, snapshots and refs. */
import type { RedoRequest } from "../../../src/domain/index.ts";
import { PLAIN, isUsed, removed, without, type State } from "./model.ts";
import {
  acquire,
  commit,
  create,
  createPrepared,
  expectCode,
  idsOf,
  isHeldBy,
  madeBy,
  moved,
  pick,
  redo,
  removal,
  rollback,
  snapshot,
  valueOf,
  type Act,
} from "./model-asks.ts";

export const grown = (state: State, ...ids: readonly string[]): State => ({
  ...state,
  templates: { ...state.templates, ...Object.fromEntries(ids.map((id) => [id, PLAIN])) },
});

export const createOne: Act = async ({ state, cluster, node, choice: { first } }) => [
  grown(state, await madeBy(cluster, await cluster.answer(create(cluster, node, first)))),
];

/** Two nodes are asked for the same at once: two templates, and their bytes are built once. */
export const createTwice: Act = async ({ state, cluster, choice: { first } }) => {
  const [one = "", other = ""] = state.members;
  const both = [() => create(cluster, one, first), () => create(cluster, other, first)];
  const templates: string[] = [];
  for (const asked of await cluster.atOnce(0, both)) templates.push(await madeBy(cluster, asked));
  return [grown(state, ...templates)];
};

/** From a prepared request, over the root filesystem of a template that is there. */
export const createLike: Act = async ({ state, cluster, node, choice: { first } }) => {
  const asked = createPrepared(cluster, node, pick(state.templates, first));
  const { template_id: id } = valueOf("a prepared request", await cluster.answer(asked));
  return [grown(state, id)];
};

/** No guest boots on one node: its replica fails alone, and a redo of what failed mends it. */
export const createPartly: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const broken = pick(state.members, second);
  const { machine } = cluster.node(broken);
  machine.boots = false;
  const { job_id: jobId } = valueOf(
    "a template",
    await cluster.answer(create(cluster, node, first)),
  );
  const job = await cluster.jobEnd(jobId);
  machine.boots = true;
  const id = job?.template_id ?? "";
  const status = () => cluster.truth.templates().find((one) => one.template_id === id)?.status;
  if (status() !== "PARTIALLY_READY") throw new Error(`${id} is ${String(status())}`);
  const request = first % 2 === 0 ? { failed_only: true } : failedOn(broken);
  const asked = await cluster.answer(redo(cluster, node, id, request));
  return [grown(state, await madeBy(cluster, asked))];
};

const failedOn = (node: string): RedoRequest => ({
  failed_only: true,
  distribution_scope: [node],
});

export const removeOne: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const id = pick(idsOf(state), first);
  const force = second % 3 === 0;
  const outcome = await cluster.answer(removal(cluster, state, node, id, { force }));
  const inUse = id in state.snapshots ? "snapshot_in_use" : "template_in_use";
  const isKept = state.templates[id]?.isProtected === true;
  const expected = isKept ? "template_protected" : isUsed(state, id) ? inUse : "ok";
  return [expectCode(`deleting ${id}`, outcome, expected) ? removed(state, id) : state];
};

/** The four scopes, and what keeps the root filesystem. */
export const redoOne: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const at = pick(state.members, first);
  const requests: readonly RedoRequest[] = [
    {},
    { distribution_scope: [at] },
    { memory_only: true },
    { failed_only: true },
    failedOn(at),
  ];
  const request = requests[second % requests.length] ?? {};
  const asked = await cluster.answer(redo(cluster, node, pick(state.templates, first), request));
  if (request.failed_only !== true) await madeBy(cluster, asked);
  // Nothing has failed, of all that is there between two commands.
  else expectCode("a redo of what failed", asked, "no_failed_template_replicas");
  return [state];
};

export const run: Act = async ({ state, cluster, node, choice: { first } }) => {
  const on = pick(idsOf(state), first);
  const isHere = isHeldBy(cluster, node, on);
  const call = cluster.commandsOf(node).runSandbox({ template_id: on }, cluster.context("model"));
  const outcome = await cluster.answer(call);
  expectCode(`running ${on}`, outcome, isHere ? "ok" : "template_has_no_ready_replica");
  if (!("value" in outcome)) return [state];
  const { sandbox_id: id } = outcome.value;
  return [{ ...state, sandboxes: { ...state.sandboxes, [id]: { node, on } } }];
};

export const end: Act = async ({ state, cluster, choice: { first } }) => {
  const id = pick(state.sandboxes, first);
  const { node = "" } = state.sandboxes[id] ?? {};
  const call = cluster.commandsOf(node).deleteSandbox(id, cluster.context("model"));
  expectCode(`ending ${id}`, await cluster.answer(call), "ok");
  return [{ ...state, sandboxes: without(state.sandboxes, id) }];
};

export const snapshotOne: Act = async ({ state, cluster, node, choice: { first } }) => {
  const id = pick(state.sandboxes, first);
  const taken = valueOf(`a snapshot of ${id}`, await cluster.answer(snapshot(cluster, node, id)));
  return [withSnapshot(state, taken.snapshot_id, id)];
};

export const withSnapshot = (state: State, id: string, of: string): State => ({
  ...state,
  snapshots: { ...state.snapshots, [id]: { of, failed: false } },
});

export const commitOne: Act = async ({ state, cluster, node, choice: { first } }) => {
  const asked = await cluster.answer(commit(cluster, node, pick(state.sandboxes, first)));
  return [grown(state, await madeBy(cluster, asked))];
};

export const rollbackOne: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const sandbox = pick(state.sandboxes, first);
  const to = pick(state.snapshots, second);
  const { of = "", failed = false } = state.snapshots[to] ?? {};
  const outcome = await cluster.answer(rollback(cluster, node, sandbox, to));
  const expected = failed ? "wrong_status" : of === sandbox ? "ok" : "snapshot_foreign";
  const isBack = expectCode(`putting ${sandbox} back to ${to}`, outcome, expected);
  return [isBack ? moved(state, sandbox, to) : state];
};

export const acquireOne: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const on = pick(idsOf(state), first);
  const at = pick(state.members, second);
  const sandbox = `ext-${at}-${first % 2}`;
  const isHere = isHeldBy(cluster, at, on);
  const outcome = await cluster.answer(acquire(cluster, node, { at, sandbox, on }));
  const expected = isHere ? "ok" : "template_has_no_ready_replica";
  if (!expectCode(`a ref of ${on} at ${at}`, outcome, expected)) return [state];
  return [{ ...state, refs: { ...state.refs, [sandbox]: { node: at, on } } }];
};

export const release: Act = async ({ state, cluster, node, choice: { first } }) => {
  const sandbox = pick(state.refs, first);
  const call = cluster
    .commandsOf(node)
    .releaseRuntimeRefs(sandbox, "ended", cluster.context("model"));
  expectCode(`releasing ${sandbox}`, await cluster.answer(call), "ok");
  return [{ ...state, refs: without(state.refs, sandbox) }];
};

export const collect: Act = async ({ state, cluster, node }) => {
  const call = cluster.commandsOf(node).collectGarbage({ dryRun: false }, cluster.context("model"));
  expectCode("collecting", await cluster.answer(call), "ok");
  return [state];
};
