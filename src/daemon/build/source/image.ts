/** From a first document to a platform's manifest and config, whatever they are read from. */
import type { ImageConfig, LayerDescriptor, Platform } from "../../../domain/index.ts";
import { digestOf, verifyBytes } from "./digest.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { joinLayers, parseConfig, parseManifest, refused } from "./manifest.ts";
import type { Descriptor } from "./manifest.ts";
import { choosePlatform } from "./platform.ts";

export interface Document {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
}

/** Where documents come from; what they answer is verified here, not there. */
export interface Documents {
  readManifest(descriptor: Descriptor): Promise<Document>;
  readConfig(descriptor: Descriptor): Promise<Uint8Array>;
}

export interface ImageContent {
  readonly digest: string;
  readonly config: ImageConfig;
  readonly layers: readonly LayerDescriptor[];
}

/**
 * Follows indexes to the manifest for the platform, and reads its config. Every document below the
 * first is checked against its descriptor; the first has to be checked by the caller.
 * @throws AppError image_refused, image_platform_missing, image_digest_mismatch
 */
export async function readImage(
  first: Document,
  documents: Documents,
  platform: Platform,
): Promise<ImageContent> {
  let document = first;
  for (let depth = 0; depth <= SOURCE_LIMITS.indexDepth; depth += 1) {
    const parsed = parseManifest(document.bytes, document.mediaType);
    if (parsed.kind === "manifest") {
      checkSize(parsed.config);
      const configBytes = await documents.readConfig(parsed.config);
      verifyBytes(configBytes, { digest: parsed.config.digest, sizeBytes: parsed.config.size });
      const { config, diffIds } = parseConfig(configBytes, platform);
      const layers = joinLayers(parsed.layers, diffIds);
      return { digest: digestOf(document.bytes), config, layers };
    }
    document = await readChild(choosePlatform(parsed.manifests, platform), documents);
  }
  throw refused("index_too_deep", "the image's indexes are nested too deeply");
}

/** One document named by a descriptor, verified. */
export async function readChild(chosen: Descriptor, documents: Documents): Promise<Document> {
  checkSize(chosen);
  const document = await documents.readManifest(chosen);
  verifyBytes(document.bytes, { digest: chosen.digest, sizeBytes: chosen.size });
  return { bytes: document.bytes, mediaType: chosen.mediaType || document.mediaType };
}

export function checkSize(descriptor: Descriptor): void {
  if (descriptor.size <= SOURCE_LIMITS.documentBytes) return;
  throw documentTooLarge(descriptor.digest);
}

export const documentTooLarge = (what: string): Error =>
  refused("document_too_large", `${what} is larger than ${SOURCE_LIMITS.documentBytes} bytes`);
