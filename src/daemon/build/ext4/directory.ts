/**
 * Directory blocks: linear while one block is enough, else a hash tree (ext4 "Hash Tree
 * Directories"), so that a guest's look-up in a folder of 100 000 files reads three blocks.
 */
import { crc32c } from "./crc32c.ts";
import { halfMd4 } from "./half-md4.ts";
import { BLOCK_BYTES } from "./layout.ts";

const TAIL_BYTES = 12;
const SPACE = BLOCK_BYTES - TAIL_BYTES;
const ROOT_LIMIT = (BLOCK_BYTES - 32) / 8 - 1;
const NODE_LIMIT = (BLOCK_BYTES - 8) / 8 - 1;
/**
 * Leaves of a hash tree are not filled to the brim, so that a guest can add names without splits.
 */
const LEAF_FILL = Math.floor(SPACE * 0.85);

export interface DirectoryEntry {
  /** A byte string. */
  readonly name: string;
  readonly inode: number;
  /** File type of the entry: 1 file, 2 directory, 3 and 4 devices, 5 fifo, 6 socket, 7 symlink. */
  readonly type: number;
}

interface Hashed extends DirectoryEntry {
  readonly hash: number;
}

const entryBytes = (name: string): number => 8 + ((name.length + 3) & ~3);

function writeEntry(block: Buffer, at: number, entry: DirectoryEntry, length: number): void {
  block.writeUInt32LE(entry.inode, at);
  block.writeUInt16LE(length, at + 4);
  block.writeUInt8(entry.name.length, at + 6);
  block.writeUInt8(entry.type, at + 7);
  block.write(entry.name, at + 8, "latin1");
}

/** Entries of one block; the last one reaches to the checksum tail. */
function leafBlock(entries: readonly DirectoryEntry[], seed: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  let at = 0;
  entries.forEach((entry, index) => {
    const length = index === entries.length - 1 ? SPACE - at : entryBytes(entry.name);
    writeEntry(block, at, entry, length);
    at += length;
  });
  if (entries.length === 0) block.writeUInt16LE(SPACE, 4);
  block.writeUInt16LE(TAIL_BYTES, SPACE + 4);
  block.writeUInt8(0xde, SPACE + 7);
  block.writeUInt32LE(crc32c(seed, block, 0, SPACE), SPACE + 8);
  return block;
}

const dots = (inode: number, parent: number): DirectoryEntry[] => [
  { name: ".", inode, type: 2 },
  { name: "..", inode: parent, type: 2 },
];

/** Splits in order; `fill` bytes of entries a block. */
function pack<T extends DirectoryEntry>(entries: readonly T[], fill: number): T[][] {
  const blocks: T[][] = [[]];
  let used = 0;
  for (const entry of entries) {
    const need = entryBytes(entry.name);
    if (used + need > fill) {
      blocks.push([]);
      used = 0;
    }
    (blocks.at(-1) as T[]).push(entry);
    used += need;
  }
  return blocks;
}

/** Index entries of a tree block from `start`: limit and count share the first one's hash. */
function writeIndexEntries(
  block: Buffer,
  start: number,
  limit: number,
  children: readonly { hash: number; block: number }[],
  seed: number,
): void {
  children.forEach((child, index) => {
    if (index > 0) block.writeUInt32LE(child.hash, start + index * 8);
    block.writeUInt32LE(child.block, start + index * 8 + 4);
  });
  block.writeUInt16LE(limit, start);
  block.writeUInt16LE(children.length, start + 2);
  const tail = start + limit * 8;
  const covered = crc32c(seed, block, 0, start + children.length * 8);
  block.writeUInt32LE(crc32c(covered, Buffer.alloc(8)), tail + 4);
}

/** First hash of each leaf; 1 is added where equal hashes reach over from the leaf before. */
function leafKeys(leaves: readonly Hashed[][], firstBlock: number) {
  return leaves.map((leaf, index) => {
    const hash = (leaf[0] as Hashed).hash;
    const before = leaves[index - 1]?.at(-1)?.hash;
    return { hash: before === hash ? hash + 1 : hash, block: firstBlock + index };
  });
}

function treeRoot(
  dir: { inode: number; parent: number },
  levels: number,
  children: readonly { hash: number; block: number }[],
  seed: number,
): Buffer {
  const root = Buffer.alloc(BLOCK_BYTES);
  const [self, up] = dots(dir.inode, dir.parent) as [DirectoryEntry, DirectoryEntry];
  writeEntry(root, 0, self, 12);
  writeEntry(root, 12, up, BLOCK_BYTES - 12);
  root.writeUInt8(1, 28); // half MD4; signedness is in the superblock's flags
  root.writeUInt8(8, 29);
  root.writeUInt8(levels, 30);
  writeIndexEntries(root, 32, ROOT_LIMIT, children, seed);
  return root;
}

function treeNode(children: readonly { hash: number; block: number }[], seed: number): Buffer {
  const node = Buffer.alloc(BLOCK_BYTES);
  node.writeUInt16LE(BLOCK_BYTES, 4);
  writeIndexEntries(node, 8, NODE_LIMIT, children, seed);
  return node;
}

/**
 * The blocks of a directory in logical order, and whether they are a hash tree (inode flag INDEX).
 * @param seed checksum seed of the directory's inode
 */
export function buildDirectory(
  dir: { inode: number; parent: number },
  entries: readonly DirectoryEntry[],
  seed: number,
  hashSeed: readonly number[],
): { blocks: Buffer[]; indexed: boolean } {
  const all = [...dots(dir.inode, dir.parent), ...entries];
  const need = all.reduce((sum, entry) => sum + entryBytes(entry.name), 0);
  if (need <= SPACE) return { blocks: [leafBlock(all, seed)], indexed: false };

  const hashed = entries
    .map((entry): Hashed => ({ ...entry, hash: halfMd4(entry.name, hashSeed) }))
    .sort((a, b) => a.hash - b.hash || (a.name < b.name ? -1 : 1));
  const leaves = pack(hashed, LEAF_FILL);
  const bodies = leaves.map((leaf) => leafBlock(leaf, seed));
  if (leaves.length <= ROOT_LIMIT) {
    const root = treeRoot(dir, 0, leafKeys(leaves, 1), seed);
    return { blocks: [root, ...bodies], indexed: true };
  }
  const count = Math.ceil(leaves.length / NODE_LIMIT);
  const keys = leafKeys(leaves, 1 + count);
  const nodes = Array.from({ length: count }, (_, index) =>
    keys.slice(index * NODE_LIMIT, (index + 1) * NODE_LIMIT),
  );
  const top = nodes.map((node, index) => ({ hash: node[0]?.hash ?? 0, block: 1 + index }));
  const root = treeRoot(dir, 1, top, seed);
  return { blocks: [root, ...nodes.map((node) => treeNode(node, seed)), ...bodies], indexed: true };
}
