import type { Command } from "commander";
import { AppError, type TemplateInfo } from "../../domain/index.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { json, lines } from "./table.ts";
import { newKey, readRequest } from "./template-args.ts";

interface Flags {
  json?: boolean;
  file?: string;
  name?: string;
  instanceType?: string;
  node?: string[];
}

/** `tpl create`: from a prepared request, over a root filesystem that is there. */
export function registerCreatePrepared(group: Command, context: CliContext): void {
  withJson(group.command("create"))
    .description("make a template from a prepared request, as `tpl request` prints one, and wait")
    .option("-f, --file <file>", "the request as JSON; - reads standard input")
    .option("--name <name>", "display name, also accepted wherever an id is")
    .option("--instance-type <type>", "instead of the request's")
    .option("--node <node>", "node id or address that may hold it (repeat)", collect)
    .action(async (flags: Flags, command: Command) =>
      context.withClient(command, async (client) => {
        const { io } = context;
        if (flags.file === undefined) {
          throw new AppError("invalid_request", "a request is required: --file FILE");
        }
        const body = {
          ...(await readRequest(io, flags.file)),
          ...(flags.name === undefined ? {} : { display_name: flags.name }),
          ...(flags.instanceType === undefined ? {} : { instance_type: flags.instanceType }),
          ...(flags.node === undefined ? {} : { distribution_scope: flags.node }),
        };
        const headers = { "idempotency-key": newKey() };
        const call = { method: "POST" as const, body, headers };
        const one = (await client.json("/v1/templates", call)) as TemplateInfo;
        io.out(flags.json === true ? json(one) : createdText(one));
      }),
    );
}

const createdText = (one: TemplateInfo): string =>
  lines([
    ["template_id", one.template_id],
    ["name", one.display_name],
    ["status", one.status],
    ["job_id", one.job_id],
    ["nodes", one.replicas.map(({ node_id, status }) => `${node_id} ${status}`).join(", ")],
    ["last_error", one.last_error],
  ]);
