/** `tpl commit`: a running sandbox becomes a template. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { AppError, type JobInfo } from "../../domain/index.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { labelsOf, pair } from "./create-options.ts";
import { newKey, showJob, withWait, type WaitFlags } from "./template-args.ts";

interface CommitFlags extends WaitFlags {
  readonly sandboxId?: string;
  readonly name?: string;
  readonly label?: string[];
  readonly node?: string[];
  readonly file?: string;
  readonly requestId?: string;
}

export function registerCommit(group: Command, context: CliContext): void {
  withWait(withJson(group.command("commit")))
    .description("make a template of a running sandbox: its memory and disk as they are now")
    .argument("[sandbox]", "sandbox id")
    .option("--sandbox-id <id>", "the same")
    .option("--name <name>", "display name, also accepted wherever an id is")
    .option("--label <key=value>", "label (repeat for more)", pair)
    .option("--node <id>", "node that shall hold a replica (repeat; default: all)", collect)
    .option("-f, --file <file>", "what its sandboxes are started with instead, as JSON")
    .option("--request-id <id>", "the same id again is answered with the same job")
    .option("--interval <seconds>", "pause between tries when there are no events", Number)
    .action(async (sandbox: string | undefined, flags: CommitFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const sandbox_id = sandbox ?? flags.sandboxId;
        if (sandbox_id === undefined) {
          throw new AppError("invalid_request", "sandbox id is required");
        }
        const body = {
          sandbox_id,
          display_name: flags.name,
          labels: labelsOf(flags.label),
          distribution_scope: flags.node,
          create_request: flags.file === undefined ? undefined : await readRequest(flags.file),
          request_id: flags.requestId,
        };
        const headers = { "idempotency-key": newKey() };
        const call = { method: "POST" as const, body, headers };
        const job = (await client.json("/v1/templates/commit", call)) as JobInfo;
        await showJob(context, client, job, flags);
      }),
    );
}

async function readRequest(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as unknown;
  } catch (cause) {
    throw new AppError("invalid_request", `${file} cannot be read as JSON`, { cause });
  }
}
