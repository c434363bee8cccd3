/**
 * The files of an image, by their names in it: a folder on disk or the members of an archive. Names
 * come from documents of the image, and are only looked up, never written.
 */
import { join } from "node:path";
import { openRegular, readRange, readSmallRange } from "./local-file.ts";

export interface ImageFile {
  readonly sizeBytes: number;
  /** The whole file, of at most 4 MiB. @throws AppError image_refused `document_too_large` */
  read(): Promise<Uint8Array>;
  /** The first bytes, at most `length`. */
  start(length: number): Promise<Uint8Array>;
  stream(signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface FileSet {
  /** @throws AppError image_not_found when there is no such file */
  find(name: string): Promise<ImageFile>;
  close(): Promise<void>;
}

/** The files of a folder. Each reading opens the file anew, so nothing is held open. */
export class FolderFiles implements FileSet {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async find(name: string): Promise<ImageFile> {
    const what = `${name} of the image folder`;
    const path = join(this.#folder, name);
    const handle = await openRegular(path, what);
    const sizeBytes = (await handle.stat()).size;
    await handle.close();
    async function* stream(range: { offset: number; sizeBytes: number }, signal?: AbortSignal) {
      const opened = await openRegular(path, what);
      try {
        yield* readRange(opened, range, signal);
      } finally {
        await opened.close();
      }
    }
    const collect = async (length: number): Promise<Uint8Array> => {
      const opened = await openRegular(path, what);
      try {
        return await readSmallRange(opened, { offset: 0, sizeBytes: length }, what);
      } finally {
        await opened.close();
      }
    };
    return {
      sizeBytes,
      read: async () => await collect(sizeBytes),
      start: async (length) => await collect(Math.min(length, sizeBytes)),
      stream: (signal) => stream({ offset: 0, sizeBytes }, signal),
    };
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }
}
