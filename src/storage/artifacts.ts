/**
 * The `ArtifactStore` port: content-addressed files with what is known of them beside them.
 *
 *   <dir>/sha256/<hex>/rootfs.ext4, chunks.bin, <artifact id>.json …
 *   <dir>/partial/<hex>/ what has been fetched so far (partial.ts)
 *
 * A new folder is made whole under `<dir>/staging` and becomes visible by one rename, so that a
 * crash leaves nothing or all of it; taking it away is one rename into the same place.
 */
import { hash } from "node:crypto";
import { statSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import {
  AppError,
  CHUNK_SIZE_BYTES,
  chunkCount,
  decodeChunkManifest,
  encodeChunkManifest,
  isSafeId,
  type ArtifactRecord,
  type ArtifactSidecar,
  type ArtifactStore,
  type ChunkManifest,
  type Log,
  type PartialArtifact,
  type StoredArtifact,
} from "../domain/index.ts";
import { replaceFile, syncFile, syncFolder, writeFileSynced } from "./durable.ts";
import {
  CHUNKS,
  ROOTFS,
  prepareFolders,
  readInventory,
  sidecarCodec,
  type ArtifactFolders,
  type HeldBytes,
} from "./inventory.ts";
import { Partials, readChunksAt } from "./partial.ts";
import { findCorruptChunks } from "./scrub.ts";

const FILE_MODE = 0o640;
const READ_BYTES = 1024 * 1024;
const DIGEST = /^sha256:([0-9a-f]{64})$/;
/** So many chunk indexes go into an error; the count is always whole. */
const NAMED_CHUNKS = 100;

export interface ArtifactStoreOptions {
  readonly dir: string;
  /** Scratch, on the same filesystem; the store owns and empties `artifacts/` in it. */
  readonly workDir: string;
  readonly log: Log;
}

export async function openArtifactStore(options: ArtifactStoreOptions): Promise<ArtifactStore> {
  const folders: ArtifactFolders = {
    bytes: join(options.dir, "sha256"),
    staging: join(options.dir, "staging"),
    damaged: join(options.dir, "damaged"),
    scratch: join(options.workDir, "artifacts"),
  };
  await prepareFolders(folders);
  const held = await readInventory(folders, options.log);
  const partials = new Partials(join(options.dir, "partial"), options.log);
  await partials.prepare();
  const store = new FileArtifactStore(folders, held, partials, options.log);
  await store.settleNames();
  return store;
}

class FileArtifactStore implements ArtifactStore {
  readonly #folders: ArtifactFolders;
  readonly #held: Map<string, HeldBytes>;
  readonly #partials: Partials;
  readonly #log: Log;
  /** Artifact id → hex of the bytes it names. */
  readonly #names = new Map<string, string>();
  /** Bytes that failed `verify`: the next publish of the same digest replaces them. */
  readonly #suspect = new Set<string>();
  #tail: Promise<unknown> = Promise.resolve();
  #counter = 0;

  constructor(
    folders: ArtifactFolders,
    held: Map<string, HeldBytes>,
    partials: Partials,
    log: Log,
  ) {
    this.#folders = folders;
    this.#held = held;
    this.#partials = partials;
    this.#log = log;
  }

  /** A crash between two renames may leave an id at two digests: the later record is right. */
  async settleNames(): Promise<void> {
    const newestFirst = [...this.#held.values()]
      .flatMap(({ hex, sidecars }) =>
        [...sidecars.values()].map(({ artifact }) => ({ hex, artifact })),
      )
      .sort((a, b) => (a.artifact.updated_at < b.artifact.updated_at ? 1 : -1));
    for (const { hex, artifact } of newestFirst) {
      const known = this.#names.get(artifact.artifact_id);
      if (known === undefined) this.#names.set(artifact.artifact_id, hex);
      else await this.#dropName(artifact.artifact_id, hex);
    }
  }

  scratchPath(name: string): string {
    assertSafe(name, "scratch name");
    return join(this.#folders.scratch, name);
  }

  async publish(
    scratchPath: string,
    manifest: ChunkManifest,
    sidecar: ArtifactSidecar,
  ): Promise<StoredArtifact> {
    const hex = hexOf(sidecar.artifact.digest);
    assertSafe(sidecar.artifact.artifact_id, "artifact id");
    const chunks = encodeChunkManifest(manifest);
    const { size } = await stat(scratchPath);
    const stated = sidecar.artifact.ext4_size_bytes;
    if (
      size !== manifest.sizeBytes ||
      size !== stated ||
      manifest.hashes.length !== chunkCount(manifest) * 32 ||
      hash("sha256", chunks, "hex") !== hex
    ) {
      throw new AppError(
        "artifact_corrupt",
        `artifact ${sidecar.artifact.artifact_id} does not match its manifest or digest`,
        { meta: { size_bytes: size, manifest_size_bytes: manifest.sizeBytes, stated } },
      );
    }
    // Outside of the lock: flushing gigabytes takes its time.
    await syncFile(scratchPath, FILE_MODE);
    return this.#alone(async () => {
      const text = sidecarCodec.encode(sidecar);
      if (this.#held.has(hex)) await this.#adopt(hex, scratchPath, chunks);
      else await this.#reveal(hex, scratchPath, chunks, sidecar, text);
      return this.#name(hex, sidecar, text);
    });
  }

  addSidecar(digest: string, sidecar: ArtifactSidecar): Promise<StoredArtifact> {
    const hex = hexOf(digest);
    assertSafe(sidecar.artifact.artifact_id, "artifact id");
    return this.#alone(async () => {
      const bytes = this.findDigest(digest);
      if (bytes === undefined) throw missing(digest);
      const { digest: stated, ext4_size_bytes } = sidecar.artifact;
      if (stated !== digest || ext4_size_bytes !== bytes.sizeBytes) {
        throw new AppError("artifact_corrupt", `the sidecar does not describe ${digest}`);
      }
      return this.#name(hex, sidecar, sidecarCodec.encode(sidecar));
    });
  }

  find(artifactId: string): StoredArtifact | undefined {
    const hex = this.#names.get(artifactId);
    if (hex === undefined) return undefined;
    const digest = `sha256:${hex}`;
    const bytes = this.findDigest(digest);
    return bytes === undefined ? undefined : { artifactId, digest, ...bytes };
  }

  findDigest(digest: string): { path: string; sizeBytes: number } | undefined {
    const hex = DIGEST.exec(digest)?.[1];
    const held = hex === undefined ? undefined : this.#held.get(hex);
    if (hex === undefined || held === undefined) return undefined;
    const path = this.#path(hex, ROOTFS);
    const file = statSync(path, { throwIfNoEntry: false });
    const isThere = file?.isFile() === true && file.size === held.sizeBytes;
    return isThere ? { path, sizeBytes: held.sizeBytes } : undefined;
  }

  async manifest(digest: string): Promise<ChunkManifest> {
    const hex = hexOf(digest);
    if (!this.#held.has(hex)) throw missing(digest);
    let bytes: Buffer;
    try {
      bytes = await readFile(this.#path(hex, CHUNKS));
    } catch (cause) {
      throw missing(digest, cause);
    }
    if (hash("sha256", bytes, "hex") !== hex) {
      this.#suspect.add(hex);
      throw new AppError("artifact_corrupt", `the chunk manifest of ${digest} is damaged`);
    }
    // A plain array: slices of a Buffer are views of it.
    return decodeChunkManifest(new Uint8Array(bytes));
  }

  /**
   * Bytes `start` to `end`, both included. The file is held open from here on, so that it may be
   * removed meanwhile: the answer must be read to its end or returned.
   */
  async read(
    artifactId: string,
    range?: { start: number; end: number },
  ): Promise<AsyncIterable<Uint8Array>> {
    const found = this.find(artifactId);
    if (found === undefined) throw missing(artifactId);
    try {
      const file = await open(found.path, "r");
      return file.createReadStream({ ...range, highWaterMark: READ_BYTES });
    } catch (cause) {
      throw missing(artifactId, cause);
    }
  }

  isSuspect(digest: string): boolean {
    return this.#suspect.has(hexOf(digest));
  }

  async readChunks(digest: string, indexes: readonly number[]): Promise<readonly Uint8Array[]> {
    const found = this.findDigest(digest);
    if (found === undefined) throw missing(digest);
    const { path, sizeBytes } = found;
    try {
      const file = await open(path, "r");
      try {
        const manifest = { sizeBytes, chunkSizeBytes: CHUNK_SIZE_BYTES };
        return await readChunksAt(file, manifest, indexes);
      } finally {
        await file.close();
      }
    } catch (cause) {
      throw missing(digest, cause);
    }
  }

  openPartial(artifact: ArtifactRecord, manifest: ChunkManifest): Promise<PartialArtifact> {
    assertSafe(artifact.artifact_id, "artifact id");
    return this.#partials.open(hexOf(artifact.digest), manifest, (path) =>
      this.publish(path, manifest, { artifact }),
    );
  }

  partialManifest(digest: string): Promise<ChunkManifest | undefined> {
    return this.#partials.manifest(hexOf(digest));
  }

  partials(): Promise<readonly string[]> {
    return this.#partials.list();
  }

  isPartialOpen(digest: string): boolean {
    const hex = DIGEST.exec(digest)?.[1];
    return hex !== undefined && this.#partials.isOpen(hex);
  }

  discardPartial(digest: string): Promise<void> {
    return this.#partials.discard(hexOf(digest));
  }

  async verify(
    digest: string,
    options: { signal?: AbortSignal; pace?: (bytes: number) => Promise<void> } = {},
  ): Promise<void> {
    const hex = hexOf(digest);
    const bytes = this.findDigest(digest);
    if (bytes === undefined) throw missing(digest);
    const corrupt = await findCorruptChunks(bytes.path, await this.manifest(digest), options);
    if (corrupt.length === 0) {
      this.#suspect.delete(hex);
      return;
    }
    this.#suspect.add(hex);
    const chunks = corrupt.slice(0, NAMED_CHUNKS);
    throw new AppError(
      "artifact_corrupt",
      `${corrupt.length} chunks of ${digest} are damaged: ${chunks.slice(0, 10).join(", ")}`,
      { meta: { digest, chunks, corrupt_chunks: corrupt.length } },
    );
  }

  async remove(artifactId: string): Promise<void> {
    await this.#alone(async () => {
      const hex = this.#names.get(artifactId);
      if (hex === undefined) return;
      await this.#dropName(artifactId, hex);
      this.#names.delete(artifactId);
    });
  }

  inventory(): readonly ArtifactSidecar[] {
    return [...this.#held.values()].flatMap(({ sidecars }) => [...sidecars.values()]);
  }

  #path(hex: string, ...names: string[]): string {
    return join(this.#folders.bytes, hex, ...names);
  }

  #stagingPath(): string {
    return join(this.#folders.staging, String(++this.#counter));
  }

  /** One change of the folders at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }

  /** Makes new bytes visible, whole. */
  async #reveal(
    hex: string,
    scratchPath: string,
    chunks: Uint8Array,
    sidecar: ArtifactSidecar,
    text: string,
  ): Promise<void> {
    const id = sidecar.artifact.artifact_id;
    const staging = this.#stagingPath();
    try {
      await mkdir(staging, { mode: 0o750 });
      await writeFileSynced(join(staging, CHUNKS), chunks, FILE_MODE);
      await writeFileSynced(join(staging, `${id}.json`), text, FILE_MODE);
      await rename(scratchPath, join(staging, ROOTFS));
      await syncFolder(staging);
      await rename(staging, this.#path(hex));
    } catch (error) {
      await rm(staging, { recursive: true, force: true });
      throw error;
    }
    await syncFolder(this.#folders.bytes);
    const sizeBytes = sidecar.artifact.ext4_size_bytes;
    this.#held.set(hex, { hex, sizeBytes, sidecars: new Map([[id, sidecar]]) });
  }

  /** These bytes are held: drops the new ones, or puts them in the place of damaged ones. */
  async #adopt(hex: string, scratchPath: string, chunks: Uint8Array): Promise<void> {
    if (!this.#suspect.has(hex) && this.findDigest(`sha256:${hex}`) !== undefined) {
      await rm(scratchPath);
      return;
    }
    // Somebody may have taken the folder away, or put others in the place of its files.
    await mkdir(this.#path(hex), { recursive: true, mode: 0o750 });
    for (const name of [CHUNKS, ROOTFS]) await this.#dropFolder(this.#path(hex, name));
    const scratch = this.#stagingPath();
    await replaceFile(this.#path(hex, CHUNKS), chunks, { scratch, mode: FILE_MODE });
    await rename(scratchPath, this.#path(hex, ROOTFS));
    await syncFolder(this.#path(hex));
    this.#suspect.delete(hex);
    this.#log.info("an artifact's damaged bytes were replaced", { digest: `sha256:${hex}` });
  }

  /** No file can be renamed over a folder. */
  async #dropFolder(path: string): Promise<void> {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) await rm(path, { recursive: true });
  }

  async #name(hex: string, sidecar: ArtifactSidecar, text: string): Promise<StoredArtifact> {
    const { artifact_id: artifactId, ext4_size_bytes: sizeBytes } = sidecar.artifact;
    const held = this.#held.get(hex);
    if (held === undefined) throw missing(`sha256:${hex}`);
    if (held.sidecars.get(artifactId) !== sidecar) {
      const path = this.#path(hex, `${artifactId}.json`);
      await replaceFile(path, text, { scratch: this.#stagingPath(), mode: FILE_MODE });
      held.sidecars.set(artifactId, sidecar);
    }
    const former = this.#names.get(artifactId);
    this.#names.set(artifactId, hex);
    if (former !== undefined && former !== hex) await this.#dropName(artifactId, former);
    return { artifactId, digest: `sha256:${hex}`, path: this.#path(hex, ROOTFS), sizeBytes };
  }

  /** The bytes go with the last id that names them. */
  async #dropName(artifactId: string, hex: string): Promise<void> {
    const held = this.#held.get(hex);
    if (held === undefined) return;
    const others = [...held.sidecars.keys()].filter((id) => id !== artifactId);
    if (others.length > 0) {
      await unlink(this.#path(hex, `${artifactId}.json`));
      await syncFolder(this.#path(hex));
      held.sidecars.delete(artifactId);
      return;
    }
    const staging = this.#stagingPath();
    await rename(this.#path(hex), staging);
    await syncFolder(this.#folders.bytes);
    this.#held.delete(hex);
    this.#suspect.delete(hex);
    await rm(staging, { recursive: true, force: true });
  }
}

function assertSafe(name: string, what: string): void {
  if (isSafeId(name)) return;
  throw new AppError("invalid_request", `${what} ${JSON.stringify(name)} is not valid`);
}

/** @throws AppError invalid_request */
function hexOf(digest: string): string {
  const hex = DIGEST.exec(digest)?.[1];
  if (hex !== undefined) return hex;
  throw new AppError("invalid_request", `digest ${JSON.stringify(digest)} is not valid`);
}

const missing = (subject: string, cause?: unknown): AppError =>
  new AppError("artifact_source_missing", `the file of ${subject} is missing`, { cause });
