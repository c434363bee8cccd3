import { z } from "@hono/zod-openapi";
import { LIMITS, isActiveJob, type ChangeEvent, type JobInfo } from "../../../domain/index.ts";
import { json } from "../answer.ts";
import type { EventSink, RouteDeps } from "../ports.ts";
import { count, param, route, type Route } from "../route.ts";
import { Job, JobLogEntry, listOf, pageOf, pageQuery } from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "jobs";

const list = route(
  {
    method: "get",
    path: "/v1/jobs",
    summary: "Jobs, newest first",
    tag,
    query: z.strictObject({
      ...pageQuery,
      status: z.string().max(64).optional(),
      template_id: z.string().max(256).optional(),
    }),
    answers: { 200: { description: "one page of jobs", schema: pageOf(Job) } },
  },
  ({ queries }, _c, { query }) => json(queries.listJobs(query)),
);

const info = route(
  {
    method: "get",
    path: "/v1/jobs/{id}",
    summary: "One job with its progress",
    tag,
    answers: { 200: { description: "the job", schema: Job } },
  },
  ({ queries }, c) => json(queries.job(param(c))),
);

const FRAME_OF: Partial<Record<ChangeEvent["type"], string>> = {
  job: "job",
  "job-progress": "progress",
  "job-log": "log",
};

/**
 * Sends one job's events. `job` and `progress` carry the job as it is when they are sent, because
 * only the newest state is of use; `log` carries the line. After the job's end `end` is sent.
 */
function follow(deps: RouteDeps, jobId: string, after: string | undefined, sink: EventSink) {
  const { queries } = deps;
  let ended = false;
  const current = (): JobInfo | undefined => {
    try {
      return queries.job(jobId);
    } catch {
      return undefined;
    }
  };
  const finish = (job: JobInfo | undefined, id: string): void => {
    ended = true;
    sink.send({ event: "end", id, data: job ?? { job_id: jobId, deleted: true } });
    sink.end();
  };
  const relay = (event: ChangeEvent): void => {
    const name = FRAME_OF[event.type];
    if (ended || name === undefined || event.subject !== jobId) return;
    if (name === "log") return sink.send({ event: name, id: event.id, data: event.data });
    const job = current();
    if (job !== undefined) sink.send({ event: name, id: event.id, data: job });
    if (job === undefined || !isActiveJob(job)) finish(job, event.id);
  };
  const missed = after === undefined ? undefined : queries.eventsSince(after);
  // The lines between the caller's last event and now come from the ring; the rest is state.
  if (missed === undefined) {
    sink.send({ event: "snapshot", id: queries.lastEventId(), data: current() });
  } else {
    for (const event of missed) if (event.type === "job-log") relay(event);
    sink.send({ event: "job", id: queries.lastEventId(), data: current() });
  }
  const now = current();
  if (now === undefined || !isActiveJob(now)) finish(now, queries.lastEventId());
  return queries.subscribe(relay);
}

const events = route(
  {
    method: "get",
    path: "/v1/jobs/{id}/events",
    summary: "The job's events: snapshot, then job, progress and log, then end",
    tag,
    headers: { "Last-Event-ID": "id of the last event that was received" },
    answers: { 200: { description: "server-sent events", contentType: "text/event-stream" } },
  },
  (deps, c) => {
    const job = deps.queries.job(param(c));
    const after = c.req.header("last-event-id");
    return deps.streams.open(c, (sink) => follow(deps, job.job_id, after, sink));
  },
);

const log = route(
  {
    method: "get",
    path: "/v1/jobs/{id}/log",
    summary: "The job's log lines, oldest first",
    tag,
    query: z.strictObject({
      after: count(0, 999_999_999).optional().describe("a line's sequence"),
      limit: count(1, LIMITS.jobLogLines).optional(),
    }),
    answers: { 200: { description: "the lines", schema: listOf(JobLogEntry) } },
  },
  async ({ queries }, c, { query }) => json({ items: await queries.jobLog(param(c), query) }),
);

const cancel = route(
  {
    method: "post",
    path: "/v1/jobs/{id}/cancel",
    summary: "Ask the job to stop; it ends FAILED",
    tag,
    answers: { 202: { description: "the job, being cancelled", schema: Job } },
  },
  async ({ commands }, c) => json(await commands.cancelJob(param(c), callContext(c)), 202),
);

export const jobRoutes: readonly Route[] = [list, info, events, log, cancel];
