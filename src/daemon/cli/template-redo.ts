/** `tpl redo`: replicas made anew. */
import type { Command } from "commander";
import type { JobInfo, RedoRequest } from "../../domain/index.ts";
import { collect, type CliContext } from "./context.ts";
import { registryPassword } from "./create-options.ts";
import {
  idOf,
  newKey,
  showJob,
  templatePath,
  withId,
  withWait,
  type WaitFlags,
} from "./template-args.ts";

interface RedoFlags extends WaitFlags {
  readonly templateId?: string;
  readonly node?: string[];
  readonly failedOnly?: boolean;
  readonly memoryOnly?: boolean;
  readonly registryUsername?: string;
  readonly registryPassword?: string;
  readonly registryPasswordStdin?: boolean;
  readonly registryPasswordFile?: string;
}

export function registerRedo(group: Command, context: CliContext): void {
  withWait(withId(group.command("redo")))
    .description("make a template's replicas anew; what is there serves until they are ready")
    .option("--node <node>", "only on this node, by id or address (repeat)", collect)
    .option("--failed-only", "only where the replica has failed")
    .option("--memory-only", "keep the root filesystem: fail rather than build it again")
    .option("--registry-username <name>", "when the image has to be pulled again")
    .option("--registry-password <password>", "seen by others on this host: rather use the next")
    .option("--registry-password-stdin", "read it from standard input")
    .option("--registry-password-file <file>", "read it from a file")
    .option("--interval <seconds>", "pause between tries when there are no events", Number)
    .action(async (id: string | undefined, flags: RedoFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const password = await registryPassword(context.io, flags);
        const body: RedoRequest = {
          ...(flags.node === undefined ? {} : { distribution_scope: flags.node }),
          ...(flags.failedOnly === true ? { failed_only: true } : {}),
          ...(flags.memoryOnly === true ? { memory_only: true } : {}),
          ...(flags.registryUsername === undefined
            ? {}
            : { registry_username: flags.registryUsername }),
          ...(password === undefined ? {} : { registry_password: password }),
        };
        const headers = { "idempotency-key": newKey() };
        const call = { method: "POST" as const, body, headers };
        const job = await client.json(templatePath(idOf(id, flags), "/redo"), call);
        await showJob(context, client, job as JobInfo, flags);
      }),
    );
}
