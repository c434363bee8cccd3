/**
 * One 512-byte header block: ustar (POSIX.1-1988), GNU and the old V7 form. Fields that two readers
 * might take differently are refused instead of guessed at.
 */
import { refusal } from "./refusal.ts";

export const BLOCK_BYTES = 512;

export interface TarHeader {
  readonly type: string;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** True when all 512 bytes from `offset` are zero (the archive's end is two such blocks). */
export function isZeroBlock(buffer: Buffer, offset: number): boolean {
  for (let i = offset; i < offset + BLOCK_BYTES; i++) if (buffer[i] !== 0) return false;
  return true;
}

/** True when the header's checksum holds; old writers summed signed bytes, so both are accepted. */
export function checksumHolds(buffer: Buffer, offset: number): boolean {
  let unsigned = 0;
  let signed = 0;
  for (let i = offset; i < offset + BLOCK_BYTES; i++) {
    const inField = i >= offset + 148 && i < offset + 156;
    const byte = inField ? 32 : (buffer[i] as number);
    unsigned += byte;
    if (byte >= 128) signed -= 256;
  }
  signed += unsigned;
  const stored = octalOf(buffer, offset + 148, 8);
  return stored !== undefined && (stored === unsigned || stored === signed);
}

/** @throws AppError image_refused (bad_number, nul_in_name, empty_name) */
export function parseTarHeader(buffer: Buffer, offset: number): TarHeader {
  const magic = buffer.toString("latin1", offset + 257, offset + 265);
  const posix = magic.startsWith("ustar\0");
  const extended = posix || magic === "ustar  \0";
  const prefix = posix ? textField(buffer, offset + 345, prefixBytes(buffer, offset)) : "";
  const short = textField(buffer, offset, 100);
  const name = prefix === "" ? short : `${prefix}/${short}`;
  const number = (field: string, at: number, length: number): number =>
    numberField(buffer, offset + at, length, field, name);
  const type = String.fromCharCode(buffer[offset + 156] as number);
  const device = extended && (type === "3" || type === "4");
  return {
    type,
    name,
    linkName: textField(buffer, offset + 157, 100),
    mode: number("mode", 100, 8),
    uid: number("uid", 108, 8),
    gid: number("gid", 116, 8),
    size: number("size", 124, 12),
    mtime: number("mtime", 136, 12),
    deviceMajor: device ? number("device major", 329, 8) : 0,
    deviceMinor: device ? number("device minor", 337, 8) : 0,
  };
}

/** The star form keeps times behind a prefix of 131 bytes and says so by a trailer. */
function prefixBytes(buffer: Buffer, offset: number): number {
  return buffer.toString("latin1", offset + 508, offset + 512) === "tar\0" ? 131 : 155;
}

/**
 * A text field ends at its first NUL. Writers fill the rest with NULs; anything else there is a
 * second name hidden behind the first.
 */
function textField(buffer: Buffer, start: number, length: number): string {
  const end = start + length;
  let stop = start;
  while (stop < end && buffer[stop] !== 0) stop++;
  for (let i = stop; i < end; i++) {
    if (buffer[i] !== 0) {
      const path = buffer.toString("latin1", start, stop);
      throw refusal("nul_in_name", "a name in the layer goes on after a NUL byte", { path });
    }
  }
  return buffer.toString("latin1", start, stop);
}

/**
 * Octal digits between spaces and NULs, or GNU base-256 (first bit set, two's complement).
 * @throws AppError image_refused (bad_number)
 */
export function numberField(
  buffer: Buffer,
  start: number,
  length: number,
  field: string,
  path: string,
): number {
  const first = buffer[start] as number;
  const value = first >= 0x80 ? base256Of(buffer, start, length) : octalOf(buffer, start, length);
  if (value === undefined || !Number.isSafeInteger(value)) {
    throw refusal("bad_number", `the ${field} of a layer entry is not a usable number`, { path });
  }
  return value;
}

function base256Of(buffer: Buffer, start: number, length: number): number {
  // Bit 6 of the first byte is the sign; the marker bit itself does not count.
  let value = (buffer[start] as number) & 0x7f;
  if (value >= 0x40) value -= 0x80;
  for (let i = start + 1; i < start + length; i++) value = value * 256 + (buffer[i] as number);
  return value;
}

function octalOf(buffer: Buffer, start: number, length: number): number | undefined {
  const end = start + length;
  let at = start;
  while (at < end && (buffer[at] === 32 || buffer[at] === 0)) at++;
  let value = 0;
  let negative = false;
  // Some old writers print a time before 1970 as "-" and octal digits.
  if (buffer[at] === 45 && at < end) {
    negative = true;
    at++;
  }
  for (; at < end; at++) {
    const digit = (buffer[at] as number) - 48;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; at < end; at++) if (buffer[at] !== 32 && buffer[at] !== 0) return undefined;
  return negative ? -value : value;
}
