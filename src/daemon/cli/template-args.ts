/** What commands share: the template that is meant, waiting for its job, lists in pages. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { AppError, type JobInfo, type Page } from "../../domain/index.ts";
import type { Client } from "./client.ts";
import { followJob, requireReady, withJson, type CliContext } from "./context.ts";
import type { CliIo } from "./io.ts";
import { jobLines } from "./job.ts";
import { json } from "./table.ts";

export const templatePath = (id: string, rest = ""): string =>
  `/v1/templates/${encodeURIComponent(id)}${rest}`;

/** One key per run: the daemon does it once even if the connection breaks and is retried. */
export const newKey = (): string => globalThis.crypto.randomUUID();

/** The positional id, or the predecessor's --template-id. @throws AppError template_id_required */
export function idOf(positional: string | undefined, flags: { templateId?: string }): string {
  const id = positional ?? flags.templateId;
  if (id === undefined || id.trim() === "") {
    throw new AppError("template_id_required", "template id is required");
  }
  return id;
}

export const withId = (command: Command): Command =>
  withJson(command.argument("[template]", "id or name")).option("--template-id <id>", "the same");

export interface WaitFlags {
  readonly json?: boolean;
  readonly wait?: boolean;
  readonly detach?: boolean;
  readonly interval?: number;
}

export const withWait = (command: Command): Command =>
  command
    .option("--wait", "wait for the end (default on a terminal)")
    .option("--detach", "print the job and return at once");

/**
 * Prints the job at once, or follows it to its end first.
 * @throws AppError with the job's error when it ended FAILED
 */
export async function showJob(
  context: CliContext,
  client: Client,
  job: JobInfo,
  flags: WaitFlags,
): Promise<void> {
  const { io } = context;
  const print = (one: JobInfo) => io.out(flags.json === true ? json(one) : jobLines(one));
  if (flags.detach === true || (flags.wait !== true && !io.isTty)) {
    print(job);
    if (flags.json !== true) io.err(`hint: watch it: templatecenter tpl watch ${job.job_id}\n`);
    return;
  }
  const ended = await followJob(context, client, job.job_id, {
    ...(flags.json === undefined ? {} : { quiet: flags.json }),
    ...(flags.interval === undefined ? {} : { intervalMs: Math.max(0.1, flags.interval) * 1_000 }),
  });
  print(ended);
  requireReady(ended);
}

/** All pages of a list. */
export async function allPages<T>(
  client: Client,
  of: string,
  query: Record<string, string | number | undefined> = {},
): Promise<T[]> {
  const items: T[] = [];
  let next_token: string | undefined;
  do {
    const page = (await client.json(of, { query: { ...query, next_token } })) as Page<T>;
    items.push(...page.items);
    next_token = page.next_token;
  } while (next_token !== undefined);
  return items;
}

/**
 * A sandbox create request as JSON.
 * @param file `-`: standard input
 * @throws AppError invalid_request
 */
export async function readRequest(io: CliIo, file: string): Promise<Record<string, unknown>> {
  try {
    const text = file === "-" ? await io.readStdin() : await readFile(file, "utf8");
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new AppError("invalid_request", `cannot read a request from ${file}`, { cause });
  }
}
