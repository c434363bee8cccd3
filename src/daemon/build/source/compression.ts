import type { LayerDescriptor } from "../../../domain/index.ts";

/** Bytes needed to tell the compression of a layer. */
export const MAGIC_BYTES = 4;

/**
 * What the bytes say, whatever the media type says: images in the wild carry plain tars labelled
 * gzip and the other way round. Undefined when there are too few bytes to tell.
 */
export function sniffCompression(start: Uint8Array): LayerDescriptor["compression"] | undefined {
  if (start.length < MAGIC_BYTES) return undefined;
  const [a = 0, b = 0, c = 0, d = 0] = start;
  if (a === 0x1f && b === 0x8b) return "gzip";
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return "zstd";
  // A skippable frame may come first, as zstd:chunked and pzstd write them.
  if ((a & 0xf0) === 0x50 && b === 0x2a && c === 0x4d && d === 0x18) return "zstd";
  return "none";
}
