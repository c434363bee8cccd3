/** An image in a tar file, perhaps gzip-compressed, read where it lies. */
import type { FileHandle } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { pipeline } from "node:stream/promises";
import { AppError } from "../../../domain/index.ts";
import { MAGIC_BYTES, sniffCompression } from "./compression.ts";
import type { FileSet, ImageFile } from "./file-set.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { openRegular, readRange, readSmallRange } from "./local-file.ts";
import { refused } from "./manifest.ts";
import { openScratch, writeAll } from "./prefetch.ts";
import { indexTar } from "./tar-index.ts";
import { memberName } from "./tar-index.ts";
import type { TarMember } from "./tar-index.ts";

/** The members of an open archive. */
export class ArchiveFiles implements FileSet {
  readonly #handle: FileHandle;
  readonly #members: ReadonlyMap<string, TarMember>;

  constructor(handle: FileHandle, members: ReadonlyMap<string, TarMember>) {
    this.#handle = handle;
    this.#members = members;
  }

  async find(name: string): Promise<ImageFile> {
    const member = this.#lookUp(name);
    const what = `${name} of the image archive`;
    const handle = this.#handle;
    const { offset, sizeBytes } = member;
    return {
      sizeBytes,
      read: async () => await readSmallRange(handle, member, what),
      start: async (length) =>
        await readSmallRange(handle, { offset, sizeBytes: Math.min(length, sizeBytes) }, what),
      stream: (signal) => readRange(handle, member, signal),
    };
  }

  has(name: string): boolean {
    const key = memberName(name);
    return key !== undefined && this.#members.has(key);
  }

  /** Links lead to members only: a target outside the archive is a name that is not there. */
  #lookUp(name: string): TarMember {
    let key = memberName(name);
    for (let hop = 0; hop <= SOURCE_LIMITS.archiveLinks; hop += 1) {
      const member = key === undefined ? undefined : this.#members.get(key);
      if (member === undefined) break;
      if (member.kind === "file") return member;
      key = member.target;
    }
    throw new AppError("image_not_found", `the image archive has no file ${name.slice(0, 200)}`);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * @param scratchDir for the inflated copy of a compressed archive, which has no name
 * @throws AppError image_not_found, image_refused (`invalid_archive`, `archive_too_large`),
 *   disk_space_low
 */
export async function openArchive(
  path: string,
  scratchDir: string,
  signal?: AbortSignal,
): Promise<ArchiveFiles> {
  const handle = await uncompressed(
    await openRegular(path, "the image archive"),
    scratchDir,
    signal,
  );
  try {
    return new ArchiveFiles(handle, await indexTar(handle, (await handle.stat()).size));
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function uncompressed(
  handle: FileHandle,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<FileHandle> {
  let scratch: FileHandle | undefined;
  try {
    const range = { offset: 0, sizeBytes: (await handle.stat()).size };
    const start = { offset: 0, sizeBytes: Math.min(MAGIC_BYTES, range.sizeBytes) };
    const magic = await readSmallRange(handle, start, "the image archive");
    const compression = sniffCompression(magic) ?? "none";
    if (compression === "none") return handle;
    if (compression === "zstd") {
      throw refused("invalid_archive", "image archives compressed with zstd are not supported");
    }
    scratch = await openScratch(scratchDir, "archive.part");
    await inflate(readRange(handle, range, signal), scratch, signal);
  } catch (error) {
    await scratch?.close();
    await handle.close();
    throw error;
  }
  await handle.close();
  return scratch;
}

async function inflate(
  source: AsyncIterable<Uint8Array>,
  target: FileHandle,
  signal: AbortSignal | undefined,
): Promise<void> {
  let written = 0;
  const write = async (inflated: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const bytes of inflated) {
      if (written + bytes.length > SOURCE_LIMITS.archiveInflatedBytes) {
        throw refused("archive_too_large", "the image archive expands to more than 64 GiB");
      }
      await writeAll(target, bytes, written);
      written += bytes.length;
    }
  };
  try {
    await pipeline(source, createGunzip({ chunkSize: SOURCE_LIMITS.readBytes }), write, {
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (cause) {
    signal?.throwIfAborted();
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (typeof code !== "string" || !code.startsWith("Z_")) throw cause;
    throw refused("invalid_archive", "the image archive's gzip stream is broken", cause);
  }
}
