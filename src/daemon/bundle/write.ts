/** A bundle as a stream: a segment at a time, read, checked, deflated, handed on. */
import type { FileHandle } from "node:fs/promises";
import { createHash } from "node:crypto";
import {
  AppError,
  CHUNK_SIZE_BYTES,
  chunkLength,
  encodeChunkManifest,
  type BundleManifest,
  type ChunkManifest,
} from "../../domain/index.ts";
import { zlibCompressor } from "../../gossip/index.ts";
import {
  MANIFEST,
  SIGNATURE,
  SUM,
  chunksName,
  findWrongChunk,
  segmentName,
  segmentsOf,
  type Segment,
} from "./format.ts";
import { END_BYTES, paddingOf, tarHeader } from "./tar.ts";

export interface BundleContent {
  /** Open for reading; closed by whoever opened it. */
  readonly file: FileHandle;
  readonly manifest: ChunkManifest;
}

export interface BundleParts {
  readonly manifest: BundleManifest;
  readonly sign: (manifest: Uint8Array) => Promise<Uint8Array>;
  /** In the order of the manifest's files. */
  readonly contents: readonly BundleContent[];
  readonly signal?: AbortSignal;
}

/** Deflated when that saves a tenth. */
const WORTH = 0.9;

function* member(name: string, bytes: Uint8Array): Generator<Uint8Array> {
  yield tarHeader(name, bytes.length);
  yield bytes;
  const padding = paddingOf(bytes.length);
  if (padding > 0) yield Buffer.alloc(padding);
}

async function readSegment(
  { file, manifest }: BundleContent,
  segment: Segment,
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(segment.sizeBytes);
  for (const [i, index] of segment.chunks.entries()) {
    const length = chunkLength(manifest, index);
    const { bytesRead } = await file.read(
      bytes,
      i * CHUNK_SIZE_BYTES,
      length,
      index * CHUNK_SIZE_BYTES,
    );
    if (bytesRead !== length) {
      throw new AppError("artifact_corrupt", `chunk ${index} of what is exported is cut off`);
    }
  }
  const wrong = findWrongChunk(manifest, segment, bytes);
  if (wrong !== undefined) {
    throw new AppError("artifact_corrupt", `chunk ${wrong} of what is exported is damaged`);
  }
  return bytes;
}

async function* contentMembers(
  index: number,
  content: BundleContent,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  yield* member(chunksName(index), encodeChunkManifest(content.manifest));
  let number = 0;
  for (const segment of segmentsOf(content.manifest)) {
    signal?.throwIfAborted();
    const plain = await readSegment(content, segment);
    const deflated = await zlibCompressor.deflate(plain);
    const isWorth = deflated.length <= plain.length * WORTH;
    const name = segmentName(index, number++, isWorth ? "deflated" : "plain");
    yield* member(name, isWorth ? deflated : plain);
  }
}

async function* membersOf(parts: BundleParts): AsyncGenerator<Uint8Array> {
  const text = Buffer.from(`${JSON.stringify(parts.manifest, null, 2)}\n`);
  yield* member(MANIFEST, text);
  yield* member(SIGNATURE, await parts.sign(text));
  for (const [index, content] of parts.contents.entries()) {
    yield* contentMembers(index, content, parts.signal);
  }
}

/**
 * The bundle's bytes; the same for the same parts. Every chunk is checked before it goes out.
 * @throws AppError artifact_corrupt: what was sent is no whole bundle then
 */
export async function* writeBundle(parts: BundleParts): AsyncGenerator<Uint8Array> {
  const sum = createHash("sha256");
  for await (const bytes of membersOf(parts)) {
    sum.update(bytes);
    yield bytes;
  }
  yield* member(SUM, sum.digest());
  yield Buffer.alloc(END_BYTES);
}
