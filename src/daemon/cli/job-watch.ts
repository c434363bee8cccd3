/**
 * Following a job to its end: events first, polling when there are none to be had, and on through
 * a daemon that is away for a moment.
 */
import { createParser, type EventSourceMessage } from "eventsource-parser";
import {
  AppError,
  IMAGE_JOB_PHASES,
  isActiveJob,
  isAppError,
  phaseOrdinal,
  type JobInfo,
  type JobLogLine,
} from "../../domain/index.ts";
import type { Client } from "./client.ts";
import type { CliIo } from "./io.ts";
import { plain } from "./table.ts";

export interface WatchHandlers {
  onJob(job: JobInfo): void;
  onLog?(line: JobLogLine): void;
  /** The daemon is away; called once for each outage. */
  onTrouble?(error: unknown): void;
}

export interface WatchOptions {
  readonly signal: AbortSignal;
  /** Pause between polls, in milliseconds. */
  readonly intervalMs: number;
  /** An outage longer than this ends the watch. */
  readonly patienceMs?: number;
}

const PATIENCE_MS = 120_000;
/** Two pings may be missed before a silent stream is opened anew. */
const SILENCE_MS = 35_000;

const jobPath = (jobId: string): string => `/v1/jobs/${encodeURIComponent(jobId)}`;

/**
 * Resolves with the ended job.
 * @throws AppError job_not_found and others that waiting does not cure, daemon_unreachable after
 * `patienceMs`; the signal's reason when it aborts
 */
export async function watchJob(
  client: Client,
  io: CliIo,
  jobId: string,
  handlers: WatchHandlers,
  options: WatchOptions,
): Promise<JobInfo> {
  const patienceMs = options.patienceMs ?? PATIENCE_MS;
  let lastEventId: string | undefined;
  let awaySince: number | undefined;
  const seen = (job: JobInfo): JobInfo => {
    awaySince = undefined;
    handlers.onJob(job);
    return job;
  };
  for (;;) {
    try {
      const ended = await readEvents(client, jobId, lastEventId, options.signal, {
        id: (id) => (lastEventId = id),
        job: seen,
        log: (line) => handlers.onLog?.(line),
      });
      if (ended !== undefined) return ended;
      // The stream ended early, or could not be had: ask once, then try again.
      const job = seen((await client.json(jobPath(jobId), { signal: options.signal })) as JobInfo);
      if (!isActiveJob(job)) return job;
    } catch (error) {
      options.signal.throwIfAborted();
      if (!isTransient(error)) throw error;
      const now = io.clock.monotonic();
      if (awaySince === undefined) handlers.onTrouble?.(error);
      awaySince ??= now;
      if (now - awaySince > patienceMs) throw error;
    }
    await io.clock.sleep(options.intervalMs, { signal: options.signal });
  }
}

const isTransient = (error: unknown): boolean =>
  !isAppError(error) || error.code === "daemon_unreachable" || error.row.retryable;

interface Sinks {
  id(id: string): void;
  job(job: JobInfo): unknown;
  log(line: JobLogLine): void;
}

/**
 * Reads one event stream. @returns the ended job, or undefined when the stream ended before it or
 * when the daemon has no place for one more
 */
async function readEvents(
  client: Client,
  jobId: string,
  after: string | undefined,
  signal: AbortSignal,
  sinks: Sinks,
): Promise<JobInfo | undefined> {
  let ended: JobInfo | undefined;
  const parser = createParser({
    onEvent: (message: EventSourceMessage) => {
      if (message.id !== undefined) sinks.id(message.id);
      const data = JSON.parse(message.data) as unknown;
      if (message.event === "log") return sinks.log(data as JobLogLine);
      const job = data as JobInfo & { deleted?: boolean };
      if (job.deleted === true) throw new AppError("job_not_found", `job ${jobId} is gone`);
      if (message.event === "end") ended = job;
      sinks.job(job);
    },
  });
  try {
    const answer = await client.open(`${jobPath(jobId)}/events`, {
      headers: {
        accept: "text/event-stream",
        ...(after === undefined ? {} : { "last-event-id": after }),
      },
      signal,
      silenceMs: SILENCE_MS,
    });
    const decoder = new TextDecoder();
    for await (const chunk of answer.body) {
      parser.feed(decoder.decode(chunk as Uint8Array, { stream: true }));
      if (ended !== undefined) break;
    }
  } catch (error) {
    if (isAppError(error, "too_many_requests")) return undefined;
    // A stream that breaks off is no outage yet: the poll that follows will say.
    if (isAppError(error) || signal.aborted) throw error;
  }
  return ended;
}

/** `[n/9] PHASE progress=..% …`, as the predecessor prints it (spec §10.3). */
export function progressLine(job: JobInfo): string {
  const ordinal = phaseOrdinal(job.phase) || "?";
  return (
    `[${ordinal}/${IMAGE_JOB_PHASES.length}] ${job.phase} progress=${Math.floor(job.progress)}%` +
    ` template_id=${job.template_id} job_id=${job.job_id} distribution=${distribution(job)}`
  );
}

export const distribution = (job: JobInfo): string =>
  `${job.ready_node_count}/${job.expected_node_count} ready, ${job.failed_node_count} failed`;

const BAR = 24;

/** One line of at most `columns` characters, for drawing in place. */
export function progressBar(job: JobInfo, columns: number, color: boolean): string {
  const done = Math.round((Math.min(100, Math.max(0, job.progress)) / 100) * BAR);
  const filled = "█".repeat(done);
  const bar = color ? `\u001b[36m${filled}\u001b[0m` : filled;
  const percent = `${Math.floor(job.progress)}%`.padStart(4);
  const head = `[${phaseOrdinal(job.phase) || "?"}/${IMAGE_JOB_PHASES.length}] ${job.phase}`;
  const room = Math.max(0, columns - BAR - 6 - 1);
  const text = plain(job.note === "" ? head : `${head} ${job.note}`).slice(0, room);
  return `${bar}${"░".repeat(BAR - done)} ${percent} ${text}`;
}
