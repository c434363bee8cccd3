/** Changes of a job's record: pure functions from one record to the next. */
import { PHASE_START_PERCENT, jobMachine, type JobPhase, type JobRecord } from "../domain/index.ts";

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
