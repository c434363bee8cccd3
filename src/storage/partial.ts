/**
 * Artifacts of which only some chunks are here:
 *
 *   <dir>/<hex>/rootfs.ext4 (sparse, of full size), chunks.bin, have.bin
 *
 * `have.bin` is one bit for each chunk, written whole beside the old one and renamed after the
 * bytes it speaks of were flushed. So what it claims is on the disk after any crash; it is hashed
 * again all the same when it is opened, because a disk may lie and nobody else looks before it is
 * served.
 */
import { hash } from "node:crypto";
import { mkdir, open, readFile, readdir, rm, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  AppError,
  Bitfield,
  chunkCount,
  chunkHash,
  chunkLength,
  decodeChunkManifest,
  encodeChunkManifest,
  errorText,
  holesOf,
  type ChunkManifest,
  type Log,
  type PartialArtifact,
  type StoredArtifact,
} from "../domain/index.ts";
import { replaceFile, syncFolder, writeFileSynced } from "./durable.ts";
import { CHUNKS, ROOTFS } from "./inventory.ts";

const HAVE = "have.bin";
const FILE_MODE = 0o640;
const HEX = /^[0-9a-f]{64}$/;
/** A checkpoint comes by itself after so many new bytes: what a crash can cost at most. */
const CHECKPOINT_BYTES = 32 * 1024 * 1024;
/** Chunks read and hashed between two turns of the event loop. */
const VERIFY_CHUNKS = 16;

type Publish = (path: string) => Promise<StoredArtifact>;

/** Reads whole chunks of an open file. @throws RangeError when the file ends before a chunk does */
export async function readChunksAt(
  file: FileHandle,
  manifest: { sizeBytes: number; chunkSizeBytes: number },
  indexes: readonly number[],
): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for (const index of indexes) {
    const length = chunkLength(manifest, index);
    if (index < 0 || length <= 0) throw new RangeError(`there is no chunk ${index}`);
    const chunk = new Uint8Array(length);
    const { bytesRead } = await file.read(chunk, 0, length, index * manifest.chunkSizeBytes);
    if (bytesRead !== length) throw new RangeError(`chunk ${index} is cut off`);
    chunks.push(chunk);
  }
  return chunks;
}

/** The folder of all partial artifacts. */
export class Partials {
  readonly #dir: string;
  readonly #log: Log;
  readonly #open = new Set<string>();

  constructor(dir: string, log: Log) {
    this.#dir = dir;
    this.#log = log;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o750 });
    await syncFolder(dirname(this.#dir));
  }

  async list(): Promise<readonly string[]> {
    const names = await readdir(this.#dir);
    return names.filter((name) => HEX.test(name)).map((name) => `sha256:${name}`);
  }

  isOpen(hex: string): boolean {
    return this.#open.has(hex);
  }

  async discard(hex: string): Promise<void> {
    if (this.#open.has(hex)) throw new AppError("wrong_status", `partial ${hex} is open`);
    await rm(join(this.#dir, hex), { recursive: true, force: true });
  }

  async manifest(hex: string): Promise<ChunkManifest | undefined> {
    try {
      const bytes = await readFile(join(this.#dir, hex, CHUNKS));
      if (hash("sha256", bytes, "hex") !== hex) throw new Error("its hash is another");
      return decodeChunkManifest(new Uint8Array(bytes));
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      this.#log.warn("the manifest of a partial artifact does not read", {
        digest: `sha256:${hex}`,
        reason: errorText(error),
      });
      return undefined;
    }
  }

  async open(hex: string, manifest: ChunkManifest, publish: Publish): Promise<PartialArtifact> {
    const encoded = encodeChunkManifest(manifest);
    if (hash("sha256", encoded, "hex") !== hex) {
      throw new AppError("artifact_corrupt", `the manifest is not that of sha256:${hex}`);
    }
    if (this.#open.has(hex)) throw new AppError("wrong_status", `partial ${hex} is open`);
    this.#open.add(hex);
    let file: FileHandle | undefined;
    try {
      const dir = join(this.#dir, hex);
      const known = await this.manifest(hex);
      if (known === undefined) {
        await rm(dir, { recursive: true, force: true });
        await mkdir(dir, { mode: 0o750 });
        await writeFileSynced(join(dir, CHUNKS), encoded, FILE_MODE);
      }
      file = await openSparse(join(dir, ROOTFS), manifest.sizeBytes);
      const have = await readHave(dir, manifest, file);
      await syncFolder(dir);
      await syncFolder(this.#dir);
      const release = () => this.#open.delete(hex);
      return new PartialFile({ hex, dir, manifest, file, have, publish, release });
    } catch (error) {
      await file?.close();
      this.#open.delete(hex);
      throw error;
    }
  }
}

async function openSparse(path: string, sizeBytes: number): Promise<FileHandle> {
  const file = await open(path, "a+", FILE_MODE).then(async (made) => {
    await made.close();
    return open(path, "r+");
  });
  await file.truncate(sizeBytes);
  return file;
}

/** What have.bin claims and the bytes bear out, and the holes. */
async function readHave(dir: string, manifest: ChunkManifest, file: FileHandle): Promise<Bitfield> {
  const have = holesOf(manifest);
  let claimed: Bitfield;
  try {
    claimed = new Bitfield(chunkCount(manifest), await readFile(join(dir, HAVE)));
  } catch {
    // None yet, or not of this length: then nothing is claimed.
    return have;
  }
  const indexes: number[] = [];
  for (let i = 0; i < claimed.length; i++) if (claimed.has(i) && !have.has(i)) indexes.push(i);
  for (let at = 0; at < indexes.length; at += VERIFY_CHUNKS) {
    const some = indexes.slice(at, at + VERIFY_CHUNKS);
    const chunks = await readChunksAt(file, manifest, some);
    for (const [i, chunk] of chunks.entries()) {
      const index = some[i] as number;
      if (hash("sha256", chunk, "buffer").equals(chunkHash(manifest, index))) have.set(index);
    }
  }
  return have;
}

interface PartialParts {
  readonly hex: string;
  readonly dir: string;
  readonly manifest: ChunkManifest;
  readonly file: FileHandle;
  readonly have: Bitfield;
  readonly publish: Publish;
  readonly release: () => void;
}

class PartialFile implements PartialArtifact {
  readonly digest: string;
  readonly manifest: ChunkManifest;
  readonly have: Bitfield;
  readonly #parts: PartialParts;
  #unsaved = 0;
  #saving: Promise<void> | undefined;
  #closed = false;

  constructor(parts: PartialParts) {
    this.#parts = parts;
    this.digest = `sha256:${parts.hex}`;
    this.manifest = parts.manifest;
    this.have = parts.have;
  }

  async writeChunk(index: number, bytes: Uint8Array): Promise<void> {
    const { file, manifest } = this.#parts;
    if (bytes.length !== chunkLength(manifest, index)) {
      throw new AppError("chunk_mismatch", `chunk ${index} of ${this.digest} has another length`);
    }
    let written = 0;
    while (written < bytes.length) {
      const at = index * manifest.chunkSizeBytes + written;
      const result = await file.write(bytes, written, bytes.length - written, at);
      written += result.bytesWritten;
    }
    this.have.set(index);
    this.#unsaved += bytes.length;
    if (this.#unsaved >= CHECKPOINT_BYTES) await this.checkpoint();
  }

  async readChunks(indexes: readonly number[]): Promise<readonly Uint8Array[]> {
    const lacking = indexes.find((index) => !this.have.has(index));
    if (lacking !== undefined || this.#closed) {
      throw new AppError(
        "artifact_source_missing",
        `chunk ${lacking} of ${this.digest} is missing`,
      );
    }
    try {
      return await readChunksAt(this.#parts.file, this.manifest, indexes);
    } catch (cause) {
      throw new AppError("artifact_source_missing", `${this.digest} cannot be read`, { cause });
    }
  }

  checkpoint(): Promise<void> {
    this.#saving ??= this.#save().finally(() => {
      this.#saving = undefined;
    });
    return this.#saving;
  }

  async #save(): Promise<void> {
    if (this.#unsaved === 0 || this.#closed) return;
    // The map as it is before the flush: a chunk written meanwhile waits for the next one.
    const claimed = Uint8Array.from(this.have.bytes);
    const saved = this.#unsaved;
    await this.#parts.file.datasync();
    const scratch = join(this.#parts.dir, `${HAVE}.new`);
    await replaceFile(join(this.#parts.dir, HAVE), claimed, { scratch, mode: FILE_MODE });
    this.#unsaved -= saved;
  }

  async finish(): Promise<StoredArtifact> {
    if (!this.have.isFull) {
      throw new AppError("artifact_corrupt", `${this.digest} has not all its chunks yet`);
    }
    const { dir, file, publish, release } = this.#parts;
    await this.#saving;
    this.#closed = true;
    await file.close();
    try {
      const stored = await publish(join(dir, ROOTFS));
      await rm(dir, { recursive: true, force: true });
      return stored;
    } finally {
      release();
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.checkpoint();
    this.#closed = true;
    await this.#parts.file.close();
    this.#parts.release();
  }
}
