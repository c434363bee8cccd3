import type { Command } from "commander";
import {
  AppError,
  isAppError,
  type JobInfo,
  type ReplicaStatus,
  type SandboxRequest,
  type TemplateInfo,
} from "../../domain/index.ts";
import { registerExport } from "./bundle.ts";
import { collect, followJob, requireReady, withJson, type CliContext } from "./context.ts";
import { addCreateFlags, createRequest, type CreateFlags } from "./create-options.ts";
import { jobLines } from "./job.ts";
import { json, lines, plain, sizeText, table } from "./table.ts";
import {
  allPages,
  idOf,
  newKey,
  showJob,
  templatePath,
  withId,
  withWait,
  type WaitFlags,
} from "./template-args.ts";
import { registerTemplateEdits } from "./tag.ts";
import { registerCommit } from "./template-commit.ts";
import { registerCreatePrepared } from "./template-create.ts";
import { registerRedo } from "./template-redo.ts";
import { registerRender } from "./template-render.ts";

const EXAMPLES = `
Examples:
  templatecenter tpl create-from-image --image docker.io/library/nginx:1.27 --expose-port 80
  templatecenter tpl list -o wide
  templatecenter tpl info web --include-request --json
  templatecenter tpl commit sb-0123456789abcdef01234567 --name web-with-tools
  templatecenter tpl redo web --failed-only
  templatecenter tpl delete tpl-0123456789abcdef01234567
`;

/** `tpl` (also `template`): make, look at and delete templates. */
export function registerTemplate(program: Command, context: CliContext): void {
  const group = program
    .command("tpl")
    .alias("template")
    .description("make, look at and delete templates")
    .addHelpText("beforeAll", EXAMPLES);
  registerCreate(group, context);
  registerCreatePrepared(group, context);
  registerList(group, context);
  registerInfo(group, context);
  registerRender(group, context);
  registerDelete(group, context);
  registerCommit(group, context);
  registerRedo(group, context);
  registerTemplateEdits(group, context);
  registerExport(group, context, { name: "template", resource: "templates" });
  registerStatus(group, context);
  registerWatch(group, context);
}

type CreateRun = CreateFlags & WaitFlags;

function registerCreate(group: Command, context: CliContext): void {
  const { io } = context;
  withWait(withJson(addCreateFlags(group.command("create-from-image"))))
    .description("make a template from an OCI image")
    .action(async (flags: CreateRun, command: Command) =>
      context.withClient(command, async (client) => {
        const body = await createRequest(io, flags);
        const headers = { "idempotency-key": newKey() };
        const call = { method: "POST" as const, body, headers };
        const job = (await client.json("/v1/templates/from-image", call)) as JobInfo;
        await showJob(context, client, job, flags);
      }),
    );
}

interface ListFlags {
  json?: boolean;
  output?: string;
  status?: string;
  label?: string;
  text?: string;
}

function registerList(group: Command, context: CliContext): void {
  withJson(group.command("list").alias("ls"))
    .description("list templates, most recently updated first")
    .option("-o, --output <format>", "wide, or json")
    .option("--status <status>", "only those in this status")
    .option("--label <key[=value]>", "only those with this label")
    .option("--text <text>", "only those with this in id, name or image")
    .action(async (flags: ListFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const { output, json: wantsJson, ...filter } = flags;
        if (output !== undefined && !["wide", "json"].includes(output)) {
          throw new AppError("invalid_request", `output ${output} is not known: wide or json`);
        }
        const items = await allPages<TemplateInfo>(client, "/v1/templates", {
          status: filter.status,
          label: filter.label,
          text: filter.text,
        });
        const asJson = wantsJson === true || output === "json";
        context.io.out(asJson ? json({ items }) : templateTable(items, output === "wide"));
      }),
    );
}

function templateTable(items: readonly TemplateInfo[], wide: boolean): string {
  const head = ["TEMPLATE_ID", "NAME", "STATUS", "CREATED_AT", "IMAGE_INFO"];
  const more = wide ? ["VERSION", "JOB_ID", "LAST_ERROR"] : [];
  const rows = items.map((one) => [
    one.template_id,
    one.display_name,
    one.status,
    one.created_at,
    one.image_info,
    ...(wide ? [one.version, one.job_id, one.last_error] : []),
  ]);
  return table([...head, ...more], rows);
}

interface InfoFlags {
  json?: boolean;
  includeRequest?: boolean;
  templateId?: string;
}

function registerInfo(group: Command, context: CliContext): void {
  const { io } = context;
  withId(group.command("info"))
    .description("show one template with its replicas")
    .option("--include-request", "with the stored create request")
    .action(async (id: string | undefined, flags: InfoFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const query = { include_request: flags.includeRequest };
        const found = (await client.json(templatePath(idOf(id, flags)), {
          query,
        })) as TemplateDetail;
        io.out(flags.json === true ? json(found) : templateText(found));
      }),
    );
  withId(group.command("request"))
    .description("print the stored create request, with a fresh request id")
    .action(async (id: string | undefined, flags: InfoFlags, command: Command) =>
      context.withClient(command, async (client) =>
        io.out(json(await client.json(templatePath(idOf(id, flags), "/request")))),
      ),
    );
  withId(group.command("replicas"))
    .description("list a template's replicas by node")
    .action(async (id: string | undefined, flags: InfoFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const answer = await client.json(templatePath(idOf(id, flags), "/replicas"));
        const { items } = answer as { items: ReplicaStatus[] };
        io.out(flags.json === true ? json(answer) : replicaTable(items));
      }),
    );
}

type TemplateDetail = TemplateInfo & { create_request?: SandboxRequest };

function templateText(one: TemplateDetail): string {
  const ca = one.cube_egress_ca_baked
    ? `baked (${one.cube_egress_ca_fingerprint}, ${one.cube_egress_ca_targets_written} files)`
    : "not baked";
  const artifact =
    one.artifact_id === "" ? "" : `${one.artifact_id} ${sizeText(one.artifact_size_bytes)}`;
  const labels = Object.entries(one.labels).map(([key, value]) => `${key}=${value}`);
  const head = lines([
    ["template_id", one.template_id],
    ["name", one.display_name],
    ["instance_type", one.instance_type],
    ["version", one.version],
    ["status", one.status],
    ["last_error", one.last_error],
    ["warning", one.warning],
    ["created_at", one.created_at],
    ["image_info", one.image_info],
    ["origin_sandbox_id", one.origin_sandbox_id],
    ["parent_id", one.parent_id],
    ["job_id", one.job_id],
    ["artifact", artifact],
    ["artifact_digest", one.artifact_digest],
    ["labels", labels.join(", ")],
    ["protected", one.protected ? "yes" : ""],
    ["cube_egress_ca", ca],
  ]);
  const request = one.create_request === undefined ? "" : `\n${json(one.create_request)}`;
  return `${head}\n${replicaTable(one.replicas)}${request}`;
}

const replicaTable = (items: readonly ReplicaStatus[]): string =>
  table(
    ["NODE_ID", "NODE_IP", "STATUS", "PHASE", "SPEC", "ERROR"],
    items.map((one) => [
      one.node_id,
      one.node_ip,
      one.status,
      one.phase,
      one.spec ?? "",
      one.error_message ?? "",
    ]),
  );

interface DeleteFlags {
  force?: boolean;
  templateId?: string[];
  json?: boolean;
}

function registerDelete(group: Command, context: CliContext): void {
  withJson(group.command("delete").alias("rm"))
    .description("delete templates; one that cannot be deleted holds up no other")
    .argument("[templates...]", "ids or names")
    .option("--template-id <id>", "the same (repeat)", collect)
    .option("--force", "cancel what still makes it first; never while sandboxes use it")
    .action(async (ids: string[], flags: DeleteFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const all = [...ids, ...(flags.templateId ?? [])];
        if (all.length === 0) throw new AppError("template_id_required");
        const query = { force: flags.force };
        const deleted: string[] = [];
        const failed: { id: string; error: AppError }[] = [];
        for (const id of all) {
          try {
            const answer = await client.json(templatePath(id), { method: "DELETE", query });
            const { template_id } = answer as { template_id: string };
            deleted.push(template_id);
            if (flags.json !== true) context.io.out(`template deleted: ${template_id}\n`);
          } catch (error) {
            if (!isAppError(error) || error.code === "daemon_unreachable") throw error;
            failed.push({ id, error });
          }
        }
        const told = failed.map(({ id, error: { code, message: detail } }) => ({
          template: id,
          code,
          detail,
        }));
        if (flags.json === true) context.io.out(json({ deleted, failed: told }));
        reportFailed(context, failed, all.length);
      }),
    );
}

/** @throws AppError with the code of the first that failed, when one did */
function reportFailed(
  { io }: CliContext,
  failed: readonly { id: string; error: AppError }[],
  count: number,
): void {
  const [first] = failed;
  if (first === undefined) return;
  if (count === 1) throw first.error;
  for (const { id, error } of failed) io.err(`error: ${plain(id)}: ${plain(error.message)}\n`);
  throw new AppError(first.error.code, `${failed.length} of ${count} were not deleted`);
}

interface JobFlags {
  json?: boolean;
  jobId?: string;
  interval?: number;
}

/** The positional job id, or the predecessor's --job-id. */
function jobIdOf(positional: string | undefined, flags: { jobId?: string }): string {
  const id = positional ?? flags.jobId;
  if (id === undefined || id === "") throw new AppError("invalid_request", "job id is required");
  return id;
}

function registerStatus(group: Command, context: CliContext): void {
  withJson(group.command("status"))
    .description("show a template's job")
    .argument("[job]", "job id")
    .option("--job-id <id>", "the same")
    .action(async (id: string | undefined, flags: JobFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const job = await client.json(`/v1/jobs/${encodeURIComponent(jobIdOf(id, flags))}`);
        context.io.out(flags.json === true ? json(job) : jobLines(job as JobInfo));
      }),
    );
}

function registerWatch(group: Command, context: CliContext): void {
  withJson(group.command("watch"))
    .description("follow a job to its end")
    .argument("[job]", "job id")
    .option("--job-id <id>", "the same")
    .option("--interval <seconds>", "pause between tries when there are no events", Number, 2)
    .action(async (id: string | undefined, flags: JobFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const job = await followJob(context, client, jobIdOf(id, flags), {
          quiet: flags.json,
          intervalMs: Math.max(0.1, flags.interval ?? 2) * 1_000,
        });
        if (flags.json === true) context.io.out(json(job));
        requireReady(job);
      }),
    );
}
