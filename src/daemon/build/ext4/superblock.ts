/** Superblock, group descriptors and bitmaps (ext4 "Super Block", "Block Group Descriptors"). */
import { crc32c, crc32cWords } from "./crc32c.ts";
import {
  BLOCKS_PER_GROUP,
  BLOCK_BYTES,
  DESCRIPTOR_BYTES,
  FIRST_INODE,
  INODE_BYTES,
  JOURNAL_INODE,
  hasSuperblock,
  type Geometry,
} from "./layout.ts";

/** has_journal, ext_attr, dir_index. */
const COMPATIBLE = 0x4 | 0x8 | 0x20;
/** filetype, extents, 64bit, flex_bg. */
const INCOMPATIBLE = 0x2 | 0x40 | 0x80 | 0x200;
/** sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum. */
const READ_ONLY_COMPATIBLE = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
const UNSIGNED_HASH = 0x2;
const DEFAULT_MOUNT_OPTIONS = 0x4 | 0x8; // user_xattr, acl
const GROUP_ITABLE_ZEROED = 0x4;

export interface FilesystemIdentity {
  readonly uuid: Uint8Array;
  readonly hashSeed: Uint8Array;
  readonly label: string;
}

export interface GroupState {
  readonly blockBitmapBlock: number;
  readonly inodeBitmapBlock: number;
  readonly inodeTableBlock: number;
  readonly blockBitmap: Buffer;
  readonly inodeBitmap: Buffer;
  readonly freeBlocks: number;
  readonly usedInodes: number;
  readonly directories: number;
}

export const checksumSeedOf = (uuid: Uint8Array): number => crc32c(0xffffffff, uuid);

const low16 = (value: number): number => value & 0xffff;
const high16 = (value: number): number => (value >>> 16) & 0xffff;
const high32 = (value: number): number => Math.floor(value / 2 ** 32);

/** All group descriptors, one after another. */
export function encodeDescriptors(
  groups: readonly GroupState[],
  inodesPerGroup: number,
  seed: number,
): Buffer {
  const table = Buffer.alloc(groups.length * DESCRIPTOR_BYTES);
  groups.forEach((group, index) => {
    const at = index * DESCRIPTOR_BYTES;
    const descriptor = table.subarray(at, at + DESCRIPTOR_BYTES);
    const blockChecksum = crc32c(seed, group.blockBitmap);
    const inodeChecksum = crc32c(seed, group.inodeBitmap, 0, inodesPerGroup / 8);
    const free = inodesPerGroup - group.usedInodes;
    descriptor.writeUInt32LE(group.blockBitmapBlock >>> 0, 0);
    descriptor.writeUInt32LE(group.inodeBitmapBlock >>> 0, 4);
    descriptor.writeUInt32LE(group.inodeTableBlock >>> 0, 8);
    descriptor.writeUInt16LE(low16(group.freeBlocks), 12);
    descriptor.writeUInt16LE(low16(free), 14);
    descriptor.writeUInt16LE(low16(group.directories), 16);
    descriptor.writeUInt16LE(GROUP_ITABLE_ZEROED, 18);
    descriptor.writeUInt16LE(low16(blockChecksum), 24);
    descriptor.writeUInt16LE(low16(inodeChecksum), 26);
    descriptor.writeUInt16LE(low16(free), 28); // inodes at the table's end that were never used
    descriptor.writeUInt32LE(high32(group.blockBitmapBlock), 32);
    descriptor.writeUInt32LE(high32(group.inodeBitmapBlock), 36);
    descriptor.writeUInt32LE(high32(group.inodeTableBlock), 40);
    descriptor.writeUInt16LE(high16(group.freeBlocks), 44);
    descriptor.writeUInt16LE(high16(free), 46);
    descriptor.writeUInt16LE(high16(group.directories), 48);
    descriptor.writeUInt16LE(high16(free), 50);
    descriptor.writeUInt16LE(high16(blockChecksum), 56);
    descriptor.writeUInt16LE(high16(inodeChecksum), 58);
    const checksum = crc32c(crc32cWords(seed, index), descriptor);
    descriptor.writeUInt16LE(low16(checksum), 30);
  });
  return table;
}

export interface SuperblockFields {
  readonly identity: FilesystemIdentity;
  readonly geometry: Geometry;
  readonly freeBlocks: number;
  readonly freeInodes: number;
  /** i_block of the journal's inode and its size, kept as a backup. */
  readonly journalData: Buffer;
  readonly journalBytes: number;
  readonly writtenKib: number;
}

/**
 * The 1024 bytes of the superblock as `group` holds it. No time enters it: the image is
 * reproducible.
 */
export function encodeSuperblock(fields: SuperblockFields, group: number): Buffer {
  const { geometry, identity } = fields;
  const block = Buffer.alloc(1_024);
  const inodes = geometry.inodesPerGroup * geometry.groups;
  block.writeUInt32LE(inodes, 0);
  block.writeUInt32LE(geometry.blocks >>> 0, 4);
  block.writeUInt32LE(fields.freeBlocks >>> 0, 12);
  block.writeUInt32LE(fields.freeInodes, 16);
  block.writeUInt32LE(2, 24); // 1024 << 2
  block.writeUInt32LE(2, 28);
  block.writeUInt32LE(BLOCKS_PER_GROUP, 32);
  block.writeUInt32LE(BLOCKS_PER_GROUP, 36);
  block.writeUInt32LE(geometry.inodesPerGroup, 40);
  block.writeInt16LE(-1, 54); // no check after a number of mounts
  block.writeUInt16LE(0xef53, 56);
  block.writeUInt16LE(1, 58); // clean
  block.writeUInt16LE(1, 60); // on errors: continue
  block.writeUInt32LE(1, 76); // dynamic revision
  block.writeUInt32LE(FIRST_INODE, 84);
  block.writeUInt16LE(INODE_BYTES, 88);
  block.writeUInt16LE(group, 90);
  block.writeUInt32LE(COMPATIBLE, 92);
  block.writeUInt32LE(INCOMPATIBLE, 96);
  block.writeUInt32LE(READ_ONLY_COMPATIBLE, 100);
  block.set(identity.uuid, 104);
  block.write(identity.label.slice(0, 16), 120, "latin1");
  block.writeUInt32LE(JOURNAL_INODE, 224);
  block.set(identity.hashSeed, 236);
  block.writeUInt8(1, 252); // half MD4
  block.writeUInt8(1, 253); // the journal's place is kept below
  block.writeUInt16LE(DESCRIPTOR_BYTES, 254);
  block.writeUInt32LE(DEFAULT_MOUNT_OPTIONS, 256);
  block.set(fields.journalData, 268);
  block.writeUInt32LE(high32(fields.journalBytes), 328);
  block.writeUInt32LE(fields.journalBytes >>> 0, 332);
  block.writeUInt32LE(high32(geometry.blocks), 336);
  block.writeUInt32LE(high32(fields.freeBlocks), 344);
  block.writeUInt16LE(32, 348);
  block.writeUInt16LE(32, 350);
  block.writeUInt32LE(UNSIGNED_HASH, 352);
  block.writeUInt8(4, 372); // 16 groups a flexible group
  block.writeUInt8(1, 373); // crc32c
  block.writeUInt32LE(fields.writtenKib >>> 0, 376);
  block.writeUInt32LE(crc32c(0xffffffff, block, 0, 1_020), 1_020);
  return block;
}

/** Blocks that a copy of superblock and descriptors takes at the start of a group. */
export const superblockBlocks = (group: number, geometry: Geometry): number =>
  hasSuperblock(group) ? 1 + geometry.descriptorBlocks : 0;

/** The superblock of an empty journal (jbd2, version 2), big-endian; the rest of it is a hole. */
export function journalSuperblock(blocks: number, uuid: Uint8Array): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  block.writeUInt32BE(0xc03b3998, 0);
  block.writeUInt32BE(4, 4);
  block.writeUInt32BE(BLOCK_BYTES, 12);
  block.writeUInt32BE(blocks, 16);
  block.writeUInt32BE(1, 20); // first block of the log
  block.writeUInt32BE(1, 24); // first commit expected
  block.set(uuid, 48);
  block.writeUInt32BE(1, 64);
  return block;
}
