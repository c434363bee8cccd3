/**
 * What an image gets when its tree is complete: directories, inodes, journal, bitmaps, descriptors.
 */
import { AppError } from "../../../domain/core.ts";
import type { Allocator, Extent } from "./allocator.ts";
import type { ChunkSink } from "./chunk-sink.ts";
import { buildDirectory } from "./directory.ts";
import { buildExtentTree, joinExtents } from "./extents.ts";
import {
  ATTRIBUTES_ROOM,
  ATTRIBUTES_START,
  FILE_TYPE,
  FLAG_EXTENTS,
  FLAG_INDEX,
  deviceData,
  encodeInode,
  inodeSeed,
} from "./inode.ts";
import {
  BLOCKS_PER_GROUP,
  BLOCK_BYTES,
  FIRST_INODE,
  INODE_BYTES,
  JOURNAL_INODE,
  MAX_GROUPS,
  ROOT_INODE,
  blocksFor,
  geometryOf,
  imageBytes,
  journalBlocks,
  type Geometry,
} from "./layout.ts";
import { Ext4Node, entriesOf } from "./node.ts";
import {
  checksumSeedOf,
  encodeDescriptors,
  encodeSuperblock,
  journalSuperblock,
  superblockBlocks,
  type FilesystemIdentity,
  type GroupState,
} from "./superblock.ts";
import { attributeBlock, parseAttributes, splitAttributes, writeInodeAttributes } from "./xattr.ts";

export interface FinishInput {
  readonly root: Ext4Node;
  readonly nodes: readonly Ext4Node[];
  readonly sink: ChunkSink;
  readonly allocator: Allocator;
  readonly identity: FilesystemIdentity;
  readonly extraFreeBytes: number;
  readonly sync: boolean;
}

export interface Finished {
  readonly sizeBytes: number;
  readonly hashes: Uint8Array;
  readonly dataBytes: number;
  readonly entries: number;
}

/** Blocks to write at places above all data, gathered so that they can go out in order. */
class Placement {
  readonly used: { start: number; length: number }[] = [];
  readonly #writes: { block: number; bytes: Buffer }[] = [];

  mark(start: number, length: number): void {
    this.used.push({ start, length });
  }

  write(block: number, bytes: Buffer): void {
    this.#writes.push({ block, bytes });
  }

  /** Hands everything to the sink in the order of its place. */
  async flush(sink: ChunkSink): Promise<void> {
    this.#writes.sort((a, b) => a.block - b.block);
    for (const { block, bytes } of this.#writes) {
      sink.put(block * BLOCK_BYTES, bytes);
      const pressure = sink.pressure();
      if (pressure !== undefined) await pressure;
    }
  }
}

export async function finishImage(input: FinishInput): Promise<Finished> {
  const { allocator, sink, root } = input;
  await sink.clear(mergeRanges(allocator.freed));
  addLostAndFound(input);
  const live = input.nodes.filter((node) => node.linkCount > 0);
  root.number = ROOT_INODE;
  live.forEach((node, index) => (node.number = FIRST_INODE + index));
  const place = new Placement();
  const seed = checksumSeedOf(input.identity.uuid);
  // Data, and what describes it, never share a chunk.
  allocator.alignChunk();
  const inodes = new Map<number, Buffer>();
  let dataBytes = 0;
  let entries = 0;
  for (const node of [root, ...live]) {
    if (node.kind === "file") dataBytes += node.sizeBytes;
    entries += node.children?.size ?? 0;
    inodes.set(node.number, writeNode(node, input, place, seed));
  }
  const plan = planSize(input, {
    dataBytes,
    files: live.length,
    inodes: FIRST_INODE + live.length,
  });
  allocator.alignChunk();
  const journal = writeJournal(input, plan, place, seed);
  inodes.set(JOURNAL_INODE, journal.inode);
  writeGroups(input, plan, place, {
    inodes,
    journal,
    seed,
    directories: countDirectories(root, live),
  });
  await place.flush(sink);
  const hashes = await sink.finish(plan.sizeBytes, input.sync);
  return { sizeBytes: plan.sizeBytes, hashes, dataBytes, entries };
}

function mergeRanges(freed: readonly { start: number; length: number }[]) {
  return [...freed]
    .filter(({ length }) => length > 0)
    .sort((a, b) => a.start - b.start)
    .map(({ start, length }) => ({
      start: start * BLOCK_BYTES,
      end: (start + length) * BLOCK_BYTES,
    }));
}

/** e2fsck moves what it saves here; an image may bring its own. */
function addLostAndFound({ root, nodes }: FinishInput): void {
  if (entriesOf(root).has("lost+found")) return;
  const node = new Ext4Node("directory", { ...root.metadata, mode: 0o700, xattrs: new Map() });
  node.linkCount = 2;
  node.parent = root;
  root.linkCount++;
  entriesOf(root).set("lost+found", node);
  (nodes as Ext4Node[]).push(node);
}

const countDirectories = (root: Ext4Node, live: readonly Ext4Node[]): number[] =>
  [root, ...live].filter((node) => node.kind === "directory").map((node) => node.number);

/** Places what belongs to one inode beside its data, and answers its 256 bytes. */
function writeNode(node: Ext4Node, input: FinishInput, place: Placement, seed: number): Buffer {
  const { allocator } = input;
  const ownSeed = inodeSeed(seed, node.number);
  const takeBlock = () => {
    const block = allocator.takeRun(1);
    place.mark(block, 1);
    return block;
  };
  let flags = 0;
  let data: Buffer = Buffer.alloc(60);
  let size = node.sizeBytes;
  let blocks = 0;
  if (node.kind === "directory") {
    const built = directoryBlocks(node, ownSeed, input.identity.hashSeed);
    node.extents = allocator.take(0, built.blocks.length);
    writeBlocks(node.extents, built.blocks, place);
    size = built.blocks.length * BLOCK_BYTES;
    flags |= built.indexed ? FLAG_INDEX : 0;
  } else if (node.target !== undefined && node.target.length >= 60) {
    node.extents = allocator.take(0, 1);
    const bytes = Buffer.alloc(BLOCK_BYTES);
    bytes.write(node.target, "latin1");
    writeBlocks(node.extents, [bytes], place);
  }
  if (node.device !== undefined) data = deviceData(node.device.major, node.device.minor);
  else if (node.target !== undefined && node.target.length < 60) data.write(node.target, "latin1");
  else if (node.kind !== "fifo" && node.kind !== "socket") {
    const tree = buildExtentTree(joinExtents(node.extents), ownSeed, takeBlock);
    for (const { physical, bytes } of tree.blocks) place.write(physical, bytes);
    for (const { physical, length } of node.extents) place.mark(physical, length);
    data = tree.root;
    blocks = tree.blocks.length + node.extents.reduce((sum, { length }) => sum + length, 0);
    flags |= FLAG_EXTENTS;
  }
  const attributes = splitAttributes(parseAttributes(node.metadata.xattrs), ATTRIBUTES_ROOM);
  const attributeAt = attributes.block.length === 0 ? 0 : takeBlock();
  if (attributeAt !== 0) {
    place.write(attributeAt, attributeBlock(attributes.block, attributeAt, seed));
    blocks++;
  }
  return encodeInode(
    {
      number: node.number,
      kind: node.kind,
      metadata: node.metadata,
      links: node.linkCount,
      sizeBytes: size,
      blocks,
      flags,
      data,
      attributeBlock: attributeAt,
      writeAttributes: (inode) => writeInodeAttributes(inode, ATTRIBUTES_START, attributes.inode),
    },
    seed,
  );
}

function directoryBlocks(node: Ext4Node, seed: number, hashSeed: Uint8Array) {
  const words = Buffer.from(hashSeed);
  const entries = [...entriesOf(node)].map(([name, child]) => ({
    name,
    inode: child.number,
    type: FILE_TYPE[child.kind],
  }));
  const dir = { inode: node.number, parent: node.parent?.number ?? ROOT_INODE };
  return buildDirectory(
    dir,
    entries,
    seed,
    [0, 4, 8, 12].map((at) => words.readUInt32LE(at)),
  );
}

function writeBlocks(
  extents: readonly Extent[],
  blocks: readonly Buffer[],
  place: Placement,
): void {
  for (const { logical, physical, length } of extents) {
    for (let i = 0; i < length; i++) place.write(physical + i, blocks[logical + i] as Buffer);
  }
}

interface Plan {
  readonly sizeBytes: number;
  readonly geometry: Geometry;
  readonly journalBlocks: number;
}

/** The smallest size that the rule allows and that everything fits into. */
function planSize(
  { allocator, extraFreeBytes }: FinishInput,
  counts: { dataBytes: number; files: number; inodes: number },
): Plan {
  let metadataBlocks = 0;
  for (let round = 0; round < 16; round++) {
    const usedBytes = (allocator.end + metadataBlocks) * BLOCK_BYTES;
    const sizeBytes = imageBytes({ ...counts, extraFreeBytes, usedBytes });
    const geometry = geometryOf(sizeBytes, counts.inodes);
    if (geometry.groups > MAX_GROUPS) {
      throw new AppError("image_too_large", `an image of ${sizeBytes} bytes has too many groups`, {
        meta: { size_bytes: sizeBytes, max_groups: MAX_GROUPS },
      });
    }
    const journal = journalBlocks(geometry.blocks);
    const need = journal + geometry.groups * (2 + geometry.inodeTableBlocks + 16);
    if (need <= metadataBlocks) return { sizeBytes, geometry, journalBlocks: journal };
    metadataBlocks = need;
  }
  throw new AppError("internal", "the size of the image does not settle");
}

function writeJournal(input: FinishInput, plan: Plan, place: Placement, seed: number) {
  const extents = joinExtents(input.allocator.take(0, plan.journalBlocks));
  for (const { physical, length } of extents) place.mark(physical, length);
  const first = extents[0] as Extent;
  place.write(first.physical, journalSuperblock(plan.journalBlocks, input.identity.uuid));
  const takeBlock = () => {
    const block = input.allocator.takeRun(1);
    place.mark(block, 1);
    return block;
  };
  const tree = buildExtentTree(extents, inodeSeed(seed, JOURNAL_INODE), takeBlock);
  for (const { physical, bytes } of tree.blocks) place.write(physical, bytes);
  const sizeBytes = plan.journalBlocks * BLOCK_BYTES;
  const inode = encodeInode(
    {
      number: JOURNAL_INODE,
      kind: "file",
      metadata: { ...input.root.metadata, mode: 0o600, uid: 0, gid: 0 },
      links: 1,
      sizeBytes,
      blocks: plan.journalBlocks + tree.blocks.length,
      flags: FLAG_EXTENTS,
      data: tree.root,
      attributeBlock: 0,
      writeAttributes: () => undefined,
    },
    seed,
  );
  return { inode, data: tree.root, sizeBytes };
}

/** One bit a block over the whole image. */
function blockBits(geometry: Geometry, place: Placement): Buffer {
  const bits = Buffer.alloc(geometry.groups * BLOCK_BYTES);
  const mark = (start: number, length: number) => {
    for (let block = start; block < start + length; block++) {
      if (block % 8 === 0 && start + length - block >= 8) {
        bits[block >> 3] = 0xff;
        block += 7;
      } else bits[block >> 3] = (bits[block >> 3] as number) | (1 << (block & 7));
    }
  };
  for (const { start, length } of place.used) mark(start, length);
  for (let group = 0; group < geometry.groups; group++) {
    mark(group * BLOCKS_PER_GROUP, superblockBlocks(group, geometry));
  }
  mark(geometry.blocks, geometry.groups * BLOCKS_PER_GROUP - geometry.blocks);
  return bits;
}

const zeroBits = (bytes: Buffer): number => {
  let ones = 0;
  for (const byte of bytes) {
    if (byte === 0) continue;
    if (byte === 0xff) ones += 8;
    else for (let bits = byte; bits !== 0; bits &= bits - 1) ones++;
  }
  return bytes.length * 8 - ones;
};

function writeGroups(
  { allocator, identity }: FinishInput,
  { geometry }: Plan,
  place: Placement,
  content: {
    inodes: ReadonlyMap<number, Buffer>;
    journal: { data: Buffer; sizeBytes: number };
    seed: number;
    directories: readonly number[];
  },
): void {
  const { groups: count, inodesPerGroup, inodeTableBlocks } = geometry;
  allocator.alignChunk();
  const take = (blocks: number) =>
    Array.from({ length: count }, () => {
      const start = allocator.takeRun(blocks);
      place.mark(start, blocks);
      return start;
    });
  const blockBitmaps = take(1);
  const inodeBitmaps = take(1);
  const tables = take(inodeTableBlocks);
  const bits = blockBits(geometry, place);
  // Not Math.max(...): that many arguments overflow the stack.
  let last = 0;
  for (const inode of content.inodes.keys()) last = Math.max(last, inode);
  const groups = tables.map((table, index): GroupState => {
    const firstInode = index * inodesPerGroup + 1;
    const used = Math.min(Math.max(last - firstInode + 1, 0), inodesPerGroup);
    const inodeBitmap = Buffer.alloc(BLOCK_BYTES);
    for (let bit = 0; bit < BLOCK_BYTES * 8; bit++) {
      if (bit < used || bit >= inodesPerGroup) {
        inodeBitmap[bit >> 3] = (inodeBitmap[bit >> 3] as number) | (1 << (bit & 7));
      }
    }
    const bytes = Buffer.alloc(blocksFor(used * INODE_BYTES) * BLOCK_BYTES);
    for (let i = 0; i < used; i++) {
      const inode = content.inodes.get(firstInode + i);
      if (inode !== undefined) bytes.set(inode, i * INODE_BYTES);
    }
    if (bytes.length > 0) place.write(table, bytes);
    const blockBitmap = bits.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
    place.write(blockBitmaps[index] as number, blockBitmap);
    place.write(inodeBitmaps[index] as number, inodeBitmap);
    return {
      blockBitmapBlock: blockBitmaps[index] as number,
      inodeBitmapBlock: inodeBitmaps[index] as number,
      inodeTableBlock: table,
      blockBitmap,
      inodeBitmap,
      freeBlocks: zeroBits(blockBitmap),
      usedInodes: used,
      directories: content.directories.filter(
        (inode) => inode >= firstInode && inode < firstInode + inodesPerGroup,
      ).length,
    };
  });
  writeSuperblocks(groups, geometry, place, { identity, ...content });
}

function writeSuperblocks(
  groups: readonly GroupState[],
  geometry: Geometry,
  place: Placement,
  content: {
    identity: FilesystemIdentity;
    journal: { data: Buffer; sizeBytes: number };
    seed: number;
  },
): void {
  const descriptors = Buffer.alloc(geometry.descriptorBlocks * BLOCK_BYTES);
  descriptors.set(encodeDescriptors(groups, geometry.inodesPerGroup, content.seed));
  const fields = {
    identity: content.identity,
    geometry,
    freeBlocks: groups.reduce((sum, group) => sum + group.freeBlocks, 0),
    freeInodes: groups.reduce((sum, group) => sum + geometry.inodesPerGroup - group.usedInodes, 0),
    journalData: content.journal.data,
    journalBytes: content.journal.sizeBytes,
    writtenKib: 0,
  };
  for (let group = 0; group < geometry.groups; group++) {
    if (superblockBlocks(group, geometry) === 0) continue;
    const block = Buffer.alloc(BLOCK_BYTES);
    // In group 0 the first 1024 bytes are the boot sector's.
    block.set(encodeSuperblock(fields, group), group === 0 ? 1_024 : 0);
    place.write(group * BLOCKS_PER_GROUP, block);
    place.write(group * BLOCKS_PER_GROUP + 1, descriptors);
  }
}
