import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import { AppError, type ArtifactInfo, type Page } from "../../domain/index.ts";
import { registerUndelete } from "./gc.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, lines, sizeText, table } from "./table.ts";

const path = (id: string, rest = ""): string => `/v1/artifacts/${encodeURIComponent(id)}${rest}`;

const EXAMPLES = `
Examples:
  templatecenter artifact list
  templatecenter artifact download rfs-0123456789abcdef01234567 --output root.ext4
`;

/** `artifact`: list, info, download, undelete. */
export function registerArtifact(program: Command, context: CliContext): void {
  const { io } = context;
  const group = program
    .command("artifact")
    .description("look at root filesystem artifacts and fetch them")
    .addHelpText("beforeAll", EXAMPLES);
  withJson(group.command("list").alias("ls"))
    .description("list artifacts")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const page = (await client.json("/v1/artifacts")) as Page<ArtifactInfo>;
        io.out(flags.json === true ? json(page) : artifactTable(page.items));
      }),
    );
  withJson(group.command("info"))
    .description("show one artifact")
    .argument("<artifact>", "artifact id")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const one = (await client.json(path(id))) as ArtifactInfo;
        io.out(flags.json === true ? json(one) : artifactText(one));
      }),
    );
  registerDownload(group, context);
  registerUndelete(group, context);
}

const artifactTable = (items: readonly ArtifactInfo[]): string =>
  table(
    ["ARTIFACT_ID", "STATUS", "SIZE", "DIGEST", "IMAGE", "CREATED_AT"],
    items.map((one) => [
      one.artifact_id,
      one.status,
      sizeText(one.ext4_size_bytes),
      one.digest,
      one.source_image_ref,
      one.created_at,
    ]),
  );

const artifactText = (one: ArtifactInfo): string =>
  lines([
    ["artifact_id", one.artifact_id],
    ["status", one.status],
    ["digest", one.digest],
    ["ext4_size_bytes", one.ext4_size_bytes],
    ["data_bytes", one.data_bytes],
    ["entries", one.entries],
    ["source_image_ref", one.source_image_ref],
    ["source_image_digest", one.source_image_digest],
    ["template_spec_fingerprint", one.template_spec_fingerprint],
    ["writable_layer_size", one.writable_layer_size],
    ["holders", one.holders.join(", ")],
    ["last_error", one.last_error],
    ["created_at", one.created_at],
  ]);

function registerDownload(group: Command, context: CliContext): void {
  group
    .command("download")
    .description("fetch an artifact's ext4 file")
    .argument("<artifact>", "artifact id")
    .requiredOption("--output <file>", "where to put it; must not be there yet")
    .option("--artifact-token <token>", "download token; not needed over the local socket")
    .action(async (id: string, flags: { output: string; artifactToken?: string }, command) =>
      context.withClient(command as Command, async (client) => {
        const token = flags.artifactToken;
        const headers = token === undefined ? undefined : { "x-cube-artifact-token": token };
        const answer = await client.open(path(id, "/content"), { headers });
        const expected = Number(answer.headers["content-length"]);
        // Under its name only when it is whole: a half file must not pass for the artifact.
        const partial = `${flags.output}.part`;
        try {
          const file = createWriteStream(partial, { flags: "wx" });
          await pipeline(answer.body, file);
          if (file.bytesWritten !== expected) {
            const got = `${file.bytesWritten} of ${expected} bytes`;
            throw new AppError("artifact_corrupt", `artifact ${id} came short: ${got}`);
          }
          await rename(partial, flags.output);
        } catch (error) {
          const code = error instanceof Error && "code" in error ? error.code : undefined;
          if (code !== "EEXIST") await rm(partial, { force: true });
          throw error;
        }
        context.io.out(`${flags.output}\n`);
      }),
    );
}
