/**
 * `Prefer: wait=N` (RFC 7240) on what makes a job: the answer is held until the job has ended or N
 * seconds have passed. Stands outside the Idempotency-Key, so that a second request with the same
 * key waits too instead of meeting one that still runs.
 */
import { isActiveJob, type Clock, type Queries } from "../../../domain/index.ts";
import { json } from "../answer.ts";
import type { AppMiddleware, EventStreams } from "../ports.ts";
import { isUpload } from "../upload.ts";

const MAX_WAIT_SECONDS = 900;

/** Seconds asked for, capped; undefined when waiting was not asked for. */
export function waitSeconds(prefer: string | undefined): number | undefined {
  const match = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i.exec(prefer ?? "");
  return match === null ? undefined : Math.min(Number(match[1]), MAX_WAIT_SECONDS);
}

/** Resolves when the job is no longer active, when time is up, or when somebody gives up. */
function jobEnded(
  queries: Queries,
  clock: Clock,
  jobId: string,
  options: { seconds: number; signals: readonly AbortSignal[] },
): Promise<void> {
  return new Promise((resolve) => {
    const signal = AbortSignal.any([...options.signals]);
    const done = (): void => {
      leave();
      timer.cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const look = (): void => {
      if (!isActiveJob(queries.job(jobId))) done();
    };
    const timer = clock.after(options.seconds * 1_000, done);
    const leave = queries.subscribe((event) => {
      if (event.type === "job" && event.subject === jobId) look();
    });
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
    else look();
  });
}

export const preferWait =
  (queries: Queries, clock: Clock, streams: EventStreams): AppMiddleware =>
  async (c, next) => {
    await next();
    if (isUpload(c.req.method, c.req.path)) return;
    const seconds = waitSeconds(c.req.header("prefer"));
    const location = c.res.headers.get("location") ?? "";
    const jobId = /^\/v1\/jobs\/([^/]+)$/.exec(location)?.[1];
    if (seconds === undefined || jobId === undefined || c.res.status !== 202) return;
    const signals = [streams.closing, c.req.raw.signal];
    await jobEnded(queries, clock, jobId, { seconds, signals });
    const job = queries.job(jobId);
    // The frame carries the other headers of the first answer over to this one.
    c.res = json(job, isActiveJob(job) ? 202 : 200, { "preference-applied": `wait=${seconds}` });
  };
