/** The members of a tar file by name, in one pass over its headers. Nothing is unpacked. */
import type { FileHandle } from "node:fs/promises";
import { SOURCE_LIMITS } from "./limits.ts";
import { refused } from "./manifest.ts";

export interface TarMember {
  readonly kind: "file" | "link";
  readonly offset: number;
  readonly sizeBytes: number;
  /** Links only: the name of another member, from the archive's root. */
  readonly target?: string;
}

const BLOCK = 512;

const notTar = (detail: string): Error =>
  refused("invalid_archive", `the image archive is not a sound tar file: ${detail}`);

/**
 * Looks a name up as a path inside the archive; undefined when it would leave it.
 * `./a//b/../c` is `a/c`.
 */
export function memberName(name: string): string | undefined {
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.join("/");
}

/** What the headers before a member say of it. */
interface Overrides {
  path?: string | undefined;
  linkpath?: string | undefined;
  size?: number | undefined;
}

/** A name that comes twice: the last one counts. What is neither file nor link is left out. */
export async function indexTar(
  handle: FileHandle,
  sizeBytes: number,
): Promise<ReadonlyMap<string, TarMember>> {
  const members = new Map<string, TarMember>();
  let overrides: Overrides = {};
  let count = 0;
  for (let at = 0; ;) {
    const header = await readExactly(handle, at, BLOCK);
    // Some writers end without the two zero blocks, right after the last member.
    if (header === undefined || header.every((byte) => byte === 0)) {
      if (at === 0) throw notTar("it is empty");
      return members;
    }
    checkSum(header);
    const type = String.fromCharCode(header[156] ?? 0);
    const isMeta = "xgLK".includes(type);
    const size = (isMeta ? undefined : overrides.size) ?? numberAt(header, 124, 12);
    const offset = at + BLOCK;
    const hasData = !"123456".includes(type);
    if (hasData && size > sizeBytes - offset) throw notTar("a member reaches past the end");
    at = offset + (hasData ? Math.ceil(size / BLOCK) * BLOCK : 0);
    count += 1;
    if (count > SOURCE_LIMITS.archiveMembers) throw notTar("it has too many members");
    if (isMeta) {
      overrides = { ...overrides, ...(await readMeta(handle, type, offset, size)) };
      continue;
    }
    addMember(members, header, { type, offset, sizeBytes: size, overrides });
    overrides = {};
  }
}

function addMember(
  members: Map<string, TarMember>,
  header: Buffer,
  found: { type: string; offset: number; sizeBytes: number; overrides: Overrides },
): void {
  const { type, offset, sizeBytes, overrides } = found;
  const name = memberName(overrides.path ?? headerName(header));
  if (name === undefined || name === "") return;
  if (type === "0" || type === "\0" || type === "7") {
    members.set(name, { kind: "file", offset, sizeBytes });
  } else if (type === "1" || type === "2") {
    const raw = overrides.linkpath ?? textAt(header, 157, 100);
    const folder = name.slice(0, name.lastIndexOf("/") + 1);
    const target = memberName(type === "2" && !raw.startsWith("/") ? `${folder}${raw}` : raw);
    if (target === undefined) members.delete(name);
    else members.set(name, { kind: "link", offset, sizeBytes: 0, target });
  } else {
    members.delete(name);
  }
}

async function readExactly(
  handle: FileHandle,
  at: number,
  length: number,
): Promise<Buffer | undefined> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, at);
  if (bytesRead === 0) return undefined;
  if (bytesRead < length) throw notTar("it is cut short");
  return buffer;
}

function checkSum(header: Buffer): void {
  let sum = 8 * 0x20;
  for (const [index, byte] of header.entries()) if (index < 148 || index >= 156) sum += byte;
  if (numberAt(header, 148, 8) !== sum) throw notTar("a header's checksum is wrong");
}

const textAt = (header: Buffer, at: number, length: number): string => {
  const end = header.subarray(at, at + length).indexOf(0);
  return header.toString("utf8", at, at + (end === -1 ? length : end));
};

function headerName(header: Buffer): string {
  const prefix = textAt(header, 257, 6) === "ustar" ? textAt(header, 345, 155) : "";
  const name = textAt(header, 0, 100);
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** Octal text, or GNU's binary form. */
function numberAt(header: Buffer, at: number, length: number): number {
  const field = header.subarray(at, at + length);
  if ((field[0] ?? 0) & 0x80) {
    const isSmall = field[0] === 0x80 && field.subarray(1, length - 6).every((byte) => byte === 0);
    if (!isSmall) throw notTar("a number is out of range");
    return field.readUIntBE(length - 6, 6);
  }
  const text = field
    .toString("latin1")
    .replace(/[\0 ]+$/, "")
    .trim();
  if (!/^[0-7]*$/.test(text)) throw notTar("a number is malformed");
  return Number.parseInt(text || "0", 8);
}

async function readMeta(
  handle: FileHandle,
  type: string,
  offset: number,
  size: number,
): Promise<Overrides> {
  if (size > SOURCE_LIMITS.archiveHeaderBytes) throw notTar("a header is too large");
  const data = size === 0 ? Buffer.alloc(0) : await readExactly(handle, offset, size);
  if (data === undefined) throw notTar("it is cut short");
  if (type === "L") return { path: data.toString("utf8").replace(/\0.*$/s, "") };
  if (type === "K") return { linkpath: data.toString("utf8").replace(/\0.*$/s, "") };
  return type === "x" ? readPax(data) : {};
}

function readPax(data: Buffer): Overrides {
  const found: Overrides = {};
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(0x20, at);
    const length = Number(space === -1 ? Number.NaN : data.toString("latin1", at, space));
    const end = at + length;
    const isSound = Number.isInteger(length) && end <= data.length && end > space + 1;
    if (!isSound || data[end - 1] !== 0x0a) throw notTar("a PAX record is malformed");
    const record = data.toString("utf8", space + 1, end - 1);
    const equals = record.indexOf("=");
    const value = record.slice(equals + 1);
    const key = record.slice(0, equals);
    if (key === "path" || key === "linkpath") found[key] = value;
    if (key === "size") {
      if (!/^\d{1,15}$/.test(value)) throw notTar("a PAX size is malformed");
      found.size = Number(value);
    }
    at = end;
  }
  return found;
}
