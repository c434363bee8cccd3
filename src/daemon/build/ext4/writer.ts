/**
 * Writes an ext4 image from a tree that is told to it entry by entry: file data goes to its place
 * as it comes, everything that depends on the whole (directories, inodes, bitmaps, descriptors) is
 * written by `finish`, behind the data, where flex_bg allows it to be.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import type { ChunkManifest } from "../../../domain/index.ts";
import { AppError, CHUNK_SIZE_BYTES, encodeChunkManifest } from "../../../domain/core.ts";
import type { FileWriter, NodeMetadata, RootfsTree, TreeNode } from "../rootfs-tree.ts";
import { Allocator, hashName } from "./allocator.ts";
import { ChunkSink } from "./chunk-sink.ts";
import { FileData } from "./file-data.ts";
import { finishImage } from "./finish.ts";
import { BLOCK_BYTES, blocksFor } from "./layout.ts";
import { Ext4Node, entriesOf } from "./node.ts";

export interface Ext4Options {
  /** 16 bytes; the caller derives them from the content. */
  readonly uuid: Uint8Array;
  /** 16 bytes; default: the uuid's bytes in reverse. */
  readonly hashSeed?: Uint8Array;
  readonly label?: string;
  /** Free space beyond the default sizing. */
  readonly extraFreeBytes?: number;
  /** Flush the file to the disk before `finish` resolves. */
  readonly sync: boolean;
}

export interface Ext4Result {
  /** `sha256:<hex>` of the encoded chunk manifest. */
  readonly digest: string;
  readonly manifest: ChunkManifest;
  readonly sizeBytes: number;
  /** Bytes of regular files. */
  readonly dataBytes: number;
  /** Directory entries. */
  readonly entries: number;
}

const ROOT_METADATA: NodeMetadata = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
  xattrs: new Map(),
};

export class Ext4Writer implements RootfsTree {
  readonly root: Ext4Node;
  readonly #path: string;
  readonly #options: Ext4Options;
  readonly #sink: ChunkSink;
  readonly #allocator = new Allocator();
  /** In the order they came, which is the order of their inode numbers. */
  readonly #nodes: Ext4Node[] = [];
  #writing = false;

  private constructor(path: string, options: Ext4Options, sink: ChunkSink) {
    this.#path = path;
    this.#options = options;
    this.#sink = sink;
    this.root = new Ext4Node("directory", ROOT_METADATA);
    this.root.parent = this.root;
    this.root.linkCount = 2;
  }

  /** @param outputPath of a file that does not exist yet */
  static async create(outputPath: string, options: Ext4Options): Promise<Ext4Writer> {
    return new Ext4Writer(outputPath, options, await ChunkSink.create(outputPath));
  }

  child(directory: TreeNode, name: string): Ext4Node | undefined {
    return (directory as Ext4Node).children?.get(name);
  }

  children(directory: TreeNode): IterableIterator<readonly [string, TreeNode]> {
    return entriesOf(directory as Ext4Node).entries();
  }

  addDirectory(parent: TreeNode, name: string, metadata: NodeMetadata): Ext4Node {
    const known = this.child(parent, name);
    if (known?.kind === "directory") {
      known.metadata = metadata;
      return known;
    }
    const node = this.#add(parent as Ext4Node, name, new Ext4Node("directory", metadata));
    node.parent = parent as Ext4Node;
    node.pathHash = hashName(node.parent.pathHash, name);
    node.linkCount = 2;
    node.parent.linkCount++;
    return node;
  }

  addFile(parent: TreeNode, name: string, metadata: NodeMetadata, sizeBytes: number): FileWriter {
    if (this.#writing) throw new AppError("internal", "another file is still being written");
    const node = this.#add(parent as Ext4Node, name, new Ext4Node("file", metadata));
    node.sizeBytes = sizeBytes;
    this.#allocator.startFile(hashName((parent as Ext4Node).pathHash, name), blocksFor(sizeBytes));
    this.#writing = true;
    return new FileData(node, this.#allocator, this.#sink, () => (this.#writing = false));
  }

  addSymlink(parent: TreeNode, name: string, metadata: NodeMetadata, target: string): TreeNode {
    if (target.length === 0 || target.length >= BLOCK_BYTES) {
      throw new AppError("image_refused", `symlink target of ${target.length} bytes`, {
        meta: { reason: "symlink_target" },
      });
    }
    const node = this.#add(parent as Ext4Node, name, new Ext4Node("symlink", metadata));
    node.target = target;
    node.sizeBytes = target.length;
    return node;
  }

  addDevice(
    parent: TreeNode,
    name: string,
    metadata: NodeMetadata,
    device: { kind: "chardev" | "blockdev"; major: number; minor: number },
  ): TreeNode {
    const node = this.#add(parent as Ext4Node, name, new Ext4Node(device.kind, metadata));
    node.device = device;
    return node;
  }

  addFifo(parent: TreeNode, name: string, metadata: NodeMetadata): TreeNode {
    return this.#add(parent as Ext4Node, name, new Ext4Node("fifo", metadata));
  }

  addLink(parent: TreeNode, name: string, node: TreeNode): void {
    const linked = node as Ext4Node;
    if (this.child(parent, name) === linked) return;
    if (linked.kind === "directory" || linked.linkCount === 0 || linked.linkCount >= 65_000) {
      throw new AppError("image_refused", "a hard link that ext4 cannot hold", {
        meta: { reason: "hardlink" },
      });
    }
    // Counted first: the entry replaced may be the folder that holds the inode's only other name.
    linked.linkCount++;
    this.remove(parent, name);
    entriesOf(parent as Ext4Node).set(name, linked);
  }

  remove(parent: TreeNode, name: string): void {
    const entries = entriesOf(parent as Ext4Node);
    const node = entries.get(name);
    if (node === undefined) return;
    entries.delete(name);
    if (node.children !== undefined) {
      for (const inner of [...node.children.keys()]) this.remove(node, inner);
      node.linkCount = 0;
      (parent as Ext4Node).linkCount--;
      return;
    }
    node.linkCount--;
    if (node.linkCount === 0) this.#allocator.free(node.extents);
  }

  setMetadata(node: TreeNode, metadata: NodeMetadata): void {
    (node as Ext4Node).metadata = metadata;
  }

  async readFile(node: TreeNode): Promise<Uint8Array> {
    const { extents, sizeBytes } = node as Ext4Node;
    const content = Buffer.alloc(sizeBytes);
    for (const { logical, physical, length } of extents) {
      const start = logical * BLOCK_BYTES;
      const bytes = Math.min(length * BLOCK_BYTES, sizeBytes - start);
      content.set(await this.#sink.read(physical * BLOCK_BYTES, bytes), start);
    }
    return content;
  }

  pressure(): Promise<void> | undefined {
    return this.#sink.pressure();
  }

  /** Writes what is left and closes the file. @throws AppError image_too_large, disk_space_low */
  async finish(): Promise<Ext4Result> {
    const { uuid, hashSeed = Buffer.from(uuid).reverse(), label = "", sync } = this.#options;
    const { sizeBytes, hashes, dataBytes, entries } = await finishImage({
      root: this.root,
      nodes: this.#nodes,
      sink: this.#sink,
      allocator: this.#allocator,
      identity: { uuid, hashSeed, label },
      extraFreeBytes: this.#options.extraFreeBytes ?? 0,
      sync,
    });
    await this.#sink.close();
    const manifest = { sizeBytes, chunkSizeBytes: CHUNK_SIZE_BYTES, hashes };
    const digest = createHash("sha256").update(encodeChunkManifest(manifest)).digest("hex");
    return { digest: `sha256:${digest}`, manifest, sizeBytes, dataBytes, entries };
  }

  /** Closes and removes the file. */
  async abort(): Promise<void> {
    await this.#sink.close();
    await rm(this.#path, { force: true });
  }

  #add(parent: Ext4Node, name: string, node: Ext4Node): Ext4Node {
    if (name === "" || name.length > 255 || /[/\0]/.test(name) || name === "." || name === "..") {
      throw new AppError("image_refused", `${JSON.stringify(name)} is no name`, {
        meta: { reason: "name" },
      });
    }
    this.remove(parent, name);
    entriesOf(parent).set(name, node);
    node.linkCount = 1;
    this.#nodes.push(node);
    return node;
  }
}
