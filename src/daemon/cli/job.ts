import type { Command } from "commander";
import type { JobInfo, JobLogLine, Page } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { distribution, watchJob } from "./job-watch.ts";
import { json, lines, plain, table } from "./table.ts";

const path = (id: string, rest = ""): string => `/v1/jobs/${encodeURIComponent(id)}${rest}`;

const EXAMPLES = `
Examples:
  templatecenter job list --status RUNNING
  templatecenter job log JOB --follow
  templatecenter job cancel JOB
`;

/** `job`: list, get, events, log, cancel. */
export function registerJob(program: Command, context: CliContext): void {
  const group = program
    .command("job")
    .description("look at jobs and cancel them")
    .addHelpText("beforeAll", EXAMPLES);
  registerReads(group, context);
  registerLog(group, context);
  registerEvents(group, context);
  withJson(group.command("cancel"))
    .description("ask a job to stop")
    .argument("<job>", "job id")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const job = (await client.json(path(id, "/cancel"), { method: "POST" })) as JobInfo;
        context.io.out(flags.json === true ? json(job) : `job is being cancelled: ${job.job_id}\n`);
      }),
    );
}

/** `name: value` lines of a job (spec §10.3). */
export const jobLines = (job: JobInfo): string =>
  lines([
    ["job_id", job.job_id],
    ["template_id", job.template_id],
    ["attempt_no", job.attempt_no],
    ["retry_of_job_id", job.retry_of_job_id],
    ["operation", job.operation],
    ["redo_mode", job.redo_mode],
    ["redo_scope", job.redo_scope?.join(",")],
    ["resume_phase", job.resume_phase],
    ["artifact_id", job.artifact_id],
    ["status", job.status],
    ["phase", job.phase],
    ["progress", `${Math.floor(job.progress)}%`],
    ["distribution", distribution(job)],
    ["template_spec_fingerprint", job.template_spec_fingerprint],
    ["artifact_status", job.artifact_status],
    ["artifact_digest", job.artifact_digest],
    ["template_status", job.template_status],
    ["error", job.error_message],
    ["warning", job.warning],
  ]);

interface ListFlags {
  json?: boolean;
  status?: string;
  templateId?: string;
  limit?: string;
}

function registerReads(group: Command, context: CliContext): void {
  const { io } = context;
  withJson(group.command("list").alias("ls"))
    .description("list jobs, newest first")
    .option("--status <status>", "only those in this status")
    .option("--template-id <id>", "only those of this template")
    .option("--limit <n>", "at most so many", "100")
    .action(async (flags: ListFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const { status, templateId, limit } = flags;
        const query = { status, template_id: templateId, limit };
        const page = (await client.json("/v1/jobs", { query })) as Page<JobInfo>;
        io.out(flags.json === true ? json(page) : jobTable(page.items));
      }),
    );
  withJson(group.command("get").alias("info"))
    .description("show one job")
    .argument("<job>", "job id")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const job = await client.json(path(id));
        io.out(flags.json === true ? json(job) : jobLines(job as JobInfo));
      }),
    );
}

const jobTable = (items: readonly JobInfo[]): string =>
  table(
    ["JOB_ID", "TEMPLATE_ID", "OPERATION", "STATUS", "PHASE", "PROGRESS", "CREATED_AT", "ERROR"],
    items.map((job) => [
      job.job_id,
      job.template_id,
      job.operation,
      job.status,
      job.phase,
      `${Math.floor(job.progress)}%`,
      job.created_at,
      job.error_message,
    ]),
  );

const logText = (line: JobLogLine): string =>
  `${line.at} ${line.level.padEnd(5)} ${plain(line.message)}\n`;

function registerLog(group: Command, context: CliContext): void {
  withJson(group.command("log").alias("logs"))
    .description("print a job's log")
    .argument("<job>", "job id")
    .option("-f, --follow", "go on until the job ends")
    .action(async (id: string, flags: { json?: boolean; follow?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const { io } = context;
        let last = 0;
        const print = (line: JobLogLine): void => {
          if (line.sequence <= last) return;
          last = line.sequence;
          io.out(flags.json === true ? `${JSON.stringify(line)}\n` : logText(line));
        };
        const rest = async (): Promise<void> => {
          const query = { after: last };
          const page = (await client.json(path(id, "/log"), { query })) as Page<JobLogLine>;
          page.items.forEach(print);
        };
        await rest();
        if (flags.follow !== true) return;
        const handlers = { onJob: () => undefined, onLog: print };
        const options = { signal: io.interrupted, intervalMs: 2_000 };
        await watchJob(client, io, id, handlers, options);
        // Lines of the last moments may have come before the stream was open, or after its end.
        await rest();
      }),
    );
}

function registerEvents(group: Command, context: CliContext): void {
  group
    .command("events")
    .description("print a job's states and log lines as JSON, one a line, until it ends")
    .argument("<job>", "job id")
    .option("--json", "accepted; it is always JSON")
    .action(async (id: string, _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        const { io } = context;
        const print = (event: string, data: unknown): void =>
          io.out(`${JSON.stringify({ event, data })}\n`);
        const handlers = {
          onJob: (job: JobInfo) => print("job", job),
          onLog: (line: JobLogLine) => print("log", line),
        };
        const options = { signal: io.interrupted, intervalMs: 2_000 };
        await watchJob(client, io, id, handlers, options);
      }),
    );
}
