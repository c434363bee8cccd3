/** Changes of a job's record: pure functions from one record to the next. */
import {
  PHASE_START_PERCENT,
  jobMachine,
  type Clock,
  type JobPhase,
  type JobRecord,
} from "../domain/index.ts";

/** So far apart are no clocks of a cluster. */
const CLOCKS_APART_MS = 24 * 60 * 60_000;

/**
 * What is left of the jobs' time, counted from when each was first seen here, by a monotonic clock:
 * its maker's clock may be hours off.
 */
export class JobTimes {
  readonly #clock: Clock;
  readonly #seenAt = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  see(jobId: string): void {
    if (!this.#seenAt.has(jobId)) this.#seenAt.set(jobId, this.#clock.monotonic());
  }

  forget(jobId: string): void {
    this.#seenAt.delete(jobId);
  }

  /** Milliseconds that the job may still take. */
  leftMs(job: JobRecord): number {
    const deadline = Date.parse(job.deadline_at);
    // Nobody has worked on it for long.
    if (this.#clock.now() - deadline > CLOCKS_APART_MS) return 0;
    const now = this.#clock.monotonic();
    const sinceMs = now - (this.#seenAt.get(job.job_id) ?? now);
    return Math.max(0, deadline - Date.parse(job.created_at) - sinceMs);
  }
}

type NewJob =
  | "job_id"
  | "template_id"
  | "request_id"
  | "resource_type"
  | "resource_id"
  | "operation"
  | "instance_type"
  | "phase";

/** PENDING: nobody has worked on it yet. It may take `limitMs` milliseconds from `nowMs` on. */
export function pendingJob(
  at: { readonly node: string; readonly nowMs: number; readonly limitMs: number },
  about: Pick<JobRecord, NewJob> & Partial<JobRecord>,
): JobRecord {
  const now = new Date(at.nowMs).toISOString();
  return {
    attempt_no: 1,
    status: "PENDING",
    progress: 0,
    error_message: "",
    expected_node_count: 0,
    ready_node_count: 0,
    failed_node_count: 0,
    template_status: "PENDING",
    artifact_status: "PENDING",
    runs: 0,
    phases: [],
    submitted_to: at.node,
    deadline_at: new Date(at.nowMs + at.limitMs).toISOString(),
    created_at: now,
    updated_at: now,
    ...about,
  };
}

/**
 * RUNNING in `phase`; the phase before ends at `at`. Entering the same phase again changes nothing.
 */
export function enterPhase(job: JobRecord, phase: JobPhase, at: string): JobRecord {
  const status = jobMachine.next(
    job.job_id,
    job.status,
    job.status === "PENDING" ? "start" : "advance",
  );
  const last = job.phases.at(-1);
  const phases =
    last?.phase === phase && last.ended_at === undefined
      ? job.phases
      : [...closePhases(job, at), { phase, started_at: at }];
  return {
    ...job,
    status: status,
    phase,
    phases,
    progress: Math.max(job.progress, PHASE_START_PERCENT[phase]),
    updated_at: at,
  };
}

const closePhases = (job: JobRecord, at: string): JobRecord["phases"] =>
  job.phases.map((phase) => (phase.ended_at === undefined ? { ...phase, ended_at: at } : phase));

/** READY/READY/100 (spec §3.1). */
export const finishJob = (job: JobRecord, at: string): JobRecord => ({
  ...job,
  status: jobMachine.next(job.job_id, job.status, "finish"),
  phase: "READY",
  phases: [...closePhases(job, at), { phase: "READY", started_at: at, ended_at: at }],
  progress: 100,
  error_message: "",
  updated_at: at,
  ended_at: at,
});

/** FAILED in the phase it was in, progress 100 and an error that is never blank (spec §3.1). */
export const failJob = (
  job: JobRecord,
  event: "fail" | "cancel",
  error: { message: string; code: string },
  at: string,
): JobRecord => ({
  ...job,
  status: jobMachine.next(job.job_id, job.status, event),
  phases: closePhases(job, at),
  progress: 100,
  error_message: error.message || "the job failed without a message",
  error_code: error.code,
  updated_at: at,
  ended_at: at,
});

/** Every node that has worked on the job: each keeps its own lines of the log. */
export const workersOf = (job: { readonly [key: string]: unknown }): string[] =>
  Array.isArray(job["workers"]) ? job["workers"].map(String) : [];
