/** Extent trees (ext4 "Extent Tree"): four extents in the inode, else leaves and index blocks. */
import { crc32c } from "./crc32c.ts";
import type { Extent } from "./allocator.ts";
import { BLOCK_BYTES } from "./layout.ts";

const MAGIC = 0xf30a;
const ENTRY_BYTES = 12;
const PER_BLOCK = Math.floor((BLOCK_BYTES - ENTRY_BYTES - 4) / ENTRY_BYTES);
const IN_INODE = 4;

interface Child {
  readonly logical: number;
  readonly block: number;
}

export interface ExtentTree {
  /** The 60 bytes of i_block. */
  readonly root: Buffer;
  /** Tree blocks, at the places that were taken for them. */
  readonly blocks: readonly { physical: number; bytes: Buffer }[];
}

function header(target: Buffer, entries: number, max: number, depth: number): void {
  target.writeUInt16LE(MAGIC, 0);
  target.writeUInt16LE(entries, 2);
  target.writeUInt16LE(max, 4);
  target.writeUInt16LE(depth, 6);
}

function writeLeaf(target: Buffer, extents: readonly Extent[], max: number): void {
  header(target, extents.length, max, 0);
  extents.forEach(({ logical, physical, length }, index) => {
    const at = ENTRY_BYTES * (index + 1);
    target.writeUInt32LE(logical, at);
    target.writeUInt16LE(length, at + 4);
    target.writeUInt16LE(Math.floor(physical / 2 ** 32), at + 6);
    target.writeUInt32LE(physical >>> 0, at + 8);
  });
}

function writeIndex(target: Buffer, children: readonly Child[], max: number, depth: number): void {
  header(target, children.length, max, depth);
  children.forEach(({ logical, block }, index) => {
    const at = ENTRY_BYTES * (index + 1);
    target.writeUInt32LE(logical, at);
    target.writeUInt32LE(block >>> 0, at + 4);
    target.writeUInt16LE(Math.floor(block / 2 ** 32), at + 8);
  });
}

const inPieces = <T>(items: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );

/** Neighbours on disk and in the file become one extent where its length allows. */
export function joinExtents(extents: readonly Extent[]): Extent[] {
  const joined: Extent[] = [];
  for (const extent of extents) {
    const last = joined.at(-1);
    if (
      last !== undefined &&
      last.logical + last.length === extent.logical &&
      last.physical + last.length === extent.physical &&
      last.length + extent.length <= 32_768
    ) {
      joined[joined.length - 1] = { ...last, length: last.length + extent.length };
    } else joined.push(extent);
  }
  return joined;
}

/**
 * @param inodeSeed checksum seed of the inode (ext4 "Checksums"). @param takeBlock gives a block's
 * place
 */
export function buildExtentTree(
  extents: readonly Extent[],
  inodeSeed: number,
  takeBlock: () => number,
): ExtentTree {
  const root = Buffer.alloc(60);
  if (extents.length <= IN_INODE) {
    writeLeaf(root, extents, IN_INODE);
    return { root, blocks: [] };
  }
  const blocks: { physical: number; bytes: Buffer }[] = [];
  const seal = (logical: number, fill: (bytes: Buffer) => void): Child => {
    const physical = takeBlock();
    const bytes = Buffer.alloc(BLOCK_BYTES);
    fill(bytes);
    const tail = ENTRY_BYTES * (PER_BLOCK + 1);
    bytes.writeUInt32LE(crc32c(inodeSeed, bytes, 0, tail), tail);
    blocks.push({ physical, bytes });
    return { logical, block: physical };
  };
  let children = inPieces(extents, PER_BLOCK).map((piece) =>
    seal((piece[0] as Extent).logical, (bytes) => writeLeaf(bytes, piece, PER_BLOCK)),
  );
  let depth = 1;
  for (; children.length > IN_INODE; depth++) {
    children = inPieces(children, PER_BLOCK).map((piece) =>
      seal((piece[0] as Child).logical, (bytes) => writeIndex(bytes, piece, PER_BLOCK, depth)),
    );
  }
  writeIndex(root, children, IN_INODE, depth);
  return { root, blocks };
}
