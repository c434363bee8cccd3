/**
 * The chunk manifest of an artifact: the SHA-256 of each fixed-size chunk of the file, in order. A
 * chunk of zeros is a hole: its hash is never computed, it is written as 32 zero bytes and never
 * transferred. The artifact's digest is the SHA-256 of the encoded manifest, so it can be computed
 * while the file is written in any order, each chunk can be verified alone, and no zero is ever
 * hashed.
 *
 * Encoding (little-endian): 8 bytes magic `TCCHUNK1`, u32 chunk size, u32 zero, u64 file size, then
 * ceil(size / chunk size) hashes of 32 bytes.
 */
export const CHUNK_SIZE_BYTES = 65_536;
export const CHUNK_HASH_BYTES = 32;
const HEADER_BYTES = 24;
const MAGIC = "TCCHUNK1";

export interface ChunkManifest {
  readonly sizeBytes: number;
  readonly chunkSizeBytes: number;
  /** 32 bytes per chunk; all zero for a hole. */
  readonly hashes: Uint8Array;
}

export const chunkCount = (manifest: { sizeBytes: number; chunkSizeBytes: number }): number =>
  Math.ceil(manifest.sizeBytes / manifest.chunkSizeBytes);

export const chunkHash = (manifest: ChunkManifest, index: number): Uint8Array =>
  manifest.hashes.subarray(index * CHUNK_HASH_BYTES, (index + 1) * CHUNK_HASH_BYTES);

export const isHole = (manifest: ChunkManifest, index: number): boolean =>
  chunkHash(manifest, index).every((byte) => byte === 0);

export function encodeChunkManifest(manifest: ChunkManifest): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + manifest.hashes.length);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < MAGIC.length; i++) bytes[i] = MAGIC.charCodeAt(i);
  view.setUint32(8, manifest.chunkSizeBytes, true);
  view.setBigUint64(16, BigInt(manifest.sizeBytes), true);
  bytes.set(manifest.hashes, HEADER_BYTES);
  return bytes;
}

/** @throws RangeError when the bytes are not an encoded manifest. */
export function decodeChunkManifest(bytes: Uint8Array): ChunkManifest {
  const magic = String.fromCharCode(...bytes.subarray(0, MAGIC.length));
  if (bytes.length < HEADER_BYTES || magic !== MAGIC) {
    throw new RangeError("not a chunk manifest");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunkSizeBytes = view.getUint32(8, true);
  const sizeBytes = Number(view.getBigUint64(16, true));
  const manifest = {
    sizeBytes,
    chunkSizeBytes,
    hashes: Uint8Array.prototype.slice.call(bytes, HEADER_BYTES),
  };
  const expected = chunkSizeBytes > 0 ? chunkCount(manifest) * CHUNK_HASH_BYTES : -1;
  if (manifest.hashes.length !== expected) {
    throw new RangeError("chunk manifest has the wrong length");
  }
  return manifest;
}

/** Share of the non-hole chunks of `next` whose content occurs somewhere in `previous`, 0 to 1. */
export function sharedChunkRatio(previous: ChunkManifest, next: ChunkManifest): number {
  const key = (manifest: ChunkManifest, index: number) =>
    String.fromCharCode(...chunkHash(manifest, index));
  const known = new Set<string>();
  for (let i = 0; i < chunkCount(previous); i++) known.add(key(previous, i));
  let total = 0;
  let shared = 0;
  for (let i = 0; i < chunkCount(next); i++) {
    if (isHole(next, i)) continue;
    total++;
    if (known.has(key(next, i))) shared++;
  }
  return total === 0 ? 1 : shared / total;
}
