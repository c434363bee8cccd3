/** `templatecenter image build|verify`: the first half of the pipeline, without a daemon. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import {
  AppError,
  chunkCount,
  decodeChunkManifest,
  encodeChunkManifest,
  isHole,
  parseSizeBytes,
  type Log,
} from "../../domain/index.ts";
import { readBakePlan } from "../bake.ts";
import { assertDiskSpace } from "../build/disk-space.ts";
import { verifyImage } from "../build/ext4/verify.ts";
import { createRootfsBuilder } from "../build/rootfs-builder.ts";
import { createImageSource } from "../build/source/source.ts";
import { hostPlatform } from "../wire-builds.ts";
import type { ProcessPorts } from "./daemon.ts";
import type { CliIo } from "./io.ts";

const SILENT: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => SILENT,
};

interface BuildOptions {
  readonly output: string;
  readonly manifest?: string;
  readonly platform?: string;
  readonly freeSpace?: string;
  readonly withCubeCa?: string;
  readonly registryUsername?: string;
  readonly registryPasswordFile?: string;
  readonly sync: boolean;
  readonly json?: boolean;
}

export function registerImage(program: Command, io: CliIo, ports: ProcessPorts): void {
  const image = program
    .command("image")
    .description("make and check root filesystems without a daemon");
  image
    .command("build <image>")
    .description("turn an image into a reproducible ext4 file")
    .requiredOption("-o, --output <file>", "the ext4 file; must not exist")
    .option("--manifest <file>", "write the chunk manifest too")
    .option("--platform <arch>", "OCI architecture (default: this host's)")
    .option("--free-space <size>", "free space beyond the default, as 2Gi")
    .option("--with-cube-ca <pem>", "bake this CubeEgress root CA")
    .option("--registry-username <name>", "registry login")
    .option("--registry-password-file <file>", "file with the registry password")
    .option("--no-sync", "do not wait until the file is on the disk")
    .option("--json", "print digest, sizes and timings as JSON")
    .addHelpText(
      "after",
      "\nIMAGE is host/name:tag, …@sha256:…, oci:DIR[:tag], oci-archive:FILE or docker-archive:FILE.",
    )
    .action((reference: string, options: BuildOptions) => build(reference, options, io, ports));
  image
    .command("verify <file>")
    .description("compute the digest of an ext4 file, and compare it with a manifest")
    .option("--manifest <file>", "the chunk manifest it should have")
    .option("--json", "print JSON")
    .action((file: string, options: { manifest?: string; json?: boolean }) =>
      verify(file, options, io),
    );
}

async function build(
  reference: string,
  options: BuildOptions,
  io: CliIo,
  { clock, random }: ProcessPorts,
): Promise<void> {
  const extra = options.freeSpace === undefined ? 0 : parseSizeBytes(options.freeSpace);
  if (extra === undefined) {
    throw new AppError("invalid_request", `--free-space ${options.freeSpace ?? ""} is no size`);
  }
  const began = clock.monotonic();
  const output = resolve(options.output);
  const source = createImageSource({ clock, random, log: SILENT });
  const builder = createRootfsBuilder({ clock });
  const bake = await readBakePlan(
    { with_cube_ca: options.withCubeCa !== undefined },
    { caFile: options.withCubeCa ?? "", envdPath: "" },
  );
  const scratchDir = await mkdtemp(join(tmpdir(), "templatecenter-image-"));
  const abort = io.interrupted;
  try {
    const image = await source.resolve(reference, {
      platform: hostPlatform(options.platform ?? process.arch),
      scratchDir,
      signal: abort,
      ...(await credentialsOf(options)),
    });
    const resolved = clock.monotonic();
    await assertDiskSpace(dirname(output), image);
    const result = await builder.build(image, output, {
      sync: options.sync,
      extraFreeBytes: extra,
      bake: bake.inputs,
      signal: abort,
      onProgress: (at) => {
        if (!io.isTty) return;
        const share = at.totalBytes === 0 ? 1 : at.downloadedBytes / at.totalBytes;
        const layers = `layer ${at.completedLayers} of ${at.totalLayers}`;
        io.err(
          `\r\u001b[2K${at.phase} ${Math.round(share * 100)} % · ${layers} · ${at.entries} entries`,
        );
      },
    });
    await image.close();
    if (io.isTty) io.err("\r\u001b[2K");
    if (options.manifest !== undefined) {
      await writeFile(resolve(options.manifest), encodeChunkManifest(result.manifest));
    }
    const chunks = chunkCount(result.manifest);
    const holes = Array.from({ length: chunks }, (_, i) => i).filter((i) =>
      isHole(result.manifest, i),
    ).length;
    const shown = {
      image: image.reference,
      image_digest: image.digest,
      output,
      digest: result.digest,
      size_bytes: result.sizeBytes,
      data_bytes: result.dataBytes,
      stored_chunks: chunks - holes,
      chunk_size_bytes: result.manifest.chunkSizeBytes,
      entries: result.entries,
      bake: result.bake,
      timings_ms: {
        resolve: Math.round(resolved - began),
        build: Math.round(clock.monotonic() - resolved),
        total: Math.round(clock.monotonic() - began),
        ...result.timings,
      },
    };
    io.out(options.json === true ? `${JSON.stringify(shown, null, 2)}\n` : asText(shown));
  } finally {
    await rm(scratchDir, { recursive: true, force: true });
  }
}

async function credentialsOf(options: BuildOptions) {
  if (options.registryUsername === undefined) return {};
  const file = options.registryPasswordFile;
  if (file === undefined) {
    throw new AppError("invalid_request", "--registry-username needs --registry-password-file");
  }
  const password = (await readFile(file, "utf8")).trimEnd();
  return { credentials: { username: options.registryUsername, password } };
}

const asText = (values: Record<string, unknown>): string =>
  Object.entries(values)
    .map(([key, value]) => {
      const text = typeof value === "string" ? value : JSON.stringify(value);
      return `${key}: ${text}\n`;
    })
    .join("");

async function verify(
  file: string,
  options: { manifest?: string; json?: boolean },
  io: CliIo,
): Promise<void> {
  const path = resolve(file);
  const manifestPath = options.manifest;
  const expected =
    manifestPath === undefined ? undefined : decodeChunkManifest(await readManifest(manifestPath));
  const { digest, manifest } = await verifyImage(path, expected, { signal: io.interrupted });
  const shown = {
    file: path,
    folder: dirname(path),
    digest,
    size_bytes: manifest.sizeBytes,
    matches_manifest: expected === undefined ? "not asked" : "yes",
  };
  io.out(options.json === true ? `${JSON.stringify(shown, null, 2)}\n` : asText(shown));
}

async function readManifest(path: string): Promise<Uint8Array> {
  return readFile(path).catch((cause: unknown) => {
    throw new AppError("artifact_source_missing", `the manifest ${path} cannot be read`, { cause });
  });
}
