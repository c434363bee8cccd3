/** Recomputing the chunks of an artifact, a block at a time: memory stays bounded. */
import { hash } from "node:crypto";
import { open } from "node:fs/promises";
import { chunkCount, chunkHash, isHole, type ChunkManifest } from "../domain/index.ts";

const BLOCK_BYTES = 1024 * 1024;

/**
 * The indexes of the chunks of the file that differ from the manifest. A chunk of zeros is never
 * hashed: it is right when the manifest says hole, and wrong otherwise.
 */
export async function findCorruptChunks(
  path: string,
  manifest: ChunkManifest,
  options: { signal?: AbortSignal; pace?: (bytes: number) => Promise<void> } = {},
): Promise<readonly number[]> {
  const { chunkSizeBytes, sizeBytes } = manifest;
  const perBlock = Math.max(1, Math.floor(BLOCK_BYTES / chunkSizeBytes));
  const block = Buffer.allocUnsafe(perBlock * chunkSizeBytes);
  const zeros = Buffer.alloc(chunkSizeBytes);
  const corrupt: number[] = [];
  const count = chunkCount(manifest);
  const file = await open(path, "r");
  try {
    for (let first = 0; first < count; first += perBlock) {
      options.signal?.throwIfAborted();
      const start = first * chunkSizeBytes;
      const wanted = Math.min(block.length, sizeBytes - start);
      await options.pace?.(wanted);
      const { bytesRead } = await file.read(block, 0, wanted, start);
      for (let index = first; index < Math.min(first + perBlock, count); index++) {
        const from = (index - first) * chunkSizeBytes;
        const length = Math.min(chunkSizeBytes, sizeBytes - index * chunkSizeBytes);
        const chunk = block.subarray(from, from + length);
        const whole = from + length <= bytesRead;
        if (!whole || !matches(chunk, zeros, manifest, index)) corrupt.push(index);
      }
    }
  } finally {
    await file.close();
  }
  return corrupt;
}

function matches(chunk: Buffer, zeros: Buffer, manifest: ChunkManifest, index: number): boolean {
  const empty = chunk.equals(zeros.subarray(0, chunk.length));
  if (empty || isHole(manifest, index)) return empty && isHole(manifest, index);
  return hash("sha256", chunk, "buffer").equals(chunkHash(manifest, index));
}
