/** What each command group is given: output, the connection, and waiting for jobs. */
import { Command } from "commander";
import { AppError, errorText, type JobInfo } from "../../domain/index.ts";
import { createClient, findTarget, type Client, type ConnectionOptions } from "./client.ts";
import type { CliIo } from "./io.ts";
import { wantsColor } from "./io.ts";
import { progressBar, progressLine, watchJob } from "./job-watch.ts";

export interface CliContext {
  readonly io: CliIo;
  /** Runs with a client for the program's global options, and closes it. */
  withClient<T>(command: Command, work: (client: Client) => Promise<T>): Promise<T>;
}

export const createContext = (io: CliIo): CliContext => ({
  io,
  async withClient(command, work) {
    const { data, ...rest } = command.optsWithGlobals<ConnectionOptions & { data?: string }>();
    const client = createClient(await findTarget(io, { dataDir: rest.dataDir ?? data, ...rest }));
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  },
});

/**
 * Follows a job with a bar on a terminal and plain lines elsewhere.
 * @throws AppError the job's own failure; `Interrupted` on Ctrl-C
 */
export async function followJob(
  context: CliContext,
  client: Client,
  jobId: string,
  options: { intervalMs?: number; quiet?: boolean } = {},
): Promise<JobInfo> {
  const { io } = context;
  const show = options.quiet === true ? () => undefined : progressPrinter(io);
  let drawn = false;
  const handlers = {
    onJob(job: JobInfo) {
      drawn = io.isTty;
      show(job);
    },
    onTrouble: (error: unknown) =>
      io.err(`${drawn ? "\n" : ""}warning: ${errorText(error)}; still trying\n`),
  };
  const signal = io.interrupted;
  const job = await watchJob(client, io, jobId, handlers, {
    signal,
    intervalMs: options.intervalMs ?? 2_000,
  }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
    throw new Interrupted(`the job goes on; watch it with: templatecenter tpl watch ${jobId}`);
  });
  if (drawn && options.quiet !== true) io.err("\n");
  return job;
}

/** @throws AppError with the job's error when it ended FAILED */
export function requireReady(job: JobInfo): void {
  if (job.status !== "FAILED") return;
  const code = job.error_code === "job_deadline_exceeded" ? "job_deadline_exceeded" : "internal";
  throw new AppError(code, `job ${job.job_id} failed in ${job.phase}: ${job.error_message}`, {
    meta: { hint: `see its log: templatecenter job log ${job.job_id}` },
  });
}

/** Ctrl-C: exit code 130, and a last word about what goes on. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

function progressPrinter(io: CliIo): (job: JobInfo) => void {
  let last = "";
  return (job) => {
    const line = io.isTty ? progressBar(job, io.columns || 80, wantsColor(io)) : progressLine(job);
    if (line === last) return;
    last = line;
    if (io.isTty) io.err(`\r\u001b[2K${line}`);
    else io.out(`${line}\n`);
  };
}

/** Repeats an option into a list. */
export const collect = (value: string, all: string[] | undefined): string[] => [
  ...(all ?? []),
  value,
];

/** A leaf command's `--json`. */
export const withJson = (command: Command): Command =>
  command.option("--json", "print JSON as the API answers it");
