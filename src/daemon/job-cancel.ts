/** Cancelling of jobs: asked for in the record, done by whoever works on the job. */
import {
  AppError,
  isActiveJob,
  isAppError,
  type Catalog,
  type Clock,
  type JobRecord,
} from "../domain/index.ts";
import { jobEnd } from "./job-end.ts";
import type { Records } from "./records.ts";

/** A cancelled job ends within a moment where it runs; a dead leader's only with its session. */
const CANCEL_WAIT_MS = 15_000;

export interface CancelParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly clock: Clock;
  /** Resolves when nothing is under way for the job on this node. */
  readonly settled: (jobId: string) => Promise<void>;
}

/** @throws AppError job_not_found, job_not_active, no_quorum */
export type CancelJob = (jobId: string, actor: string) => Promise<void>;

export function createCancelJob(parts: CancelParts): CancelJob {
  const { records, clock, settled } = parts;
  const asked = (job: JobRecord, actor: string): JobRecord => ({
    ...job,
    cancel_requested: true,
    cancelled_by: actor,
    updated_at: new Date(clock.now()).toISOString(),
  });

  return async (id, actor) => {
    const job = records.get("job", id);
    if (job === undefined)
      throw new AppError("job_not_found", `job ${JSON.stringify(id)} not found`);
    if (!isActiveJob(job)) {
      throw new AppError("job_not_active", `job ${id} has already ended ${job.status}`, {
        meta: { status: job.status },
      });
    }
    await records.update("job", id, (current) =>
      current === undefined || !isActiveJob(current) ? undefined : asked(current, actor),
    );
    // Whoever leads the template ends the job; when nobody can be, it stays asked for.
    await jobEnd(parts, job, CANCEL_WAIT_MS).catch((error: unknown) => {
      if (!isAppError(error, "job_not_found")) throw error;
    });
    await settled(id);
  };
}
