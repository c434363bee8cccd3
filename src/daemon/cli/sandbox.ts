import type { Command } from "commander";
import { AppError, type Page, type SandboxInfo } from "../../domain/index.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { json, lines, table } from "./table.ts";

const EXAMPLES = `
Examples:
  templatecenter sandbox run web
  templatecenter sandbox list
  templatecenter sandbox delete sb-0123456789abcdef01234567
`;

/** `sandbox`: run, list, delete. */
export function registerSandbox(program: Command, context: CliContext): void {
  const group = program
    .command("sandbox")
    .description("run sandboxes on this node")
    .addHelpText("beforeAll", EXAMPLES);
  registerRun(group, context);
  withJson(group.command("list").alias("ls"))
    .description("list this node's sandboxes")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const page = (await client.json("/v1/sandboxes")) as Page<SandboxInfo>;
        context.io.out(flags.json === true ? json(page) : sandboxTable(page.items));
      }),
    );
  group
    .command("delete")
    .alias("rm")
    .description("end sandboxes")
    .argument("<sandboxes...>", "sandbox ids")
    .action(async (ids: string[], _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        for (const id of ids) {
          await client.json(`/v1/sandboxes/${encodeURIComponent(id)}`, { method: "DELETE" });
          context.io.out(`sandbox deleted: ${id}\n`);
        }
      }),
    );
}

interface RunFlags {
  id?: string;
  templateId?: string;
  label?: string[];
  json?: boolean;
}

function registerRun(group: Command, context: CliContext): void {
  withJson(group.command("run"))
    .description("start a sandbox from a template's snapshot")
    .argument("[template]", "template id or name")
    .option("--template-id <id>", "the same")
    .option("--id <id>", "id of the sandbox (default: a new one)")
    .option("--label <key=value>", "label (repeat)", collect)
    .action(async (template: string | undefined, flags: RunFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const template_id = template ?? flags.templateId;
        if (template_id === undefined) throw new AppError("template_id_required");
        const labels = flags.label?.map((text): [string, string] => {
          const at = text.indexOf("=");
          if (at < 1) throw new AppError("invalid_request", `label ${text} is not KEY=VALUE`);
          return [text.slice(0, at), text.slice(at + 1)];
        });
        const body = {
          template_id,
          sandbox_id: flags.id,
          labels: labels === undefined ? undefined : Object.fromEntries(labels),
        };
        const made = (await client.json("/v1/sandboxes", { method: "POST", body })) as SandboxInfo;
        context.io.out(flags.json === true ? json(made) : sandboxText(made));
      }),
    );
}

const portsText = (one: SandboxInfo): string =>
  Object.entries(one.ports)
    .map(([guest, { host, port }]) => `${guest}->${host}:${port}`)
    .join(", ");

const sandboxText = (one: SandboxInfo): string =>
  lines([
    ["sandbox_id", one.sandbox_id],
    ["template_id", one.template_id],
    ["node_id", one.node_id],
    ["status", one.status],
    ["pid", one.pid],
    ["ports", portsText(one)],
    ...Object.entries(one.timings).map(
      ([step, ms]) => [`${step}_ms`, Math.round(ms * 10) / 10] as const,
    ),
  ]);

const sandboxTable = (items: readonly SandboxInfo[]): string =>
  table(
    ["SANDBOX_ID", "TEMPLATE_ID", "STATUS", "NODE_ID", "PORTS", "CREATED_AT"],
    items.map((one) => [
      one.sandbox_id,
      one.template_id,
      one.status,
      one.node_id,
      portsText(one),
      one.created_at,
    ]),
  );
