/**
 * Extended attributes in the inode's own space and in a block of their own (ext4 "Extended
 * Attributes").
 */
import { AppError } from "../../../domain/core.ts";
import { crc32c } from "./crc32c.ts";
import { BLOCK_BYTES } from "./layout.ts";

const MAGIC = 0xea020000;
const ENTRY_BYTES = 16;
const BLOCK_HEADER_BYTES = 32;

/** Longest first: `system.posix_acl_access` is not `system.` with a name. */
const PREFIXES: readonly [string, number][] = [
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["user.", 1],
  ["trusted.", 4],
  ["security.", 6],
  ["system.", 7],
];

interface Attribute {
  readonly index: number;
  /** Name without its prefix, a byte string. */
  readonly name: string;
  readonly value: Uint8Array;
}

const padded = (length: number): number => (length + 3) & ~3;
const entryBytes = (attribute: Attribute): number => ENTRY_BYTES + padded(attribute.name.length);
const valueBytes = (attribute: Attribute): number => padded(attribute.value.length);

/** @throws AppError image_refused when a name has no place in ext4, or an ACL does not parse. */
export function parseAttributes(xattrs: ReadonlyMap<string, Uint8Array>): Attribute[] {
  const attributes: Attribute[] = [];
  for (const [full, value] of xattrs) {
    const prefix = PREFIXES.find(([text, index]) =>
      index === 2 || index === 3 ? full === text : full.startsWith(text),
    );
    const name = prefix === undefined ? "" : full.slice(prefix[0].length);
    if (prefix === undefined || name.length > 255) {
      throw new AppError(
        "image_refused",
        `extended attribute ${JSON.stringify(full)} cannot be kept`,
        {
          meta: { reason: "xattr_name" },
        },
      );
    }
    const acl = prefix[1] === 2 || prefix[1] === 3;
    attributes.push({ index: prefix[1], name, value: acl ? diskAcl(value) : value });
  }
  return attributes.sort(
    (a, b) => a.index - b.index || a.name.length - b.name.length || (a.name < b.name ? -1 : 1),
  );
}

/**
 * A POSIX ACL as Linux passes it (version 2, 8 bytes an entry) in its shorter form on disk
 * (version 1).
 */
function diskAcl(value: Uint8Array): Uint8Array {
  const input = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (input.length < 4 || (input.length - 4) % 8 !== 0 || input.readUInt32LE(0) !== 2) {
    throw new AppError("image_refused", "a POSIX ACL attribute does not parse", {
      meta: { reason: "xattr_value" },
    });
  }
  const parts: Buffer[] = [Buffer.from([1, 0, 0, 0])];
  for (let at = 4; at < input.length; at += 8) {
    const tag = input.readUInt16LE(at);
    // Only named users (2) and groups (8) carry an id.
    parts.push(input.subarray(at, at + (tag === 0x02 || tag === 0x08 ? 8 : 4)));
  }
  return Buffer.concat(parts);
}

function entryHash(attribute: Attribute): number {
  let hash = 0;
  for (let i = 0; i < attribute.name.length; i++) {
    hash = ((hash << 5) ^ (hash >>> 27) ^ attribute.name.charCodeAt(i)) >>> 0;
  }
  const value = Buffer.alloc(valueBytes(attribute));
  value.set(attribute.value);
  for (let at = 0; at < value.length; at += 4) {
    hash = ((hash << 16) ^ (hash >>> 16) ^ value.readUInt32LE(at)) >>> 0;
  }
  return hash;
}

/** Writes entries from `first`, values downwards from `end`; value offsets count from `base`. */
function writeEntries(
  target: Buffer,
  attributes: readonly Attribute[],
  place: { first: number; base: number; end: number; hashes: boolean },
): void {
  let entry = place.first;
  let value = place.end;
  for (const attribute of attributes) {
    value -= valueBytes(attribute);
    target.writeUInt8(attribute.name.length, entry);
    target.writeUInt8(attribute.index, entry + 1);
    target.writeUInt16LE(attribute.value.length === 0 ? 0 : value - place.base, entry + 2);
    target.writeUInt32LE(attribute.value.length, entry + 8);
    target.writeUInt32LE(place.hashes ? entryHash(attribute) : 0, entry + 12);
    target.write(attribute.name, entry + ENTRY_BYTES, "latin1");
    target.set(attribute.value, value);
    entry += entryBytes(attribute);
  }
}

/** What fits into `room` bytes of an inode behind its magic, in order; the rest needs a block. */
export function splitAttributes(
  attributes: readonly Attribute[],
  room: number,
): { inode: Attribute[]; block: Attribute[] } {
  const inode: Attribute[] = [];
  const block: Attribute[] = [];
  // Magic before the entries, four zero bytes after them.
  let left = room - 8;
  for (const attribute of attributes) {
    const need = entryBytes(attribute) + valueBytes(attribute);
    if (need <= left) {
      inode.push(attribute);
      left -= need;
    } else block.push(attribute);
  }
  const need = block.reduce(
    (sum, a) => sum + entryBytes(a) + valueBytes(a),
    BLOCK_HEADER_BYTES + 4,
  );
  if (need > BLOCK_BYTES) {
    throw new AppError(
      "image_refused",
      "the extended attributes of a file are larger than a block",
      {
        meta: { reason: "xattr_size", bytes: need },
      },
    );
  }
  return { inode, block };
}

/** Writes attributes into an inode from `start`, where the magic goes, to its end. */
export function writeInodeAttributes(
  inode: Buffer,
  start: number,
  attributes: readonly Attribute[],
): void {
  if (attributes.length === 0) return;
  inode.writeUInt32LE(MAGIC, start);
  const first = start + 4;
  writeEntries(inode, attributes, { first, base: first, end: inode.length, hashes: false });
}

/** The block of attributes that goes to block `blockNumber`. */
export function attributeBlock(
  attributes: readonly Attribute[],
  blockNumber: number,
  checksumSeed: number,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  block.writeUInt32LE(MAGIC, 0);
  block.writeUInt32LE(1, 4);
  block.writeUInt32LE(1, 8);
  const place = { first: BLOCK_HEADER_BYTES, base: 0, end: BLOCK_BYTES, hashes: true };
  writeEntries(block, attributes, place);
  let hash = 0;
  for (const attribute of attributes) {
    const one = entryHash(attribute);
    if (one === 0) {
      hash = 0;
      break;
    }
    hash = ((hash << 16) ^ (hash >>> 16) ^ one) >>> 0;
  }
  block.writeUInt32LE(hash, 12);
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(BigInt(blockNumber));
  block.writeUInt32LE(crc32c(crc32c(checksumSeed, number), block), 16);
  return block;
}
