/**
 * The contract between the side that reads layers (build/layers) and the side that lays out a
 * filesystem (build/ext4). Names and link targets are *byte strings*: one character per byte
 * (`buffer.toString("latin1")`), so that names that are not UTF-8 survive, and Map lookups stay
 * fast.
 *
 * Layout-stability is a duty of the writer: data of a file is placed when the file is added, in
 * order, and nothing that is added later moves it. What a later layer replaces or removes gives
 * its blocks back (they read as zeros in the finished file).
 */
export interface NodeMetadata {
  /** Permission bits, setuid, setgid and sticky included (12 bits). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch (may be negative or above 2^32) and nanoseconds 0..999 999 999. */
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** Full attribute names (`security.capability`, `user.x`, `trusted.y`, POSIX ACLs) to values. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

export type NodeKind =
  "file" | "directory" | "symlink" | "chardev" | "blockdev" | "fifo" | "socket";

/** An inode. Opaque to the layer reader but for these. */
export interface TreeNode {
  readonly kind: NodeKind;
  readonly metadata: NodeMetadata;
  /** Directory entries that name it. */
  readonly linkCount: number;
  /** Bytes of a regular file; length of a symlink's target. */
  readonly sizeBytes: number;
  /** Symlinks only. */
  readonly target?: string;
}

export interface FileWriter {
  readonly node: TreeNode;
  /** Copies the bytes; the caller may reuse the buffer at once. */
  write(bytes: Uint8Array): void;
  /** A hole of that many bytes: no blocks are taken for whole blocks of it. */
  skip(bytes: number): void;
  /** @throws AppError internal when fewer or more bytes came than the size announced. */
  end(): void;
}

export interface RootfsTree {
  readonly root: TreeNode;
  /** The entry `name` of a directory. */
  child(directory: TreeNode, name: string): TreeNode | undefined;
  children(directory: TreeNode): IterableIterator<readonly [string, TreeNode]>;
  /**
   * Each `add` replaces an existing entry of that name. A directory over a directory keeps its
   * children and takes the new metadata.
   */
  addDirectory(parent: TreeNode, name: string, metadata: NodeMetadata): TreeNode;
  /** The file's blocks are placed now. Only one FileWriter may be open at a time. */
  addFile(parent: TreeNode, name: string, metadata: NodeMetadata, sizeBytes: number): FileWriter;
  addSymlink(parent: TreeNode, name: string, metadata: NodeMetadata, target: string): TreeNode;
  addDevice(
    parent: TreeNode,
    name: string,
    metadata: NodeMetadata,
    device: { kind: "chardev" | "blockdev"; major: number; minor: number },
  ): TreeNode;
  addFifo(parent: TreeNode, name: string, metadata: NodeMetadata): TreeNode;
  /** A hard link to an existing inode that is not a directory. */
  addLink(parent: TreeNode, name: string, node: TreeNode): void;
  /** Removes an entry, with everything below it. No error if it is not there. */
  remove(parent: TreeNode, name: string): void;
  setMetadata(node: TreeNode, metadata: NodeMetadata): void;
  /** Content of a regular file already added (for baking into certificate bundles; small files). */
  readFile(node: TreeNode): Promise<Uint8Array>;
  /** Undefined while the writes under way are few; else a promise to await before adding more. */
  pressure(): Promise<void> | undefined;
}
