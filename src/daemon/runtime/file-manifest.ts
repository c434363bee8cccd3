/** The chunk manifest of a file as it is: what the swarm needs to bring it to other hosts. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import {
  CHUNK_HASH_BYTES,
  CHUNK_SIZE_BYTES,
  chunkCount,
  encodeChunkManifest,
  type ChunkManifest,
} from "../../domain/index.ts";

/** Chunks read at once. */
const READ_CHUNKS = 32;
const ZEROS = Buffer.alloc(CHUNK_SIZE_BYTES);

/** @returns the manifest, and `sha256:<hex>` of its encoding */
export async function readManifest(
  path: string,
  signal?: AbortSignal,
): Promise<{ manifest: ChunkManifest; digest: string }> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const shape = { sizeBytes: size, chunkSizeBytes: CHUNK_SIZE_BYTES };
    const hashes = new Uint8Array(chunkCount(shape) * CHUNK_HASH_BYTES);
    const buffer = Buffer.alloc(READ_CHUNKS * CHUNK_SIZE_BYTES);
    for (let from = 0; from < size; from += buffer.length) {
      signal?.throwIfAborted();
      const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
      if (bytesRead < Math.min(buffer.length, size - from)) throw new Error(`${path} got shorter`);
      for (let at = 0; at < bytesRead; at += CHUNK_SIZE_BYTES) {
        const chunk = buffer.subarray(at, Math.min(at + CHUNK_SIZE_BYTES, bytesRead));
        if (chunk.equals(ZEROS.subarray(0, chunk.length))) continue;
        const index = (from + at) / CHUNK_SIZE_BYTES;
        hashes.set(createHash("sha256").update(chunk).digest(), index * CHUNK_HASH_BYTES);
      }
    }
    const manifest = { ...shape, hashes };
    const digest = createHash("sha256").update(encodeChunkManifest(manifest)).digest("hex");
    return { manifest, digest: `sha256:${digest}` };
  } finally {
    await file.close();
  }
}
