/**
 * Stale replicas made again by themselves (design §9): one at a time over the whole cluster, with a
 * pause between two, and no more after the first failure until an operator resumes. One record says
 * whose turn it is; the work is an ordinary redo job, found again by the request id that the record
 * gives it. Every step is decided from what is there, so that any node goes on after a crash.
 */
import { z } from "zod";
import { scanCompat } from "./compat.ts";
import { isActiveJob } from "./job.ts";
import type { JobRecord, NodeFact, ReplicaStatus, TemplateRecord } from "./schema.ts";

export const RESNAPSHOT = "cluster";
/** For so long a turn may wait until its redo can be asked for. */
export const RESNAPSHOT_ASK_MS = 5 * 60_000;
/** A job's end may be known here before the replica that it has made. */
export const RESNAPSHOT_HEAR_MS = 60_000;

const shortText = z.string().max(256);
const rfc3339 = z.string();
const count = z.number().int().nonnegative();

const turnSchema = z.object({
  template_id: shortText,
  node_id: shortText,
  /** Of its redo job. */
  request_id: shortText,
  started_at: rfc3339,
});
type Turn = z.infer<typeof turnSchema>;
const failureSchema = turnSchema.extend({ failed_at: rfc3339, error: z.string() });

export const resnapshotSchema = z.looseObject({
  current: turnSchema.optional(),
  /** The turn that failed; nothing more begins while it is here. */
  failure: failureSchema.optional(),
  last_ended_at: rfc3339.optional(),
  /** Turns that have begun: the next one's request id is made of it. */
  turns: count,
  /** How they ended, of all time. */
  done: count,
  failed: count,
});
export type ResnapshotRecord = z.infer<typeof resnapshotSchema>;

export const resnapshotViewSchema = z.object({
  state: z
    .enum(["off", "idle", "waiting", "running", "stopped"])
    .describe("off: no node has resnapshot_interval set; stopped: after a failure"),
  current: turnSchema.extend({ job_id: shortText.optional() }).optional(),
  failure: failureSchema.extend({ job_id: shortText.optional() }).optional(),
  next: z.object({ template_id: shortText, node_id: shortText, not_before: rfc3339 }).optional(),
  pending: count.describe("stale replicas that will be made again"),
  done: count,
  failed: count,
});
export type ResnapshotView = z.infer<typeof resnapshotViewSchema>;

export interface ResnapshotSight {
  readonly template: (templateId: string) => TemplateRecord | undefined;
  /** Members only, as they are believed to be now. */
  readonly node: (nodeId: string) => NodeFact | undefined;
  readonly replicas: Iterable<{ readonly id: string; readonly value?: ReplicaStatus }>;
  readonly replica: (nodeId: string, templateId: string) => ReplicaStatus | undefined;
  /** The job with that request id. */
  readonly job: (requestId: string) => JobRecord | undefined;
  readonly hasActiveJob: (templateId: string) => boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export type ResnapshotStep =
  | { readonly step: "none" }
  /** Another look is due by then at the latest. */
  | { readonly step: "wait"; readonly ms: number }
  | { readonly step: "take"; readonly template_id: string; readonly node_id: string }
  /** Its redo is to be asked for. */
  | { readonly step: "ask"; readonly turn: Turn }
  | { readonly step: "done" }
  /** Nobody needs it any more: neither success nor failure. */
  | { readonly step: "drop" }
  | { readonly step: "fail"; readonly error: string };

const intervalOf = (node: NodeFact): number => node.resnapshot_interval_ms ?? 0;
const isStale = (sight: ResnapshotSight, nodeId: string, templateId: string): boolean => {
  const replica = sight.replica(nodeId, templateId);
  return replica?.status === "READY" && scanCompat(replica, sight.node(nodeId)) === "STALE";
};

interface Candidate {
  readonly template_id: string;
  readonly node_id: string;
  readonly intervalMs: number;
  /** The last attempt on its node came to nothing. */
  readonly hasFailed: boolean;
}

/**
 * What may be made again without anybody being asked: of images, whose guests boot as before. What
 * holds a sandbox's memory would lose it.
 */
const isRemakeable = (template: TemplateRecord | undefined, nodeId: string): boolean =>
  template !== undefined &&
  template.kind === "template" &&
  (template.origin_sandbox_id ?? "") === "" &&
  template.desired_nodes.includes(nodeId) &&
  (template.status === "READY" || template.status === "PARTIALLY_READY");

/** Stale, on a node that is up and wants it made again. */
function candidateOf(
  sight: ResnapshotSight,
  templateId: string,
  replica: ReplicaStatus | undefined,
): Candidate | undefined {
  if (replica?.status !== "READY") return undefined;
  const node = sight.node(replica.node_id);
  if (node?.healthy !== true || node.drained || intervalOf(node) === 0) return undefined;
  if (scanCompat(replica, node) !== "STALE") return undefined;
  if (!isRemakeable(sight.template(templateId), node.node_id)) return undefined;
  return {
    template_id: templateId,
    node_id: node.node_id,
    intervalMs: intervalOf(node),
    hasFailed: replica.redo?.phase === "FAILED",
  };
}

/** Node by node; what has failed comes last, so that it holds up nothing but itself. */
function candidatesOf(sight: ResnapshotSight): Candidate[] {
  const found: Candidate[] = [];
  for (const { id, value } of sight.replicas) {
    const candidate = candidateOf(sight, id, value);
    if (candidate !== undefined) found.push(candidate);
  }
  const key = (one: Candidate) => `${Number(one.hasFailed)}\0${one.node_id}\0${one.template_id}`;
  return found.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** One whose template another job works on waits for that. */
const firstOf = (sight: ResnapshotSight, candidates: readonly Candidate[]) =>
  candidates.find(({ template_id }) => !sight.hasActiveJob(template_id));

/** Milliseconds until the next may begin. */
function pauseOf(record: ResnapshotRecord | undefined, intervalMs: number, now: number): number {
  if (record?.last_ended_at === undefined) return 0;
  return Math.max(0, Date.parse(record.last_ended_at) + intervalMs - now);
}

/** What is to be done now, whoever does it. */
export function resnapshotStep(
  record: ResnapshotRecord | undefined,
  sight: ResnapshotSight,
): ResnapshotStep {
  if (record?.current !== undefined) return turnStep(record.current, sight);
  if (record?.failure !== undefined) return { step: "none" };
  const first = firstOf(sight, candidatesOf(sight));
  if (first === undefined) return { step: "none" };
  const ms = pauseOf(record, first.intervalMs, sight.now);
  if (ms > 0) return { step: "wait", ms };
  return { step: "take", template_id: first.template_id, node_id: first.node_id };
}

function turnStep(turn: Turn, sight: ResnapshotSight): ResnapshotStep {
  const { template_id, node_id, request_id } = turn;
  const job = sight.job(request_id);
  if (job === undefined) return unaskedStep(turn, sight);
  if (isActiveJob(job)) return { step: "wait", ms: until(job.deadline_at, sight.now) };
  if (job.status !== "READY") {
    if (sight.template(template_id) === undefined) return { step: "drop" };
    return { step: "fail", error: job.error_message || "its redo failed" };
  }
  if (!isStale(sight, node_id, template_id)) return { step: "done" };
  const left = until(job.ended_at ?? job.updated_at, sight.now) + RESNAPSHOT_HEAR_MS;
  if (left > 0) return { step: "wait", ms: left };
  return { step: "fail", error: "made again, and stale again: its node changes its versions" };
}

/** Negative when it is over. */
const until = (rfc: string, now: number): number => Date.parse(rfc) - now;

/** What is not as it was when the turn was taken is nobody's failure: it comes round again. */
function unaskedStep(turn: Turn, sight: ResnapshotSight): ResnapshotStep {
  const { template_id, node_id } = turn;
  const replica = sight.replica(node_id, template_id);
  if (candidateOf(sight, template_id, replica) === undefined) return { step: "drop" };
  const left = until(turn.started_at, sight.now) + RESNAPSHOT_ASK_MS;
  if (sight.hasActiveJob(template_id)) {
    return left > 0 ? { step: "wait", ms: left } : { step: "drop" };
  }
  if (left > 0) return { step: "ask", turn };
  const minutes = RESNAPSHOT_ASK_MS / 60_000;
  return { step: "fail", error: `its redo could not be asked for within ${minutes} minutes` };
}

const EMPTY: ResnapshotRecord = { turns: 0, done: 0, failed: 0 };

/** The record after a step of it; undefined when the step changes nothing of it. */
export function applyResnapshot(
  record: ResnapshotRecord | undefined,
  step: ResnapshotStep,
  now: number,
): ResnapshotRecord | undefined {
  const { current, ...rest } = record ?? EMPTY;
  const at = new Date(now).toISOString();
  switch (step.step) {
    case "take": {
      if (current !== undefined) return undefined;
      const { template_id, node_id } = step;
      const turns = rest.turns + 1;
      const request_id = `resnapshot-${turns}-${node_id}`.slice(0, 256);
      return { ...rest, turns, current: { template_id, node_id, request_id, started_at: at } };
    }
    case "done":
      return { ...rest, last_ended_at: at, done: rest.done + 1 };
    case "drop":
      return { ...rest, last_ended_at: at };
    case "fail": {
      if (current === undefined) return undefined;
      const failure = { ...current, failed_at: at, error: step.error };
      return { ...rest, failure, last_ended_at: at, failed: rest.failed + 1 };
    }
    case "none":
    case "wait":
    case "ask":
      return undefined;
  }
}

/** It goes on at once, the failed one after the rest; undefined when nothing has stopped. */
export function resumeResnapshot(
  record: ResnapshotRecord | undefined,
): ResnapshotRecord | undefined {
  if (record?.failure === undefined) return undefined;
  const { failure: _failure, last_ended_at: _at, ...rest } = record;
  return rest;
}

/** What an operator sees of it. */
export function resnapshotView(
  record: ResnapshotRecord | undefined,
  sight: ResnapshotSight,
  nodes: readonly NodeFact[],
): ResnapshotView {
  const isOn = nodes.some((node) => intervalOf(node) > 0);
  const candidates = isOn ? candidatesOf(sight) : [];
  const first = firstOf(sight, candidates);
  const { current, failure, done = 0, failed = 0 } = record ?? {};
  const withJob = <T extends Turn>(turn: T) => {
    const job_id = sight.job(turn.request_id)?.job_id;
    return job_id === undefined ? turn : { ...turn, job_id };
  };
  const counts = { pending: candidates.length, done, failed };
  if (current !== undefined) return { state: "running", current: withJob(current), ...counts };
  if (failure !== undefined) return { state: "stopped", failure: withJob(failure), ...counts };
  if (candidates.length === 0) return { state: isOn ? "idle" : "off", ...counts };
  // Other jobs work on all of them.
  if (first === undefined) return { state: "waiting", ...counts };
  const { template_id, node_id, intervalMs } = first;
  const startsAt = sight.now + pauseOf(record, intervalMs, sight.now);
  const not_before = new Date(startsAt).toISOString();
  return { state: "waiting", next: { template_id, node_id, not_before }, ...counts };
}
