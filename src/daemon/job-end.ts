import {
  AppError,
  isActiveJob,
  type Catalog,
  type Clock,
  type JobRecord,
} from "../domain/index.ts";
import type { Records } from "./records.ts";

/**
 * The job when it has ended, or as it is after `waitMs` milliseconds.
 * @throws AppError job_not_found: it went with what it was about; the signal's reason
 */
export async function jobEnd(
  parts: {
    readonly catalog: Pick<Catalog, "subscribe">;
    readonly records: Pick<Records, "get">;
    readonly clock: Pick<Clock, "sleep">;
  },
  job: JobRecord,
  waitMs: number,
  signal?: AbortSignal,
): Promise<JobRecord> {
  const { catalog, records, clock } = parts;
  const over = new AbortController();
  const { job_id: jobId } = job;
  const current = (): JobRecord => {
    const known = records.get("job", jobId);
    if (known !== undefined) return known;
    throw new AppError("job_not_found", `job ${jobId} is gone: what it was about was deleted`);
  };
  const isUnderWay = () => {
    const known = records.get("job", jobId);
    return known !== undefined && isActiveJob(known);
  };
  const unsubscribe = catalog.subscribe(({ kind, id }) => {
    if (kind === "job" && id === jobId && !isUnderWay()) over.abort();
  });
  try {
    if (!isUnderWay()) return current();
    const either = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    await clock.sleep(waitMs, { signal: either }).catch(() => undefined);
    signal?.throwIfAborted();
    return current();
  } finally {
    unsubscribe();
  }
}
