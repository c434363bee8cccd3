/**
 * The image file as it is written: bytes gather in slabs of 16 chunks, each chunk is hashed once
 * when its slab is complete, chunks of zeros are neither hashed nor written, and what is written
 * goes out in runs as long as can be. Bytes may be put anywhere in a slab that is still open; a
 * slab that was closed is opened again by reading it back (the few chunks whose blocks were given
 * back).
 */
import { hash } from "node:crypto";
import { write as writeCallback, read as readCallback } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { AppError, CHUNK_HASH_BYTES, CHUNK_SIZE_BYTES } from "../../../domain/core.ts";

const SLAB_CHUNKS = 16;
const SLAB_BYTES = SLAB_CHUNKS * CHUNK_SIZE_BYTES;
/** Slabs being written: above the low mark `pressure` asks to wait. */
const MAX_PENDING = 8;
const ZERO_CHUNK = Buffer.alloc(CHUNK_SIZE_BYTES);

interface Slab {
  readonly index: number;
  readonly bytes: Buffer;
  /** One bit per chunk that was put into. */
  touched: number;
}

export class ChunkSink {
  readonly #file: FileHandle;
  #slab: Slab | undefined;
  #hashes = new Map<number, Buffer>();
  readonly #spare: Buffer[] = [];
  readonly #pending = new Set<Promise<void>>();
  #failure: Error | undefined;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async create(path: string): Promise<ChunkSink> {
    return new ChunkSink(await open(path, "wx+", 0o640));
  }

  /** Copies bytes to `position`. */
  put(position: number, bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      const slab = this.#open(Math.floor((position + at) / SLAB_BYTES));
      const offset = (position + at) % SLAB_BYTES;
      const length = Math.min(bytes.length - at, SLAB_BYTES - offset);
      slab.bytes.set(length === bytes.length ? bytes : bytes.subarray(at, at + length), offset);
      const last = Math.floor((offset + length - 1) / CHUNK_SIZE_BYTES);
      for (let chunk = Math.floor(offset / CHUNK_SIZE_BYTES); chunk <= last; chunk++) {
        slab.touched |= 1 << chunk;
      }
      at += length;
    }
  }

  pressure(): Promise<void> | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#pending.size < MAX_PENDING) return undefined;
    return Promise.race(this.#pending).then(() => this.#check());
  }

  /**
   * Bytes that were put before. The open slab stays open: small files that come later share its
   * last chunk.
   */
  async read(position: number, length: number): Promise<Buffer> {
    await Promise.all(this.#pending);
    this.#check();
    const bytes = Buffer.alloc(length);
    await this.#pread(bytes, position);
    const slab = this.#slab;
    if (slab !== undefined) {
      const base = slab.index * SLAB_BYTES;
      for (let chunk = 0; chunk < SLAB_CHUNKS; chunk++) {
        if ((slab.touched & (1 << chunk)) === 0) continue;
        const start = Math.max(base + chunk * CHUNK_SIZE_BYTES, position);
        const end = Math.min(base + (chunk + 1) * CHUNK_SIZE_BYTES, position + length);
        if (start < end) bytes.set(slab.bytes.subarray(start - base, end - base), start - position);
      }
    }
    return bytes;
  }

  /**
   * Makes ranges read as zeros: whole chunks become holes, parts of chunks are read back, cleared
   * and hashed again. Ranges are in bytes, in order, and do not overlap.
   */
  async clear(ranges: readonly { start: number; end: number }[]): Promise<void> {
    await this.#settle();
    let chunk = -1;
    let bytes = Buffer.alloc(0);
    const finish = async () => {
      if (chunk >= 0) await this.#rewrite(chunk, bytes);
    };
    for (const { start, end } of ranges) {
      for (let at = start; at < end;) {
        const index = Math.floor(at / CHUNK_SIZE_BYTES);
        const until = Math.min(end, (index + 1) * CHUNK_SIZE_BYTES);
        if (index !== chunk) {
          await finish();
          chunk = index;
          bytes = Buffer.alloc(CHUNK_SIZE_BYTES);
          if (this.#hashes.has(index)) await this.#pread(bytes, index * CHUNK_SIZE_BYTES);
        }
        bytes.fill(0, at % CHUNK_SIZE_BYTES, until - index * CHUNK_SIZE_BYTES);
        at = until;
      }
    }
    await finish();
  }

  async #rewrite(chunk: number, bytes: Buffer): Promise<void> {
    if (!this.#hashes.has(chunk)) return;
    if (bytes.equals(ZERO_CHUNK)) this.#hashes.delete(chunk);
    else this.#hashes.set(chunk, hash("sha256", bytes, "buffer"));
    await this.#pwrite(bytes, chunk * CHUNK_SIZE_BYTES, bytes.length);
  }

  /** Sets the file's size and answers the hashes of all chunks. */
  async finish(sizeBytes: number, sync: boolean): Promise<Uint8Array> {
    await this.#settle();
    await this.#file.truncate(sizeBytes);
    if (sync) await this.#file.datasync();
    const hashes = new Uint8Array(Math.ceil(sizeBytes / CHUNK_SIZE_BYTES) * CHUNK_HASH_BYTES);
    for (const [chunk, digest] of this.#hashes) hashes.set(digest, chunk * CHUNK_HASH_BYTES);
    return hashes;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#pending);
    await this.#file.close();
  }

  #open(index: number): Slab {
    if (this.#slab?.index === index) return this.#slab;
    if (this.#slab !== undefined) this.#flush(this.#slab);
    const spare = this.#spare.pop();
    this.#slab = { index, bytes: spare?.fill(0) ?? Buffer.alloc(SLAB_BYTES), touched: 0 };
    return this.#slab;
  }

  #flush(slab: Slab): void {
    const writes: Promise<void>[] = [];
    let from = -1;
    for (let chunk = 0; chunk <= SLAB_CHUNKS; chunk++) {
      const start = chunk * CHUNK_SIZE_BYTES;
      const piece = slab.bytes.subarray(start, start + CHUNK_SIZE_BYTES);
      const full =
        chunk < SLAB_CHUNKS && (slab.touched & (1 << chunk)) !== 0 && !piece.equals(ZERO_CHUNK);
      if (full) {
        const index = slab.index * SLAB_CHUNKS + chunk;
        if (this.#hashes.has(index)) throw new AppError("internal", `chunk ${index} written twice`);
        this.#hashes.set(index, hash("sha256", piece, "buffer"));
        if (from < 0) from = start;
      } else if (from >= 0) {
        const run = slab.bytes.subarray(from, start);
        writes.push(this.#pwrite(run, slab.index * SLAB_BYTES + from, run.length));
        from = -1;
      }
    }
    const done = Promise.all(writes).then(
      () => void this.#spare.push(slab.bytes),
      (error: unknown) => void (this.#failure ??= asFailure(error)),
    );
    this.#pending.add(done);
    void done.finally(() => this.#pending.delete(done));
  }

  async #settle(): Promise<void> {
    if (this.#slab !== undefined) this.#flush(this.#slab);
    this.#slab = undefined;
    await Promise.all(this.#pending);
    this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * The callback form: the promise form of FileHandle costs a microtask chain and an object each.
   */
  #pwrite(bytes: Buffer, position: number, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const next = (done: number) => {
        if (done === length) return resolve();
        writeCallback(this.#file.fd, bytes, done, length - done, position + done, (error, count) =>
          error === null ? next(done + count) : reject(error),
        );
      };
      next(0);
    });
  }

  #pread(bytes: Buffer, position: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const next = (done: number) =>
        readCallback(
          this.#file.fd,
          bytes,
          done,
          bytes.length - done,
          position + done,
          (error, n) => {
            if (error !== null) reject(error);
            else if (n === 0 || done + n === bytes.length) resolve();
            else next(done + n);
          },
        );
      next(0);
    });
  }
}

const asFailure = (error: unknown): Error =>
  (error as { code?: string }).code === "ENOSPC"
    ? new AppError("disk_space_low", "the disk is full while the image is written", {
        cause: error,
      })
    : new AppError("internal", "the image file cannot be written", { cause: error });
