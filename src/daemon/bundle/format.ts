/** Names of a bundle's members and how its data is cut: what writer and reader must agree about. */
import { createHash } from "node:crypto";
import {
  CHUNK_SIZE_BYTES,
  chunkCount,
  chunkHash,
  chunkLength,
  isHole,
  type ChunkManifest,
} from "../../domain/index.ts";

export const MANIFEST = "manifest.json";
export const SIGNATURE = "manifest.sig";
/** Ed25519. */
export const SIGNATURE_BYTES = 64;
/** SHA-256 of every byte before this member: damage where nothing else would show it. */
export const SUM = "bundle.sha256";
export const SUM_BYTES = 32;

/** Chunks of one segment: 2 MiB that are deflated, inflated and held as a whole. */
const SEGMENT_CHUNKS = 32;

export const chunksName = (file: number): string => `files/${file}/chunks`;
export const segmentName = (file: number, segment: number, how: "deflated" | "plain"): string =>
  `files/${file}/${segment}.${how}`;

/** A run of chunks that are no holes, one after the other in the file or not. */
export interface Segment {
  readonly chunks: readonly number[];
  readonly sizeBytes: number;
}

/** The chunks that are in the bundle, in order; holes are not. */
export function* segmentsOf(manifest: ChunkManifest): Generator<Segment> {
  let chunks: number[] = [];
  let sizeBytes = 0;
  for (let index = 0; index < chunkCount(manifest); index++) {
    if (isHole(manifest, index)) continue;
    chunks.push(index);
    sizeBytes += chunkLength(manifest, index);
    if (chunks.length < SEGMENT_CHUNKS) continue;
    yield { chunks, sizeBytes };
    chunks = [];
    sizeBytes = 0;
  }
  if (chunks.length > 0) yield { chunks, sizeBytes };
}

export function storedBytes(manifest: ChunkManifest): number {
  let bytes = 0;
  for (const segment of segmentsOf(manifest)) bytes += segment.sizeBytes;
  return bytes;
}

/** Where each chunk of a segment's bytes begins, with the run of file bytes that it belongs to. */
export function* runsOf(
  { chunks, sizeBytes }: Segment,
  bytes: Uint8Array,
): Generator<{ position: number; bytes: Uint8Array }> {
  let first = 0;
  for (let i = 1; i <= chunks.length; i++) {
    if (i < chunks.length && chunks[i] === (chunks[i - 1] ?? 0) + 1) continue;
    const from = first * CHUNK_SIZE_BYTES;
    const to = Math.min(i * CHUNK_SIZE_BYTES, sizeBytes);
    yield {
      position: (chunks[first] ?? 0) * CHUNK_SIZE_BYTES,
      bytes: bytes.subarray(from, to),
    };
    first = i;
  }
}

/** The first chunk of the segment's bytes that is not what the manifest says. */
export function findWrongChunk(
  manifest: ChunkManifest,
  segment: Segment,
  bytes: Uint8Array,
): number | undefined {
  return segment.chunks.find((index, i) => {
    const chunk = bytes.subarray(i * CHUNK_SIZE_BYTES, (i + 1) * CHUNK_SIZE_BYTES);
    return !createHash("sha256").update(chunk).digest().equals(chunkHash(manifest, index));
  });
}

export const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();
