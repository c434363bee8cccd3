/** Recomputes the chunk manifest of an image file that lies on this disk. */
import { createHash, hash } from "node:crypto";
import { open } from "node:fs/promises";
import type { ChunkManifest } from "../../../domain/index.ts";
import {
  AppError,
  CHUNK_HASH_BYTES,
  CHUNK_SIZE_BYTES,
  chunkCount,
  encodeChunkManifest,
} from "../../../domain/core.ts";

const READ_CHUNKS = 16;
const ZERO_CHUNK = Buffer.alloc(CHUNK_SIZE_BYTES);

export interface Verified {
  readonly digest: string;
  readonly manifest: ChunkManifest;
}

/**
 * Reads the whole file once; chunks of zeros are compared, not hashed.
 * @param expected when given, every chunk is compared with it
 * @throws AppError artifact_source_missing, artifact_corrupt {chunks} naming the first that differ
 */
export async function verifyImage(
  path: string,
  expected?: ChunkManifest,
  options: { signal?: AbortSignal; onBytes?: (bytes: number) => void } = {},
): Promise<Verified> {
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new AppError("artifact_source_missing", `${path} cannot be read`, { cause });
  });
  try {
    const { size } = await file.stat();
    const shape = { sizeBytes: size, chunkSizeBytes: CHUNK_SIZE_BYTES };
    const hashes = new Uint8Array(chunkCount(shape) * CHUNK_HASH_BYTES);
    const buffer = Buffer.alloc(READ_CHUNKS * CHUNK_SIZE_BYTES);
    for (let at = 0; at < size;) {
      options.signal?.throwIfAborted();
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, size - at), at);
      if (bytesRead === 0) throw new AppError("artifact_corrupt", `${path} ends before its size`);
      // A short read in the middle of a chunk: read that chunk again from its start.
      const whole =
        at + bytesRead === size ? bytesRead : bytesRead - (bytesRead % CHUNK_SIZE_BYTES);
      hashChunks(buffer.subarray(0, whole), at / CHUNK_SIZE_BYTES, hashes);
      at += whole;
      options.onBytes?.(whole);
    }
    const manifest = { ...shape, hashes };
    if (expected !== undefined) compare(path, manifest, expected);
    const digest = createHash("sha256").update(encodeChunkManifest(manifest)).digest("hex");
    return { digest: `sha256:${digest}`, manifest };
  } finally {
    await file.close();
  }
}

function hashChunks(bytes: Buffer, first: number, hashes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += CHUNK_SIZE_BYTES) {
    const chunk = bytes.subarray(at, at + CHUNK_SIZE_BYTES);
    if (chunk.equals(ZERO_CHUNK.subarray(0, chunk.length))) continue;
    hashes.set(hash("sha256", chunk, "buffer"), (first + at / CHUNK_SIZE_BYTES) * CHUNK_HASH_BYTES);
  }
}

function compare(path: string, actual: ChunkManifest, expected: ChunkManifest): void {
  const chunks: number[] = [];
  const count = Math.max(chunkCount(actual), chunkCount(expected));
  for (let index = 0; index < count && chunks.length < 16; index++) {
    const from = index * CHUNK_HASH_BYTES;
    const one = Buffer.from(actual.hashes.subarray(from, from + CHUNK_HASH_BYTES));
    const other = expected.hashes.subarray(from, from + CHUNK_HASH_BYTES);
    if (!one.equals(other)) chunks.push(index);
  }
  if (chunks.length > 0 || actual.sizeBytes !== expected.sizeBytes) {
    throw new AppError("artifact_corrupt", `${path} differs in chunks ${chunks.join(", ")}`, {
      meta: { chunks, size_bytes: actual.sizeBytes, expected_size_bytes: expected.sizeBytes },
    });
  }
}
