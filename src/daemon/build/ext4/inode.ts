/** One inode of 256 bytes (ext4 "Index Nodes"). */
import type { NodeKind, NodeMetadata } from "../rootfs-tree.ts";
import { crc32c, crc32cWords } from "./crc32c.ts";
import { INODE_BYTES } from "./layout.ts";

const EXTRA_BYTES = 32;
export const ATTRIBUTES_START = 128 + EXTRA_BYTES;
export const ATTRIBUTES_ROOM = INODE_BYTES - ATTRIBUTES_START;
const FORMAT: Readonly<Record<NodeKind, number>> = {
  fifo: 0x1000,
  chardev: 0x2000,
  directory: 0x4000,
  blockdev: 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
};
export const FILE_TYPE: Readonly<Record<NodeKind, number>> = {
  file: 1,
  directory: 2,
  chardev: 3,
  blockdev: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};
export const FLAG_INDEX = 0x1000;
export const FLAG_EXTENTS = 0x80000;
/** A count of links above this is stored as 1 for directories (feature dir_nlink). */
const MAX_LINKS = 65_000;
/** Times that 34 bits of seconds can hold. */
const TIME_RANGE = [-(2 ** 31), 2 ** 34 - 2 ** 31 - 1] as const;

export interface InodeFields {
  readonly number: number;
  readonly kind: NodeKind;
  readonly metadata: NodeMetadata;
  readonly links: number;
  readonly sizeBytes: number;
  /** Blocks of 4 KiB, those of trees and attributes included. */
  readonly blocks: number;
  readonly flags: number;
  /** 60 bytes of i_block. */
  readonly data: Buffer;
  readonly attributeBlock: number;
  /** Writes the attributes that live in the inode. */
  readonly writeAttributes: (inode: Buffer) => void;
}

export const inodeSeed = (checksumSeed: number, number: number): number =>
  crc32cWords(checksumSeed, number, 0);

function writeTime(inode: Buffer, at: number, extraAt: number, metadata: NodeMetadata): void {
  const [least, most] = TIME_RANGE;
  const seconds = Math.min(Math.max(metadata.mtimeSeconds, least), most);
  const low = seconds | 0;
  const epoch = Math.round((seconds - low) / 2 ** 32) & 3;
  inode.writeInt32LE(low, at);
  inode.writeUInt32LE(((metadata.mtimeNanoseconds << 2) | epoch) >>> 0, extraAt);
}

export function encodeInode(fields: InodeFields, checksumSeed: number): Buffer {
  const inode = Buffer.alloc(INODE_BYTES);
  const { metadata } = fields;
  const sectors = fields.blocks * 8;
  const links = fields.kind === "directory" && fields.links >= MAX_LINKS ? 1 : fields.links;
  inode.writeUInt16LE(FORMAT[fields.kind] | (metadata.mode & 0o7777), 0);
  inode.writeUInt16LE(metadata.uid & 0xffff, 2);
  inode.writeUInt32LE(fields.sizeBytes >>> 0, 4);
  inode.writeUInt16LE(metadata.gid & 0xffff, 24);
  inode.writeUInt16LE(links, 26);
  inode.writeUInt32LE(sectors >>> 0, 28);
  inode.writeUInt32LE(fields.flags >>> 0, 32);
  inode.set(fields.data, 40);
  inode.writeUInt32LE(fields.attributeBlock >>> 0, 104);
  inode.writeUInt32LE(Math.floor(fields.sizeBytes / 2 ** 32), 108);
  inode.writeUInt16LE(Math.floor(sectors / 2 ** 32), 116);
  inode.writeUInt16LE(Math.floor(fields.attributeBlock / 2 ** 32), 118);
  inode.writeUInt16LE((metadata.uid >>> 16) & 0xffff, 120);
  inode.writeUInt16LE((metadata.gid >>> 16) & 0xffff, 122);
  inode.writeUInt16LE(EXTRA_BYTES, 128);
  writeTime(inode, 8, 140, metadata); // atime
  writeTime(inode, 12, 132, metadata); // ctime
  writeTime(inode, 16, 136, metadata); // mtime
  writeTime(inode, 144, 148, metadata); // crtime
  fields.writeAttributes(inode);
  const checksum = crc32c(inodeSeed(checksumSeed, fields.number), inode);
  inode.writeUInt16LE(checksum & 0xffff, 124);
  inode.writeUInt16LE(checksum >>> 16, 130);
  return inode;
}

/** i_block of a device: the old form where both numbers fit a byte, else the new one. */
export function deviceData(major: number, minor: number): Buffer {
  const data = Buffer.alloc(60);
  if (major < 256 && minor < 256) data.writeUInt32LE((major << 8) | minor, 0);
  else {
    const encoded = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
    data.writeUInt32LE(encoded >>> 0, 4);
  }
  return data;
}
