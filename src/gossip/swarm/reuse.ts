/** Chunks that lie here already, in other artifacts or in a damaged copy of this one. */
import { hash } from "node:crypto";
import {
  chunkCount,
  chunkHash,
  chunkLength,
  errorText,
  type ChunkManifest,
  type Log,
  type PartialArtifact,
} from "../../domain/index.ts";
import type { SwarmStore } from "./store.ts";

/** Artifacts looked through, newest first: each costs the reading of its manifest. */
const ARTIFACTS_MAX = 256;
const BATCH_CHUNKS = 16;

export const hashKey = (manifest: ChunkManifest, index: number): string =>
  String.fromCharCode(...chunkHash(manifest, index));

/** Hash → the chunks that lack, of which several may be equal. */
export function lackingByHash(partial: PartialArtifact): Map<string, number[]> {
  const lacking = new Map<string, number[]>();
  for (let i = 0; i < partial.have.length; i++) {
    if (partial.have.has(i)) continue;
    const key = hashKey(partial.manifest, i);
    const same = lacking.get(key);
    if (same === undefined) lacking.set(key, [i]);
    else same.push(i);
  }
  return lacking;
}

/**
 * Copies what is found, each chunk verified; `lacking` shrinks by it. What does not read is left
 * for the network. Only the hashes of this one artifact are kept in memory.
 */
export async function reuseChunks(options: {
  readonly store: SwarmStore;
  readonly partial: PartialArtifact;
  readonly lacking: Map<string, number[]>;
  readonly put: (index: number, bytes: Uint8Array) => Promise<void>;
  readonly signal: AbortSignal;
  readonly log: Log;
}): Promise<void> {
  const { store, partial, lacking, signal, log } = options;
  const digests = store
    .inventory()
    .map(({ artifact }) => artifact)
    .sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1))
    .map(({ digest }) => digest);
  // A damaged copy of the same bytes is the best source of those that are not damaged.
  const ordered = [...new Set([partial.digest, ...digests])].slice(0, ARTIFACTS_MAX);
  for (const digest of ordered) {
    if (lacking.size === 0) return;
    if (store.findDigest(digest) === undefined) continue;
    signal.throwIfAborted();
    try {
      await copyFrom({ ...options, digest, other: await store.manifest(digest) });
    } catch (error) {
      signal.throwIfAborted();
      log.debug("an artifact cannot be used for its chunks", { digest, reason: errorText(error) });
    }
  }
}

async function copyFrom(options: {
  readonly store: SwarmStore;
  readonly partial: PartialArtifact;
  readonly lacking: Map<string, number[]>;
  readonly put: (index: number, bytes: Uint8Array) => Promise<void>;
  readonly signal: AbortSignal;
  readonly digest: string;
  readonly other: ChunkManifest;
}): Promise<void> {
  const { store, partial, lacking, put, signal, digest, other } = options;
  if (other.chunkSizeBytes !== partial.manifest.chunkSizeBytes) return;
  const found: { from: number; to: number[] }[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < chunkCount(other); i++) {
    const key = hashKey(other, i);
    const to = lacking.get(key);
    if (to === undefined || seen.has(key)) continue;
    seen.add(key);
    found.push({ from: i, to: [...to] });
  }
  for (let at = 0; at < found.length; at += BATCH_CHUNKS) {
    signal.throwIfAborted();
    const batch = found.slice(at, at + BATCH_CHUNKS);
    const chunks = await store.readChunks(
      digest,
      batch.map(({ from }) => from),
    );
    for (const [n, chunk] of chunks.entries()) {
      const first = batch[n]?.to[0];
      if (first === undefined || chunk.length !== chunkLength(partial.manifest, first)) continue;
      if (!matchesHash(partial.manifest, first, chunk)) continue;
      await put(first, chunk);
    }
  }
}

export const matchesHash = (manifest: ChunkManifest, index: number, chunk: Uint8Array): boolean =>
  hash("sha256", chunk, "buffer").equals(chunkHash(manifest, index));
