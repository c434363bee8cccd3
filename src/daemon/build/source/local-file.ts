/** Reading local files that others have named. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { AppError } from "../../../domain/index.ts";
import { documentTooLarge } from "./image.ts";
import { SOURCE_LIMITS } from "./limits.ts";

/**
 * Opens a regular file for reading. A fifo or device named by a request must not hang the daemon.
 * @param what names the file in messages: "the image archive"
 * @throws AppError image_not_found
 */
export async function openRegular(path: string, what: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new AppError("image_not_found", `${what} cannot be opened`, { cause });
  }
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new AppError("image_not_found", `${what} is not a regular file`);
}

/** A stretch of an open file. Ends early when the file does: the reader's size check tells. */
export async function* readRange(
  handle: FileHandle,
  range: { offset: number; sizeBytes: number },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const end = range.offset + range.sizeBytes;
  for (let at = range.offset; at < end;) {
    signal?.throwIfAborted();
    const buffer = Buffer.allocUnsafe(Math.min(SOURCE_LIMITS.readBytes, end - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** @throws AppError image_refused reason `document_too_large` */
export async function readSmallRange(
  handle: FileHandle,
  range: { offset: number; sizeBytes: number },
  what: string,
): Promise<Uint8Array> {
  if (range.sizeBytes > SOURCE_LIMITS.documentBytes) throw documentTooLarge(what);
  const parts: Uint8Array[] = [];
  for await (const bytes of readRange(handle, range)) parts.push(bytes);
  return Buffer.concat(parts);
}
