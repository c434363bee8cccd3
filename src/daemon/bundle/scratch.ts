/** Files of a bundle that is being read: sparse, in scratch, gone unless somebody takes them. */
import { open, rm, type FileHandle } from "node:fs/promises";
import type { ArtifactStore, BundleFile, ChunkManifest } from "../../domain/index.ts";
import type { FileSink } from "./read.ts";

export interface StagedFile {
  readonly name: string;
  readonly path: string;
  readonly manifest: ChunkManifest;
}

const MODE = 0o640;

export class ScratchFiles {
  readonly #store: Pick<ArtifactStore, "scratchPath">;
  readonly #id: string;
  readonly #files: (StagedFile & { readonly handle: FileHandle })[] = [];

  /** @param id names this import among those under way */
  constructor(store: Pick<ArtifactStore, "scratchPath">, id: string) {
    this.#store = store;
    this.#id = id;
  }

  /** @param onBytes is told how many bytes were written */
  async begin(
    { name }: BundleFile,
    manifest: ChunkManifest,
    onBytes: (bytes: number) => void,
  ): Promise<FileSink> {
    const path = this.#store.scratchPath(`import-${this.#id}.${name}`);
    const handle = await open(path, "wx", MODE);
    this.#files.push({ name, path, manifest, handle });
    await handle.truncate(manifest.sizeBytes);
    return {
      async write(position, bytes) {
        for (let at = 0; at < bytes.length;) {
          const left = bytes.length - at;
          at += (await handle.write(bytes, at, left, position + at)).bytesWritten;
        }
        onBytes(bytes.length);
      },
    };
  }

  /** What was written, flushed and closed. */
  async finish(): Promise<readonly StagedFile[]> {
    for (const { handle } of this.#files) {
      await handle.sync();
      await handle.close();
    }
    return this.#files;
  }

  /** Removes what nobody has taken; may be called twice. */
  async drop(): Promise<void> {
    for (const { handle, path } of this.#files) {
      await handle.close().catch(() => undefined);
      await rm(path, { force: true });
    }
  }
}
