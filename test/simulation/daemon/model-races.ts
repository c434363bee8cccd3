/** Commands of a sequence that do several things at once, or let a daemon die in between. */
import { isUsed, removed, type State } from "./model.ts";
import {
  acquire,
  codeOf,
  commit,
  create,
  expectCode,
  has,
  idsOf,
  moved,
  pick,
  redo,
  removal,
  rollback,
  snapshot,
  valueOf,
  type Act,
  type Choice,
  type Input,
} from "./model-asks.ts";
import { grown, withSnapshot } from "./model-commands.ts";
import { withoutSandboxes } from "./model-records.ts";

/** The second of two calls comes some time into the first. */
const gapOf = ({ first, second }: Choice): number => (first * 13 + second * 7) % 90;
const isFree = (state: State, id: string): boolean =>
  !isUsed(state, id) && state.templates[id]?.isProtected !== true;

const kept = (state: State, id: string) =>
  state.templates[id]?.isProtected === true
    ? ("template_protected" as const)
    : id in state.snapshots
      ? ("snapshot_in_use" as const)
      : ("template_in_use" as const);

export const removeAgainstAcquire: Act = async ({ state, cluster, node, choice }) => {
  const on = pick(state.templates, choice.first);
  const at = pick(state.members, choice.second);
  const sandbox = `ext-${at}-race`;
  const [gone, held] = await cluster.atOnce<unknown>(gapOf(choice), [
    () => removal(cluster, state, node, on),
    () => acquire(cluster, at, { at, sandbox, on }),
  ]);
  const refused = ["snapshot_not_found", "snapshot_deleting"] as const;
  const noReplica = "template_has_no_ready_replica";
  const isHeld = expectCode("a ref at once", held, "ok", ...refused, noReplica);
  const after = isHeld ? { ...state, refs: { ...state.refs, [sandbox]: { node: at, on } } } : state;
  const isGone = expectCode("deleting", gone, isFree(after, on) ? "ok" : kept(after, on));
  return [isGone ? removed(after, on) : after];
};

export const removeTwice: Act = async ({ state, cluster, choice }) => {
  const id = pick(idsOf(state), choice.first);
  const both = state.members.slice(0, 2).map((node) => () => removal(cluster, state, node, id));
  const outcomes = await cluster.atOnce(gapOf(choice), both);
  const notFound = id in state.snapshots ? "snapshot_not_found" : "template_not_found";
  const mayGo = isFree(state, id);
  const allowed = mayGo ? (["ok", notFound] as const) : ([kept(state, id)] as const);
  for (const outcome of outcomes) {
    expectCode("one of two deletions", outcome, ...allowed, "template_attempt_in_progress");
  }
  const isGone = outcomes.some((outcome) => codeOf(outcome) === "ok");
  if (mayGo && !isGone) throw new Error(`neither of two deletions has removed ${id}`);
  return [isGone ? removed(state, id) : state];
};

export const removeAgainstRedo: Act = async ({ state, cluster, node, choice }) => {
  const id = pick(state.templates, choice.first);
  const other = pick(state.members, choice.second);
  let jobId = "";
  const again = async () => void (jobId = (await redo(cluster, other, id)).job_id);
  const outcomes = await cluster.atOnce(gapOf(choice), [
    () => removal(cluster, state, node, id),
    again,
  ]);
  const busy = "template_attempt_in_progress";
  expectCode("redo at once", outcomes[1], "ok", busy, "template_not_found");
  const allowed = isFree(state, id) ? "ok" : kept(state, id);
  const isGone = expectCode("deleting at once", outcomes[0], allowed, busy);
  if (jobId !== "") await cluster.jobEnd(jobId);
  return [isGone ? removed(state, id) : state];
};

/** Deleted while it is being made: only by force, and then nothing is left of it. */
export const forceAgainstCreate: Act = async ({ state, cluster, node, choice }) => {
  const asked = await cluster.answer(create(cluster, node, choice.first));
  const { job_id: jobId, template_id: id } = valueOf("a template", asked);
  await cluster.passes((choice.first * 53 + choice.second * 29) % 900);
  const by = pick(state.members, choice.second);
  const knows = () => {
    const { daemon } = cluster.node(by);
    return daemon?.core.queries.listTemplates().items.some((one) => one.template_id === id);
  };
  await cluster.until(`${by} has heard of ${id}`, knows);
  const force = choice.second % 4 !== 0;
  const gone = await cluster.answer(removal(cluster, state, by, id, { force }));
  const busy = "template_attempt_in_progress";
  if (expectCode("deleting what is made", gone, "ok", ...(force ? [] : ([busy] as const)))) {
    return [state];
  }
  await cluster.jobEnd(jobId);
  return [grown(state, id)];
};

export const rollbackAgainstSnapshot: Act = async ({ state, cluster, node, choice }) => {
  const [to = "", { of: sandbox } = { of: "" }] =
    Object.entries(state.snapshots).find(([, one]) => isOwn(state, one)) ?? [];
  let taken = "";
  const other = pick(state.members, choice.second);
  const take = async () => {
    taken = (await snapshot(cluster, other, sandbox)).snapshot_id;
  };
  const back = async () => {
    await rollback(cluster, node, sandbox, to);
  };
  const outcomes = await cluster.atOnce(gapOf(choice), [back, take]);
  const busy = "snapshot_operation_in_progress";
  const isBack = expectCode("rollback at once", outcomes[0], "ok", busy);
  expectCode("snapshot at once", outcomes[1], "ok", busy);
  const after = isBack ? moved(state, sandbox, to) : state;
  return [taken === "" ? after : withSnapshot(after, taken, sandbox)];
};

/** What it runs on, or what it goes back to, is deleted meanwhile. */
export const rollbackAgainstRemove: Act = async ({ state, cluster, node, choice }) => {
  const { first, second } = choice;
  const [to = "", { of: sandbox } = { of: "" }] =
    Object.entries(state.snapshots).find(([, one]) => isOwn(state, one)) ?? [];
  const from = state.sandboxes[sandbox]?.on ?? "";
  const id = first % 3 === 0 ? to : from;
  const other = pick(state.members, second);
  const [back, gone] = await cluster.atOnce<unknown>(gapOf(choice), [
    () => rollback(cluster, node, sandbox, to),
    () => removal(cluster, state, other, id),
  ]);
  const lost = [
    "snapshot_not_found",
    "snapshot_deleting",
    "wrong_status",
    "template_has_no_ready_replica",
  ] as const;
  const isBack = expectCode("rollback", back, "ok", ...(id === to ? lost : []));
  const after = isBack ? moved(state, sandbox, to) : state;
  // It may be in use still by what has just been left.
  const allowed = isFree(after, id) ? (["ok"] as const) : [];
  const busy = "template_attempt_in_progress";
  const isGone = expectCode("deleting", gone, ...allowed, kept(state, id), busy);
  return [isGone ? removed(after, id) : after];
};

/** A sandbox that runs can go back to it. */
export const isOwn = ({ sandboxes }: State, { of, failed }: State["snapshots"][string]): boolean =>
  !failed && of in sandboxes;

/* ---- daemons that die ------------------------------------------------------------------------ */

export const crash: Act = async ({ state, cluster, node }) => {
  await cluster.crash(node, false);
  return [state];
};

export const powerOff: Act = async ({ state, cluster, node }) => {
  await cluster.crash(node, true);
  return [withoutSandboxes(state, node)];
};

interface UnderWay {
  readonly call: Promise<unknown>;
  /** Besides what was before, and what has been made anew. */
  readonly after?: State;
}

/** One of what there is something for; undefined: there is nothing. */
function begin({ state, cluster, node, choice: { first, second } }: Input): UnderWay | undefined {
  const sandbox = pick(state.sandboxes, first);
  const template = pick(state.templates, first);
  const id = pick(idsOf(state), first);
  const [own = ""] =
    Object.entries(state.snapshots).find(([, one]) => one.of === sandbox && !one.failed) ?? [];
  const hasRoom = !has(state.templates, 4);
  const kinds: readonly (readonly [can: boolean, begin: () => UnderWay])[] = [
    [
      id !== "",
      () => ({
        call: removal(cluster, state, node, id),
        ...(isFree(state, id) ? { after: removed(state, id) } : {}),
      }),
    ],
    [sandbox !== "", () => ({ call: snapshot(cluster, node, sandbox) })],
    [
      sandbox !== "" && own !== "",
      () => ({
        call: rollback(cluster, node, sandbox, own),
        after: moved(state, sandbox, own),
      }),
    ],
    [template !== "", () => ({ call: redo(cluster, node, template) })],
    [sandbox !== "" && hasRoom, () => ({ call: commit(cluster, node, sandbox) })],
    [hasRoom, () => ({ call: create(cluster, node, first) })],
  ];
  const possible = kinds.filter(([can]) => can);
  return possible[second % possible.length]?.[1]();
}

/** Any operation, and the node that is asked, the sandbox's or the leader dies in its middle. */
export const crashDuring: Act = async (input) => {
  const { state, cluster, node, choice } = input;
  const { first, second } = choice;
  const work = begin(input);
  if (work === undefined) return [state];
  work.call.catch(() => undefined);
  await cluster.passes((first * 37 + second * 11) % 400);
  const atWork = cluster.truth.activeJobs()[0]?.worked_by;
  const dies = first % 2 === 0 ? node : (atWork ?? node);
  await cluster.crash(dies, false);
  await cluster.decided();
  const made = withMade(input);
  return [state, made, ...(work.after === undefined ? [] : [work.after])];
};

/** What has been made anew: its id is known only when it is there. */
function withMade({ state, cluster }: Input): State {
  let after = state;
  for (const {
    template_id: id,
    kind,
    status,
    origin_sandbox_id: of = "",
  } of cluster.truth.templates()) {
    if (id in state.templates || id in state.snapshots) continue;
    if (kind === "template") after = grown(after, id);
    else {
      const snapshots = { ...after.snapshots, [id]: { of, failed: status === "FAILED" } };
      after = { ...after, snapshots };
    }
  }
  return after;
}
