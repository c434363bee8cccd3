/**
 * What the archive reader hands on: one entry at a time, extended headers already applied, sparse
 * maps already resolved. Names are byte strings, as in rootfs-tree.ts, exactly as in the archive.
 */
export type TarEntryKind =
  "file" | "directory" | "symlink" | "hardlink" | "chardev" | "blockdev" | "fifo";

export interface TarEntry {
  readonly kind: TarEntryKind;
  readonly name: string;
  /** Target of a symlink, or name of the entry a hard link joins; else empty. */
  readonly linkName: string;
  /** 12 bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** Logical bytes of a file (holes included); 0 for everything else. */
  readonly sizeBytes: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** Where a file's bytes go, in order; the buffer belongs to the reader again after each call. */
export interface FileSink {
  write(bytes: Uint8Array): void;
  skip(bytes: number): void;
  end(): void;
}

export interface TarHandler {
  /** For a file, the sink of its bytes; its answer for other kinds is ignored. */
  entry(entry: TarEntry): FileSink | undefined;
}
