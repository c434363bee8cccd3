/** Images in an OCI image layout, in a folder or an archive. */
import { z } from "zod";
import { AppError } from "../../../domain/index.ts";
import type { LayerDescriptor, Platform } from "../../../domain/index.ts";
import { MAGIC_BYTES, sniffCompression } from "./compression.ts";
import { digestHex, verifyStream } from "./digest.ts";
import type { FileSet } from "./file-set.ts";
import { readChild, readImage } from "./image.ts";
import type { Documents, ImageContent } from "./image.ts";
import { parseDocument, parseJson, parseManifest, refused } from "./manifest.ts";
import type { Descriptor } from "./manifest.ts";
import { choosePlatform } from "./platform.ts";

const REF_NAME = "org.opencontainers.image.ref.name";
/** The full name, as containerd writes it beside the short one. */
const FULL_NAME = "io.containerd.image.name";
const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";

const layoutSchema = z.object({ imageLayoutVersion: z.string() });

const blobPath = (digest: string): string => `blobs/sha256/${digestHex(digest)}`;

/**
 * The image that `tag` names, or the only one when there is no tag.
 * @throws AppError image_not_found, invalid_image_reference, image_platform_missing, image_refused,
 *   image_digest_mismatch
 */
export async function readLayout(
  files: FileSet,
  tag: string | undefined,
  platform: Platform,
): Promise<ImageContent> {
  const marker = parseJson(await (await files.find("oci-layout")).read(), "oci-layout");
  const { imageLayoutVersion } = parseDocument(layoutSchema, marker, "oci-layout");
  if (!/^1\./.test(imageLayoutVersion)) {
    throw refused("layout_version", "the image layout is of a version that is not known");
  }
  const index = parseManifest(await (await files.find("index.json")).read(), INDEX_TYPE);
  if (index.kind !== "index") throw refused("invalid_index", "index.json is not an index");
  const documents: Documents = {
    readManifest: async ({ digest, mediaType }) => ({
      bytes: await (await files.find(blobPath(digest))).read(),
      mediaType,
    }),
    readConfig: async ({ digest }) => await (await files.find(blobPath(digest))).read(),
  };
  const candidates = selectByTag(index.manifests, tag);
  const [only] = candidates;
  const chosen =
    candidates.length === 1 && only !== undefined ? only : choosePlatform(candidates, platform);
  const content = await readImage(await readChild(chosen, documents), documents, platform);
  return { ...content, layers: await Promise.all(content.layers.map(correct(files))) };
}

/** A layer's blob, verified while it is read. */
export async function* openLayoutLayer(
  files: FileSet,
  layer: LayerDescriptor,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const file = await files.find(blobPath(layer.digest));
  yield* verifyStream(file.stream(signal), layer);
}

const namesOf = ({ annotations }: Descriptor): string[] =>
  [annotations?.[REF_NAME], annotations?.[FULL_NAME]].filter((name) => name !== undefined);

/** Several with one name are the same image for several platforms. */
function selectByTag(
  manifests: readonly Descriptor[],
  tag: string | undefined,
): readonly Descriptor[] {
  const available = [...new Set(manifests.flatMap(namesOf))].slice(0, 50);
  if (tag !== undefined) {
    const named = manifests.filter((descriptor) => namesOf(descriptor).includes(tag));
    if (named.length > 0) return named;
    const message = `the image layout has no image of that name; there is ${list(available)}`;
    throw new AppError("image_not_found", message, { meta: { available } });
  }
  if (manifests.length === 0) throw new AppError("image_not_found", "the image layout is empty");
  const shortNames = new Set(manifests.map(({ annotations }) => annotations?.[REF_NAME]));
  if (shortNames.size > 1) throw severalImages("the image layout", available);
  return manifests;
}

const list = (names: readonly string[]): string =>
  names.length === 0 ? "no named one" : names.join(", ");

export const severalImages = (what: string, available: readonly string[]): AppError => {
  const detail = `${what} holds several images; name one of: ${list(available)}`;
  return new AppError("invalid_image_reference", detail, {
    meta: { available, errors: [{ pointer: "/source_image_ref", detail }] },
  });
};

const correct =
  (files: FileSet) =>
  async (layer: LayerDescriptor): Promise<LayerDescriptor> => {
    const file = await files.find(blobPath(layer.digest));
    const compression = sniffCompression(await file.start(MAGIC_BYTES)) ?? layer.compression;
    return { ...layer, compression };
  };
