/**
 * The log of each job: kept on the node that worked on it, bounded, and told to readers as it
 * grows.
 */
import { LIMITS } from "../domain/index.ts";
import type { Catalog, Clock, JobLogLine, Log } from "../domain/index.ts";
import type { EventHub } from "./events.ts";

export interface JobLog {
  append(jobId: string, level: JobLogLine["level"], message: string): void;
  /**
   * Lines from now on are numbered from `sequence` at least, so that lines that several nodes keep
   * of one job stay in order.
   */
  startAt(jobId: string, sequence: number): void;
  read(jobId: string, options?: { after?: number; limit?: number }): Promise<JobLogLine[]>;
  /** Resolves when all that was appended is stored. */
  flush(): Promise<void>;
  remove(jobId: string): Promise<void>;
}

const key = (jobId: string, sequence: number): string =>
  `${jobId}/${String(sequence).padStart(10, "0")}`;

const CONTROL = /\u001b\[[0-9;?]*[A-Za-z]|[\u0000-\u0008\u000b-\u001f\u007f]/g;

export function createJobLog(catalog: Catalog, hub: EventHub, clock: Clock, log: Log): JobLog {
  const table = catalog.table("job-log");
  const sequences = new Map<string, Promise<{ next: number }>>();
  let writing: Promise<void> = Promise.resolve();

  const sequenceOf = (jobId: string) => {
    const known = sequences.get(jobId);
    if (known !== undefined) return known;
    const loaded = (async () => {
      for await (const [last] of table.range({ prefix: `${jobId}/`, reverse: true, limit: 1 })) {
        return { next: Number(last.slice(jobId.length + 1)) + 1 };
      }
      return { next: 1 };
    })();
    sequences.set(jobId, loaded);
    return loaded;
  };

  const store = async (jobId: string, line: Omit<JobLogLine, "sequence">): Promise<void> => {
    const counter = await sequenceOf(jobId);
    const sequence = counter.next++;
    const full = { sequence, ...line };
    const local = [{ table: "job-log" as const, key: key(jobId, sequence), value: full }];
    const old = sequence - LIMITS.jobLogLines;
    await catalog.merge([], {
      local: old > 0 ? [...local, { table: "job-log" as const, key: key(jobId, old) }] : local,
      sync: false,
    });
    hub.publish("job-log", jobId, full);
  };

  return {
    append(jobId, level, message) {
      const text = message.replaceAll(CONTROL, "").trimEnd().slice(0, LIMITS.jobLogLineBytes);
      if (text === "") return;
      const at = new Date(clock.now()).toISOString();
      writing = writing
        .then(() => store(jobId, { at, level, message: text }))
        .catch((error: unknown) => log.warn("job log line lost", { job_id: jobId, err: error }));
    },
    startAt(jobId, sequence) {
      writing = writing
        .then(() => sequenceOf(jobId))
        .then((counter) => void (counter.next = Math.max(counter.next, sequence)));
    },
    async read(jobId, options = {}) {
      await writing;
      const lines: JobLogLine[] = [];
      const after = options.after === undefined ? undefined : key(jobId, options.after);
      const rows = table.range({
        prefix: `${jobId}/`,
        limit: options.limit ?? LIMITS.jobLogLines,
        ...(after === undefined ? {} : { after }),
      });
      for await (const [, value] of rows) lines.push(value as JobLogLine);
      return lines;
    },
    flush: () => writing,
    async remove(jobId) {
      await writing;
      sequences.delete(jobId);
      const keys: string[] = [];
      for await (const [row] of table.range({ prefix: `${jobId}/` })) keys.push(row);
      const local = keys.map((row) => ({ table: "job-log" as const, key: row }));
      await catalog.merge([], { local, sync: false });
    },
  };
}
