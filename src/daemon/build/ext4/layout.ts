/** Sizes and places that do not depend on what is in the image. */
export const BLOCK_BYTES = 4_096;
export const BLOCKS_PER_GROUP = 32_768;
export const INODE_BYTES = 256;
export const DESCRIPTOR_BYTES = 64;
export const CHUNK_BLOCKS = 16;
export const ROOT_INODE = 2;
export const JOURNAL_INODE = 8;
export const FIRST_INODE = 11;
/**
 * Kept free at the start of group 0 and of the groups with a backup: one block of superblock and
 * 31 of group descriptors. It bounds an image to 1984 groups, 248 GiB.
 */
export const RESERVED_BLOCKS = 2 * CHUNK_BLOCKS;
export const MAX_GROUPS = (RESERVED_BLOCKS - 1) * (BLOCK_BYTES / DESCRIPTOR_BYTES);

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const SIZE_STEP = 256 * MIB;
const MAX_INODES_PER_GROUP = BLOCK_BYTES * 8;

export const blocksFor = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES);

/** Groups 0, 1 and the powers of 3, 5 and 7 hold the superblock (feature sparse_super). */
export function hasSuperblock(group: number): boolean {
  if (group <= 1) return true;
  for (const base of [3, 5, 7]) {
    let power = base;
    while (power < group) power *= base;
    if (power === group) return true;
  }
  return false;
}

/**
 * Size of the image: data, 256 MiB, 10 % and 1 KiB a file, at least 1 GiB, up to a multiple of 256
 * MiB (spec §3.8), plus what is asked for; never less than what is laid out already.
 */
export function imageBytes(input: {
  dataBytes: number;
  files: number;
  extraFreeBytes: number;
  usedBytes: number;
  inodes: number;
}): number {
  const wanted =
    Math.ceil(input.dataBytes * 1.1) + 256 * MIB + input.files * 1024 + input.extraFreeBytes;
  // A group holds no more inodes than bits in its bitmap: many empty files need many groups.
  const groups = Math.ceil((input.inodes * 1.25) / MAX_INODES_PER_GROUP);
  const least = Math.max(
    wanted,
    input.usedBytes + 64 * MIB + input.extraFreeBytes,
    groups * BLOCKS_PER_GROUP * BLOCK_BYTES,
    GIB,
  );
  return Math.ceil(least / SIZE_STEP) * SIZE_STEP;
}

export interface Geometry {
  readonly blocks: number;
  readonly groups: number;
  readonly descriptorBlocks: number;
  readonly inodesPerGroup: number;
  readonly inodeTableBlocks: number;
}

/**
 * One inode for 16 KiB as mke2fs gives, more when the image itself needs them and half as many
 * again.
 */
export function geometryOf(sizeBytes: number, usedInodes: number): Geometry {
  const blocks = sizeBytes / BLOCK_BYTES;
  const groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const wanted = Math.max(Math.ceil(sizeBytes / 16_384), Math.ceil(usedInodes * 1.5));
  const perBlock = BLOCK_BYTES / INODE_BYTES;
  const inodeTableBlocks = Math.ceil(Math.min(wanted / groups, MAX_INODES_PER_GROUP) / perBlock);
  return {
    blocks,
    groups,
    descriptorBlocks: Math.ceil((groups * DESCRIPTOR_BYTES) / BLOCK_BYTES),
    inodesPerGroup: inodeTableBlocks * perBlock,
    inodeTableBlocks,
  };
}

/** mke2fs's rule for the journal, in blocks. */
export function journalBlocks(blocks: number): number {
  if (blocks < 262_144) return 4_096;
  if (blocks < 524_288) return 8_192;
  if (blocks < 4_194_304) return 16_384;
  return 32_768;
}
