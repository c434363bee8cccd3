/** `tpl export`, `snapshot export` and `import`: templates and snapshots as files. */
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import { AppError, type Imported } from "../../domain/index.ts";
import { collect, followJob, requireReady, withJson, type CliContext } from "./context.ts";
import { json, lines } from "./table.ts";
import { withWait } from "./template-args.ts";

const EXAMPLES = `
Examples:
  templatecenter tpl export web -o web.bundle
  templatecenter import web.bundle --trust 12D3KooWSPxQHe7ExzqzNNaaFBeRAPdCPADExbWjC3ZaYdwHMd1z
  templatecenter tpl export web -o - | ssh other templatecenter import - --new-id
`;
const BUNDLE_TYPE = "application/x-tar";
const STANDARD = "-";

/** Under its name only when it is whole: half a bundle must not pass for one. */
async function writeFileWhole(body: Readable, file: string): Promise<void> {
  const partial = `${file}.part`;
  try {
    await pipeline(body, createWriteStream(partial, { flags: "wx" }));
    const written = await open(partial, "r+");
    await written.sync().finally(() => written.close());
    await rename(partial, file);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "EEXIST") await rm(partial, { force: true });
    throw error;
  }
}

/** `export` of a group whose things are at `/v1/<resource>`. */
export function registerExport(
  group: Command,
  context: CliContext,
  what: { readonly name: string; readonly resource: "templates" | "snapshots" },
): void {
  group
    .command("export")
    .description(`write a ${what.name} to one signed file, for \`import\` elsewhere`)
    .argument(`<${what.name}>`, what.resource === "templates" ? "template id or name" : "id")
    .requiredOption("-o, --output <file>", "the file, or - for standard output")
    .action(async (id: string, flags: { output: string }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/${what.resource}/${encodeURIComponent(id)}/export`;
        const signal = context.io.interrupted;
        // A snapshot's memory is hashed before the first byte.
        const answer = await client.open(path, { signal, silenceMs: 0 });
        if (flags.output === STANDARD) {
          for await (const bytes of answer.body) await context.io.write(bytes as Uint8Array);
          return;
        }
        await writeFileWhole(answer.body, flags.output);
        context.io.out(`${flags.output}\n`);
      }),
    );
}

interface ImportFlags {
  id?: string;
  newId?: true;
  name?: string;
  node?: string[];
  trust?: string[];
  wait?: true;
  detach?: true;
  json?: boolean;
}

async function openInput(context: CliContext, file: string): Promise<Readable> {
  if (file === STANDARD) return Readable.from(context.io.stdin());
  const stream = createReadStream(file);
  try {
    await once(stream, "open");
  } catch (cause) {
    throw new AppError("invalid_request", `${file} cannot be read`, { cause });
  }
  return stream;
}

const importedText = (done: Imported): string =>
  lines([
    ["template_id", done.template_id],
    ["kind", done.kind],
    ["outcome", done.outcome],
    ["artifact_id", done.artifact_id],
    ["job_id", done.job_id],
    ["signed_by", `${done.signed_by.key} (${done.signed_by.node_id})`],
  ]);

export function registerImport(program: Command, context: CliContext): void {
  withWait(withJson(program.command("import")))
    .description("take in a template or snapshot that was exported, after verifying all of it")
    .argument("<file>", "the bundle, or - for standard input")
    .option("--id <id>", "take it in under this id instead of its own")
    .option("--new-id", "take it in under a new id")
    .option("--name <name>", "display name")
    .option("--node <node>", "only these nodes may hold the template (repeat)", collect)
    .option("--trust <key>", "trust this signer besides the members of the cluster", collect)
    .addHelpText("beforeAll", EXAMPLES)
    .action(async (file: string, flags: ImportFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const stream = await openInput(context, file);
        const done = (await client.json("/v1/import", {
          method: "POST",
          query: {
            template_id: flags.id,
            new_id: flags.newId,
            display_name: flags.name,
            distribution_scope: flags.node?.join(","),
            trust: flags.trust?.join(","),
          },
          stream,
          headers: { "content-type": BUNDLE_TYPE },
          signal: context.io.interrupted,
          silenceMs: 0,
        })) as Imported;
        const isWaiting = flags.detach !== true && (flags.wait === true || context.io.isTty);
        if (done.outcome === "accepted" && isWaiting) {
          const quiet = flags.json === true;
          requireReady(await followJob(context, client, done.job_id, { quiet }));
        }
        context.io.out(flags.json === true ? json(done) : importedText(done));
      }),
    );
}
