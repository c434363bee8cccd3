/**
 * The interfaces through which the outside comes in. Declared here by the side that needs them;
 * adapters implement them in storage and daemon; `daemon/wire.ts` joins them.
 */
import type { ChunkManifest } from "./chunk-manifest.ts";
import type { Entry, EntryKind } from "./entry.ts";
import type { ArtifactRecord } from "./schema.ts";
import type { Bitfield } from "./swarm.ts";

/* ---- effects -------------------------------------------------------------------------------- */

export interface Clock {
  /** Wall clock, milliseconds since the epoch. Only for showing and for stored timestamps. */
  now(): number;
  /** Monotonic milliseconds, for durations and deadlines. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts. */
  sleep(ms: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** Calls back once after `ms`, without keeping the process alive. */
  after(ms: number, callback: () => void): { cancel(): void };
}

export interface Random {
  bytes(length: number): Uint8Array;
  /** RFC 9562 version 4. */
  uuid(): string;
}

/** The daemon's own folders: what lies in them is taken away as a whole. */
export interface Folders {
  /** Names of what lies in it; none when it is not there. */
  names(dir: string): Promise<readonly string[]>;
  /** A file, or a folder with all that it holds. No error if it is gone. */
  remove(path: string): Promise<void>;
  /** A second name for the same file; a copy where there can be none. */
  link(from: string, to: string): Promise<void>;
}

export type LogFields = Record<string, unknown>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  child(fields: LogFields): Log;
}

/* ---- image sources -------------------------------------------------------------------------- */

/** Registry credentials are used and dropped: never stored, never logged. */
export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
}

export interface Platform {
  readonly os: "linux";
  /** OCI architecture: amd64, arm64, … */
  readonly architecture: string;
  readonly variant?: string;
}

export interface LayerDescriptor {
  /** `sha256:<hex>` of the blob as stored (compressed). */
  readonly digest: string;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly compression: "gzip" | "zstd" | "none";
  /** `sha256:<hex>` of the uncompressed tar, from the image config. */
  readonly diffId: string;
}

/** What is kept of the OCI image config (spec §3.3). */
export interface ImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly env: readonly string[];
  readonly working_dir: string;
  readonly user: string;
  readonly exposed_ports: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/** An image whose manifest and config have been fetched and verified; its layers can be opened. */
export interface ResolvedImage {
  /** The bare digest of the platform's manifest, `sha256:<hex>`, whatever the source was. */
  readonly digest: string;
  /** The reference as it is shown: normalised, without credentials. */
  readonly reference: string;
  readonly config: ImageConfig;
  /** Lowest first. */
  readonly layers: readonly LayerDescriptor[];
  /**
   * The blob of layer `index` as stored, checked against its digest at its end (the stream errors
   * with `image_digest_mismatch`). May be called for several layers at once.
   */
  openLayer(
    index: number,
    options?: { signal?: AbortSignal; onBytes?: (bytes: number) => void },
  ): AsyncIterable<Uint8Array>;
  /** Releases scratch files and connections; may be called twice. */
  close(): Promise<void>;
}

export interface ImageSource {
  /**
   * @param reference `host/name:tag`, `…@sha256:…`, `oci:DIR[:tag]`, `oci-archive:FILE`,
   * `docker-archive:FILE`.
   * @throws AppError invalid_image_reference, image_not_found, image_platform_missing,
   *   registry_unauthorized, registry_unavailable, image_digest_mismatch, image_refused
   */
  resolve(
    reference: string,
    options: {
      platform: Platform;
      credentials?: RegistryCredentials;
      /** A folder of this job's own for what must be kept on disk; emptied by `close`. */
      scratchDir: string;
      signal?: AbortSignal;
    },
  ): Promise<ResolvedImage>;
}

/* ---- image to ext4 -------------------------------------------------------------------------- */

/** What is baked into the root filesystem besides the image (spec §3.9). Bytes, read once. */
export interface BakeInputs {
  /** PEM of the CubeEgress root CA; absent when not wanted. */
  readonly caPem?: Uint8Array;
  /** The in-guest agent for /usr/local/bin/envd; absent when not wanted. */
  readonly envd?: Uint8Array;
}

export interface BakeResult {
  readonly ca_baked: boolean;
  readonly ca_seeded: boolean;
  readonly ca_targets_written: number;
  readonly envd_installed: boolean;
}

export interface RootfsBuildOptions {
  /** Free space for growth beyond the default sizing (spec §3.8), in bytes. */
  readonly extraFreeBytes?: number;
  readonly bake?: BakeInputs;
}

export interface RootfsBuildProgress {
  /** Compressed bytes read so far and in total, layers ended and in total. */
  readonly downloadedBytes: number;
  readonly totalBytes: number;
  readonly completedLayers: number;
  readonly totalLayers: number;
  /** Entries and bytes put into the filesystem so far. */
  readonly entries: number;
  readonly writtenBytes: number;
  /** Which seed phase the work is in now. */
  readonly phase: "PULLING" | "UNPACKING" | "BUILDING_EXT4";
}

export interface RootfsBuildResult {
  /** `sha256:<hex>` of the encoded chunk manifest. */
  readonly digest: string;
  readonly manifest: ChunkManifest;
  readonly sizeBytes: number;
  /** Bytes of regular files in the image. */
  readonly dataBytes: number;
  readonly entries: number;
  readonly bake: BakeResult;
  readonly timings: Readonly<Record<string, number>>;
}

export interface RootfsBuilder {
  /**
   * Streams the layers into an ext4 file at `outputPath` (which must not exist). On failure the
   * file is removed. The file is written and, when `sync`, flushed to disk.
   * @throws AppError image_refused, image_digest_mismatch, image_too_large, disk_space_low,
   * ca_invalid
   */
  build(
    image: ResolvedImage,
    outputPath: string,
    options: RootfsBuildOptions & {
      sync: boolean;
      signal?: AbortSignal;
      onProgress?: (progress: RootfsBuildProgress) => void;
    },
  ): Promise<RootfsBuildResult>;
}

/* ---- catalog (storage) ----------------------------------------------------------------------- */

/** One write to a local table: physical detail that never leaves this node. */
export interface LocalWrite {
  readonly table: LocalTableName;
  readonly key: string;
  /** Absent: the row is deleted. */
  readonly value?: unknown;
}

export type LocalTableName =
  /** template id → DriverSnapshot: where this node keeps a template's VM snapshot. */
  | "driver-snapshot"
  /** sandbox id → SandboxInfo and its folder. */
  | "sandbox"
  /** job id / zero-padded sequence → JobLogLine. */
  | "job-log"
  /** idempotency key → stored answer. */
  | "idempotency"
  /** zero-padded sequence → audit row. */
  | "audit"
  /** small single values: node incarnation, KVM trial outcome, … */
  | "setting"
  /** kind NUL id → what this voter promised and accepted; "@voters" → its configuration. */
  | "register"
  /** peer id → up to where this node has pulled that peer's change feed. */
  | "checkpoint"
  /** zero-padded number → RuntimeRef. */
  | "runtime-ref";

export interface LocalTable {
  get(key: string): Promise<unknown>;
  put(key: string, value: unknown): Promise<void>;
  delete(key: string): Promise<void>;
  /** Rows whose key starts with `prefix`, in key order, after `after` when given. */
  range(options?: {
    prefix?: string;
    after?: string;
    limit?: number;
    reverse?: boolean;
  }): AsyncIterable<readonly [key: string, value: unknown]>;
}

export interface CatalogHealth {
  readonly writable: boolean;
  /** Blank when writable. */
  readonly reason: string;
  readonly entries: number;
}

/**
 * The node's own copy of everything replicated, all of it in memory and durable in LevelDB, and the
 * node's local tables beside it. Reads are synchronous; values must not be changed by the reader.
 */
export interface Catalog {
  get<K extends EntryKind>(owner: string, kind: K, id: string): Entry<K> | undefined;
  /** Live entries (no tombstones) of a kind, ordered by id, then owner. */
  list<K extends EntryKind>(kind: K, options?: { id?: string; owner?: string }): Iterable<Entry<K>>;
  /**
   * Applies entries that supersede what is held, and local writes, in one durable batch; several
   * calls at once share a sync. Answers the entries that were applied. Subscribers are told after
   * the sync. With `sync: false` (progress facts) the batch is not flushed.
   * @throws AppError catalog_degraded when the disk refuses, catalog_unavailable after close
   */
  merge(
    entries: readonly Entry[],
    options?: { local?: readonly LocalWrite[]; sync?: boolean },
  ): Promise<readonly Entry[]>;
  /**
   * Takes entries out without a trace, tombstones too: what is spread no more by anybody. One whose
   * version is given stays when it is held in another by then.
   * @throws as merge
   */
  purge(
    entries: readonly {
      readonly owner: string;
      readonly kind: EntryKind;
      readonly id: string;
      readonly version?: number;
    }[],
    options?: { local?: readonly LocalWrite[] },
  ): Promise<void>;
  /** Tombstones whose local sequence is not above `sequence`, at most `limit`. */
  tombstones(sequence: number, limit: number): Promise<Entry[]>;
  subscribe(listener: (entry: Entry) => void): () => void;
  /** Changes applied after local sequence `since`, latest of each entry only, oldest first. */
  changes(since: number, limit: number): Promise<readonly { sequence: number; entry: Entry }[]>;
  /** The local sequence of the newest change. */
  sequence(): number;
  /** Order-independent hash of (owner, kind, id, version) of all live entries, hex. */
  stateHash(): string;
  table(name: LocalTableName): LocalTable;
  health(): CatalogHealth;
  close(): Promise<void>;
}

/* ---- artifact store (storage) ---------------------------------------------------------------- */

/** What lies beside the bytes, so that a lost catalog loses no artifact. */
export interface ArtifactSidecar {
  readonly artifact: ArtifactRecord;
}

export interface StoredArtifact {
  readonly artifactId: string;
  readonly digest: string;
  readonly path: string;
  readonly sizeBytes: number;
}

/**
 * An artifact of which only some chunks are here. What a checkpoint has confirmed is still there
 * after a crash; `close` keeps it for the next time.
 */
export interface PartialArtifact {
  readonly digest: string;
  readonly manifest: ChunkManifest;
  /** The chunks that are here, holes included. Live: for reading only. */
  readonly have: Bitfield;
  /** @param bytes verified by the caller, of the chunk's exact length */
  writeChunk(index: number, bytes: Uint8Array): Promise<void>;
  /** @throws AppError artifact_source_missing for a chunk that is not here */
  readChunks(indexes: readonly number[]): Promise<readonly Uint8Array[]>;
  /** Flushes the bytes, then the map of what is here. */
  checkpoint(): Promise<void>;
  /** Publishes it as an ordinary artifact. @throws AppError artifact_corrupt if chunks lack */
  finish(): Promise<StoredArtifact>;
  close(): Promise<void>;
}

export interface ArtifactStore {
  /** A path on the store's filesystem for a file that `publish` will take; in `work/`. */
  scratchPath(name: string): string;
  /**
   * Makes a finished file visible under its digest, with its manifest and sidecar: fsync, rename,
   * fsync of the folder. When those bytes are held already the scratch file is dropped.
   */
  publish(
    scratchPath: string,
    manifest: ChunkManifest,
    sidecar: ArtifactSidecar,
  ): Promise<StoredArtifact>;
  /** Adds another artifact id to bytes that are held (equal build key). */
  addSidecar(digest: string, sidecar: ArtifactSidecar): Promise<StoredArtifact>;
  /** The artifact when its file is there, regular, and of the recorded size. */
  find(artifactId: string): StoredArtifact | undefined;
  findDigest(digest: string): { path: string; sizeBytes: number } | undefined;
  manifest(digest: string): Promise<ChunkManifest>;
  /** @throws AppError artifact_source_missing */
  read(
    artifactId: string,
    range?: { start: number; end: number },
  ): Promise<AsyncIterable<Uint8Array>>;
  /**
   * Recomputes every chunk. @throws AppError artifact_corrupt naming the chunks,
   * artifact_source_missing
   */
  verify(
    digest: string,
    options?: { signal?: AbortSignal; pace?: (bytes: number) => Promise<void> },
  ): Promise<void>;
  /** True from a failed `verify` until the bytes were replaced or found right. */
  isSuspect(digest: string): boolean;
  /** Whole chunks of bytes that are held. @throws AppError artifact_source_missing */
  readChunks(digest: string, indexes: readonly number[]): Promise<readonly Uint8Array[]>;
  /**
   * Opens what is here of an artifact, or begins it. Claimed chunks are hashed again. Open once
   * at a time per digest.
   */
  openPartial(artifact: ArtifactRecord, manifest: ChunkManifest): Promise<PartialArtifact>;
  /** The manifest kept beside a partial artifact. */
  partialManifest(digest: string): Promise<ChunkManifest | undefined>;
  /** Digests of the partial artifacts on disk. */
  partials(): Promise<readonly string[]>;
  /** True while it is fetched or served. */
  isPartialOpen(digest: string): boolean;
  /** No error if it is gone. */
  discardPartial(digest: string): Promise<void>;
  /** Drops the artifact id, and the bytes with the last id that names them. */
  remove(artifactId: string): Promise<void>;
  /** What is on disk: read at start; half-published and scratch files have been swept. */
  inventory(): readonly ArtifactSidecar[];
}
