import type { Command } from "commander";
import type { ResolveResult } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, lines } from "./table.ts";
import { readRequest } from "./template-args.ts";

interface Flags {
  json?: boolean;
  file?: string;
  preferredNode?: string;
}

/** `resolve`: where a sandbox of a template would start, and with what. */
export function registerResolve(program: Command, context: CliContext): void {
  withJson(program.command("resolve"))
    .description("say where a sandbox would start, and with which request")
    .argument("[template]", "id or name")
    .option("-f, --file <file>", "sandbox create request as JSON, instead of the template alone")
    .option("--preferred-node <id>", "node to be taken if it can")
    .action(async (template: string | undefined, flags: Flags, command: Command) =>
      context.withClient(command, async (client) => {
        const body = {
          ...(flags.file === undefined ? {} : await readRequest(context.io, flags.file)),
          ...(template === undefined ? {} : { template_id: template }),
          ...(flags.preferredNode === undefined ? {} : { preferred_node_id: flags.preferredNode }),
        };
        const found = (await client.json("/v1/resolve", { method: "POST", body })) as ResolveResult;
        context.io.out(flags.json === true ? json(found) : resolvedText(found));
      }),
    );
}

const resolvedText = (found: ResolveResult): string =>
  lines([
    ["template_id", found.template_id],
    ["kind", found.kind],
    ["node_id", found.node_id],
    ["replica", `${found.replica.status} ${found.replica.phase}`],
    ["compat", found.replica.compat_status],
  ]);
