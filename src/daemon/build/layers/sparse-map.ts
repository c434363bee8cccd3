/**
 * Sparse files: the data regions of a file whose holes were left out of the archive. Four notations
 * exist: old GNU (in the header and blocks after it) and GNU's PAX 0.0, 0.1 and 1.0.
 */
import { refusal } from "./refusal.ts";
import { BLOCK_BYTES, numberField } from "./tar-header.ts";
import { parsePaxNumber } from "./pax-header.ts";

export interface SparseRegion {
  readonly offset: number;
  readonly length: number;
}

const bad = (path: string, why: string) =>
  refusal("bad_sparse_map", `the sparse map of a layer entry ${why}`, { path });

/**
 * @param archivedBytes bytes the archive holds for the file: exactly the regions' sum.
 * @throws AppError image_refused (bad_sparse_map) unless the regions ascend, do not overlap and end
 *   within the file.
 */
export function checkSparseMap(
  regions: readonly SparseRegion[],
  realBytes: number,
  archivedBytes: number,
  path: string,
): void {
  let at = 0;
  let total = 0;
  for (const { offset, length } of regions) {
    if (offset < at) throw bad(path, "has regions out of order");
    at = offset + length;
    total += length;
    if (at > realBytes) throw bad(path, "goes past the end of the file");
  }
  if (total !== archivedBytes) throw bad(path, "does not fit the bytes in the archive");
}

/**
 * Reads up to `slots` old GNU entries (12-byte offset and length each).
 * @returns whether the list ended here.
 */
export function readOldSparse(
  buffer: Buffer,
  start: number,
  slots: number,
  into: SparseRegion[],
  path: string,
): boolean {
  for (let slot = 0; slot < slots; slot++) {
    const at = start + slot * 24;
    if (buffer[at] === 0) return true;
    const offset = numberField(buffer, at, 12, "sparse offset", path);
    const length = numberField(buffer, at + 12, 12, "sparse length", path);
    if (offset < 0 || length < 0) throw bad(path, "has a negative number");
    into.push({ offset, length });
  }
  return false;
}

/** PAX 0.0 and 0.1: numbers in pairs, as a list. */
export function pairSparse(numbers: readonly string[], path: string): SparseRegion[] {
  if (numbers.length % 2 !== 0) throw bad(path, "has an odd count of numbers");
  const regions: SparseRegion[] = [];
  for (let i = 0; i < numbers.length; i += 2) {
    const offset = parsePaxNumber(numbers[i] as string);
    const length = parsePaxNumber(numbers[i + 1] as string);
    if (offset === undefined || length === undefined) throw bad(path, "has a malformed number");
    regions.push({ offset, length });
  }
  return regions;
}

/**
 * PAX 1.0: the map comes before the data, as decimal lines (their count first), padded to a block.
 */
export class SparseMapReader {
  private readonly lines: string[] = [];
  private line = "";
  private expected: number | undefined;
  private readonly maxBytes: number;
  private readonly path: string;
  /** Bytes taken so far. */
  bytes = 0;

  constructor(maxBytes: number, path: string) {
    this.maxBytes = maxBytes;
    this.path = path;
  }

  /** Takes one block. @returns the regions once the map is complete. */
  block(buffer: Buffer, start: number): SparseRegion[] | undefined {
    this.bytes += BLOCK_BYTES;
    if (this.bytes > this.maxBytes) throw bad(this.path, "is longer than the limit");
    for (let i = start; i < start + BLOCK_BYTES; i++) {
      const byte = buffer[i] as number;
      if (byte !== 10) {
        this.line += String.fromCharCode(byte);
        if (this.line.length > 20) throw bad(this.path, "has a malformed number");
        continue;
      }
      if (this.expected === undefined) {
        const count = parsePaxNumber(this.line);
        if (count === undefined) throw bad(this.path, "has a malformed count");
        this.expected = count * 2;
      } else this.lines.push(this.line);
      this.line = "";
      if (this.lines.length === this.expected) return pairSparse(this.lines, this.path);
    }
    return undefined;
  }
}
