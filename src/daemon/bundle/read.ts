/**
 * A bundle read from a stream. Nothing of it is believed before it was checked: the manifest before
 * its signature, a chunk manifest before its digest, a chunk before its hash, and the whole before
 * the sum at its end. Whoever reads one writes to scratch files until this has come to its end.
 */
import { createHash } from "node:crypto";
import {
  BUNDLE_MANIFEST_BYTES,
  CHUNK_HASH_BYTES,
  CHUNK_SIZE_BYTES,
  decodeChunkManifest,
  invalidBundle,
  parseBundleManifest,
  type BundleFile,
  type BundleManifest,
  type ChunkManifest,
} from "../../domain/index.ts";
import { zlibCompressor } from "../../gossip/index.ts";
import { BundleInput } from "./input.ts";
import {
  MANIFEST,
  SIGNATURE,
  SIGNATURE_BYTES,
  SUM,
  SUM_BYTES,
  chunksName,
  findWrongChunk,
  runsOf,
  segmentName,
  segmentsOf,
  sha256,
  storedBytes,
  type Segment,
} from "./format.ts";
import { BLOCK_BYTES, END_BYTES, paddingOf, readTarHeader } from "./tar.ts";

/** Where one file's bytes go: sparse, of `sizeBytes` at its end. */
export interface FileSink {
  write(position: number, bytes: Uint8Array): Promise<void>;
}

export interface BundleReader {
  /**
   * The manifest with its signature; what it throws ends the reading before any data is taken.
   * @param bytes exactly what was signed
   */
  readonly onManifest: (
    manifest: BundleManifest,
    signed: { readonly bytes: Uint8Array; readonly signature: Uint8Array },
  ) => Promise<void>;
  readonly onFile: (file: BundleFile, manifest: ChunkManifest) => Promise<FileSink>;
  readonly signal?: AbortSignal;
}

const CHUNKS_HEADER_BYTES = 24;

const chunksBytes = (sizeBytes: number): number =>
  CHUNKS_HEADER_BYTES + Math.ceil(sizeBytes / CHUNK_SIZE_BYTES) * CHUNK_HASH_BYTES;

class Members {
  readonly #input: BundleInput;

  constructor(input: BundleInput) {
    this.#input = input;
  }

  /** @throws AppError bundle_invalid when the next member is another, or larger */
  async next<N extends string>(
    names: readonly N[],
    limits: { min: number; max: number },
  ): Promise<{ name: N; bytes: Buffer }> {
    const header = readTarHeader(await this.#input.take(BLOCK_BYTES), names);
    if (header === undefined)
      throw invalidBundle(`${names.join(" or ")} is not where it should be`);
    const { name, sizeBytes } = header;
    if (sizeBytes < limits.min || sizeBytes > limits.max) {
      throw invalidBundle(`${name} has ${sizeBytes} bytes`);
    }
    const bytes = await this.#input.take(sizeBytes);
    const padding = await this.#input.take(paddingOf(sizeBytes));
    if (padding.some((byte) => byte !== 0)) throw invalidBundle(`${name} is not padded with zeros`);
    return { name, bytes };
  }
}

async function readChunks(
  members: Members,
  index: number,
  file: BundleFile,
): Promise<ChunkManifest> {
  const size = chunksBytes(file.size_bytes);
  const { bytes } = await members.next([chunksName(index)], { min: size, max: size });
  if (`sha256:${sha256(bytes).toString("hex")}` !== file.digest) {
    throw invalidBundle(`the chunk manifest of ${file.name} is not that of ${file.digest}`);
  }
  let manifest: ChunkManifest;
  try {
    manifest = decodeChunkManifest(new Uint8Array(bytes));
  } catch (cause) {
    throw invalidBundle(`the chunk manifest of ${file.name} does not read`, cause);
  }
  const isStated =
    manifest.chunkSizeBytes === CHUNK_SIZE_BYTES &&
    manifest.sizeBytes === file.size_bytes &&
    storedBytes(manifest) === file.stored_bytes;
  if (!isStated) throw invalidBundle(`${file.name} is not as long as the manifest says`);
  return manifest;
}

async function readSegment(
  members: Members,
  where: { readonly file: number; readonly segment: number },
  { sizeBytes }: Segment,
): Promise<Uint8Array> {
  const deflated = segmentName(where.file, where.segment, "deflated");
  const plain = segmentName(where.file, where.segment, "plain");
  const { name, bytes } = await members.next([deflated, plain], { min: 1, max: sizeBytes });
  if (name === plain) {
    if (bytes.length === sizeBytes) return bytes;
    throw invalidBundle(`${name} has ${bytes.length} bytes instead of ${sizeBytes}`);
  }
  let inflated: Uint8Array;
  try {
    inflated = await zlibCompressor.inflate(bytes, sizeBytes);
  } catch (cause) {
    throw invalidBundle(`${name} does not inflate`, cause);
  }
  if (inflated.length !== sizeBytes) throw invalidBundle(`${name} inflates to another length`);
  return inflated;
}

async function readFile(
  members: Members,
  index: number,
  file: BundleFile,
  reader: BundleReader,
): Promise<void> {
  const manifest = await readChunks(members, index, file);
  const sink = await reader.onFile(file, manifest);
  let number = 0;
  for (const segment of segmentsOf(manifest)) {
    reader.signal?.throwIfAborted();
    const bytes = await readSegment(members, { file: index, segment: number++ }, segment);
    const wrong = findWrongChunk(manifest, segment, bytes);
    if (wrong !== undefined) throw invalidBundle(`chunk ${wrong} of ${file.name} is damaged`);
    for (const run of runsOf(segment, bytes)) await sink.write(run.position, run.bytes);
  }
}

/**
 * Reads the whole bundle, to the end of the stream.
 * @throws AppError bundle_invalid for whatever is not as it was written; what the callbacks and the
 *   source throw
 */
export async function readBundle(
  source: AsyncIterable<Uint8Array>,
  reader: BundleReader,
): Promise<BundleManifest> {
  const sum = createHash("sha256");
  const input = new BundleInput(source, (bytes) => sum.update(bytes));
  const members = new Members(input);
  try {
    const text = await members.next([MANIFEST], { min: 2, max: BUNDLE_MANIFEST_BYTES });
    const limits = { min: SIGNATURE_BYTES, max: SIGNATURE_BYTES };
    const { bytes: signature } = await members.next([SIGNATURE], limits);
    const manifest = parseBundleManifest(text.bytes);
    await reader.onManifest(manifest, { bytes: text.bytes, signature });
    for (const [index, file] of manifest.files.entries()) {
      await readFile(members, index, file, reader);
    }
    const expected = sum.copy().digest();
    const told = await members.next([SUM], { min: SUM_BYTES, max: SUM_BYTES });
    if (!told.bytes.equals(expected)) throw invalidBundle("its sum is another");
    const end = await input.take(END_BYTES);
    if (end.some((byte) => byte !== 0)) throw invalidBundle("its end is not zero");
    await input.end();
    return manifest;
  } finally {
    await input.close().catch(() => undefined);
  }
}
