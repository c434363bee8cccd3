/**
 * Images as `docker save` and `skopeo copy … docker-archive:` write them.
 *
 * Such an archive has no manifest with a digest: what it calls its manifest holds paths. The digest
 * of the image is therefore that of its config blob, the "image id" that docker shows. The config
 * lists the digests of all uncompressed layers, so it names exactly one content; it is the same
 * whatever the file is called, whoever wrote it, and however its layers are stored or compressed.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { AppError, isAppError } from "../../../domain/index.ts";
import type { LayerDescriptor, Platform } from "../../../domain/index.ts";
import type { ArchiveFiles } from "./archive.ts";
import { MAGIC_BYTES, sniffCompression } from "./compression.ts";
import { digestOf, isDigest, verifyStream, wrongDigest } from "./digest.ts";
import type { ImageFile } from "./file-set.ts";
import type { ImageContent } from "./image.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { joinLayers, parseConfig, parseDocument, parseJson, refused } from "./manifest.ts";
import { severalImages } from "./oci-layout.ts";
import { normalizedReference, parseReference } from "./reference.ts";

const manifestSchema = z
  .array(
    z.object({
      Config: z.string().min(1),
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(z.string().min(1)).max(SOURCE_LIMITS.layers).nullish(),
    }),
  )
  .max(10_000);
type Entry = z.output<typeof manifestSchema>[number];

const MEDIA_TYPES = {
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  none: "application/vnd.oci.image.layer.v1.tar",
} as const;

export interface DockerImage extends ImageContent {
  readonly files: readonly ImageFile[];
}

/**
 * @param select a reference among the archive's `RepoTags`, or `@<index>`
 * @throws AppError image_not_found, invalid_image_reference (several images), image_refused,
 *   image_platform_missing, image_digest_mismatch
 */
export async function readDockerArchive(
  archive: ArchiveFiles,
  select: string | undefined,
  platform: Platform,
  signal?: AbortSignal,
): Promise<DockerImage> {
  if (!archive.has("manifest.json")) {
    throw refused("invalid_archive", "the archive holds no manifest.json: it is no docker archive");
  }
  const bytes = await (await archive.find("manifest.json")).read();
  const entries = parseDocument(manifestSchema, parseJson(bytes, "manifest"), "manifest");
  const entry = selectEntry(entries, select);
  const configBytes = await (await archive.find(entry.Config)).read();
  const digest = digestOf(configBytes);
  const named = /([0-9a-f]{64})(?:\.json)?$/.exec(entry.Config)?.[1];
  if (named !== undefined && `sha256:${named}` !== digest) {
    throw wrongDigest(`sha256:${named}`, digest);
  }
  const { config, diffIds } = parseConfig(configBytes, platform);
  const paths = entry.Layers ?? [];
  const files = await Promise.all(paths.map(async (path) => await archive.find(path)));
  const descriptors: { mediaType: string; digest: string; size: number }[] = [];
  for (const [index, file] of files.entries()) {
    const kind = sniffCompression(await file.start(MAGIC_BYTES)) ?? "none";
    const diffId = diffIds[index] ?? "";
    const known = kind === "none" ? diffId : digestInPath(paths[index] ?? "");
    descriptors.push({
      mediaType: MEDIA_TYPES[kind],
      digest: known ?? (await hashFile(file, signal)),
      size: file.sizeBytes,
    });
  }
  const layers = joinLayers(
    descriptors.map((descriptor) => ({ ...descriptor, platform: undefined })),
    diffIds,
  );
  return { digest, config, layers, files };
}

/** A layer as it is stored, verified: an uncompressed one against its diff id. */
export function openDockerLayer(
  file: ImageFile,
  layer: LayerDescriptor,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  return verifyStream(file.stream(signal), layer);
}

/** Archives of docker with the containerd store name compressed blobs by their digest. */
function digestInPath(path: string): string | undefined {
  const digest = `sha256:${/(?:^|\/)blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1] ?? ""}`;
  return isDigest(digest) ? digest : undefined;
}

/** For a compressed layer whose digest nothing names; its content is checked by its diff id. */
async function hashFile(file: ImageFile, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash("sha256");
  for await (const bytes of file.stream(signal)) hash.update(bytes);
  return `sha256:${hash.digest("hex")}`;
}

function selectEntry(entries: readonly Entry[], select: string | undefined): Entry {
  const available = entries.flatMap(({ RepoTags }) => RepoTags ?? []).slice(0, 50);
  const [only, ...others] = entries;
  if (select === undefined && only !== undefined) {
    if (others.length > 0) throw severalImages("the docker archive", available);
    return only;
  }
  const position = /^@(\d{1,5})$/.exec(select ?? "")?.[1];
  const found =
    position === undefined
      ? entries.find(({ RepoTags }) =>
          (RepoTags ?? []).some((tag) => isSameName(tag, select ?? "")),
        )
      : entries[Number(position)];
  if (found !== undefined) return found;
  const there = available.length === 0 ? "no named one" : available.join(", ");
  throw new AppError("image_not_found", `the docker archive has no such image; there is ${there}`, {
    meta: { available },
  });
}

/** `busybox`, `busybox:latest` and `docker.io/library/busybox:latest` are one name. */
function isSameName(left: string, right: string): boolean {
  return left === right || canonical(left) === canonical(right);
}

function canonical(text: string): string {
  try {
    return normalizedReference(parseReference(text));
  } catch (error) {
    if (isAppError(error, "invalid_image_reference")) return text;
    throw error;
  }
}
