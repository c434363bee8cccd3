/**
 * A push reader of tar archives: bytes go in as they come, entries and file bytes come out, in one
 * synchronous pass with no copy of file data. What it accepts: V7, ustar, GNU (long names, base-256
 * numbers, old sparse) and PAX (local and global headers, all three sparse notations). Everything
 * else is refused by name; it throws nothing but AppError, whatever the bytes are.
 */
import type { FileSink, TarHandler } from "./tar-entry.ts";
import type { LayerLimits } from "./limits.ts";
import type { ResolvedEntry } from "./tar-extensions.ts";
import type { SparseRegion } from "./sparse-map.ts";
import type { TarHeader } from "./tar-header.ts";
import { BLOCK_BYTES, checksumHolds, isZeroBlock, numberField } from "./tar-header.ts";
import { checkSparseMap, readOldSparse, SparseMapReader } from "./sparse-map.ts";
import { parseTarHeader } from "./tar-header.ts";
import { refusal } from "./refusal.ts";
import { TarExtensions } from "./tar-extensions.ts";

/** What the next bytes are. */
type Mode = "header" | "extension" | "old-sparse" | "sparse-map" | "data" | "padding" | "end";

export class TarReader {
  private readonly handler: TarHandler;
  private readonly limits: LayerLimits;
  private readonly extensions: TarExtensions;
  private mode: Mode = "header";
  /** A block whose bytes came in more than one piece. */
  private readonly partial = Buffer.alloc(BLOCK_BYTES);
  private partialBytes = 0;
  private extensionType = "";
  private extension = Buffer.alloc(0);
  private extensionBytes = 0;
  /** Bytes of data or extension still to come, then bytes of padding. */
  private remaining = 0;
  private padding = 0;
  private sink: FileSink | undefined;
  private regions: SparseRegion[] | undefined;
  private region = 0;
  private regionBytes = 0;
  private logical = 0;
  private logicalSize = 0;
  private sparseHeader: TarHeader | undefined;
  private sparseSize = 0;
  private mapReader: SparseMapReader | undefined;
  private waiting: ResolvedEntry | undefined;
  private zeroBlocks = 0;
  private headers = 0;

  constructor(handler: TarHandler, limits: LayerLimits) {
    this.handler = handler;
    this.limits = limits;
    this.extensions = new TarExtensions(limits);
  }

  /** @throws AppError image_refused; the reader is of no more use then. */
  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.mode) {
        case "data":
          at = this.takeData(chunk, at);
          break;
        case "padding":
          at = this.takePadding(chunk, at);
          break;
        case "extension":
          at = this.takeExtension(chunk, at);
          break;
        case "end":
          return;
        default:
          at = this.takeBlock(chunk, at);
      }
    }
  }

  /** The archive has ended. @throws AppError image_refused (truncated_tar, not_a_tar) */
  end(): void {
    const atBoundary = this.mode === "header" && this.partialBytes === 0;
    if (this.mode === "end" || (atBoundary && !this.extensions.pending)) return;
    if (this.headers === 0) throw refusal("not_a_tar", "the layer is not a tar archive");
    throw refusal("truncated_tar", "the layer's archive ends in the middle of an entry");
  }

  private takeBlock(chunk: Buffer, at: number): number {
    if (this.partialBytes === 0 && chunk.length - at >= BLOCK_BYTES) {
      this.block(chunk, at);
      return at + BLOCK_BYTES;
    }
    const take = Math.min(BLOCK_BYTES - this.partialBytes, chunk.length - at);
    chunk.copy(this.partial, this.partialBytes, at, at + take);
    this.partialBytes += take;
    if (this.partialBytes === BLOCK_BYTES) {
      this.partialBytes = 0;
      this.block(this.partial, 0);
    }
    return at + take;
  }

  private block(buffer: Buffer, at: number): void {
    if (this.mode === "old-sparse") this.oldSparseBlock(buffer, at);
    else if (this.mode === "sparse-map") this.sparseMapBlock(buffer, at);
    else this.headerBlock(buffer, at);
  }

  private headerBlock(buffer: Buffer, at: number): void {
    if (buffer[at] === 0 && isZeroBlock(buffer, at)) {
      if (this.extensions.pending) {
        throw refusal("truncated_tar", "the layer's archive ends after an extended header");
      }
      this.zeroBlocks++;
      if (this.zeroBlocks === 2) this.mode = "end";
      return;
    }
    if (this.zeroBlocks > 0 || !checksumHolds(buffer, at)) {
      throw this.headers === 0
        ? refusal("not_a_tar", "the layer is not a tar archive")
        : refusal("bad_checksum", "a header in the layer's archive does not match its checksum");
    }
    this.headers++;
    const header = parseTarHeader(buffer, at);
    if (TarExtensions.isExtension(header.type)) this.startExtension(header);
    else if (header.type === "S") this.startOldSparse(header, buffer, at);
    else this.startEntry(this.extensions.resolve(header));
  }

  private startExtension(header: TarHeader): void {
    const long = header.type === "L" || header.type === "K";
    const limit = long ? this.limits.pathBytes + 1 : this.limits.paxHeaderBytes;
    if (header.size < 0) throw refusal("bad_number", "an extended header has a negative size");
    if (header.size > limit) {
      throw refusal(
        long ? "name_too_long" : "pax_header_too_large",
        `an extended header in the layer is longer than ${limit} bytes`,
      );
    }
    this.extensionType = header.type;
    this.extension = Buffer.alloc(header.size);
    this.extensionBytes = 0;
    this.mode = "extension";
    this.padding = -header.size & (BLOCK_BYTES - 1);
    if (header.size === 0) this.endExtension();
  }

  private takeExtension(chunk: Buffer, at: number): number {
    const take = Math.min(this.extension.length - this.extensionBytes, chunk.length - at);
    chunk.copy(this.extension, this.extensionBytes, at, at + take);
    this.extensionBytes += take;
    if (this.extensionBytes === this.extension.length) this.endExtension();
    return at + take;
  }

  private endExtension(): void {
    this.extensions.take(this.extensionType, this.extension);
    this.mode = this.padding > 0 ? "padding" : "header";
  }

  private startOldSparse(header: TarHeader, buffer: Buffer, at: number): void {
    this.sparseHeader = header;
    this.sparseSize = numberField(buffer, at + 483, 12, "real size", header.name);
    this.regions = [];
    readOldSparse(buffer, at + 386, 4, this.regions, header.name);
    if (buffer[at + 482] !== 0) this.mode = "old-sparse";
    else this.endOldSparse();
  }

  private oldSparseBlock(buffer: Buffer, at: number): void {
    const name = this.sparseHeader?.name ?? "";
    const regions = (this.regions ??= []);
    if (regions.length * 24 > this.limits.paxHeaderBytes) {
      throw refusal("bad_sparse_map", "a sparse map in the layer is longer than the limit", {
        path: name,
      });
    }
    readOldSparse(buffer, at, 21, regions, name);
    if (buffer[at + 504] === 0) this.endOldSparse();
  }

  private endOldSparse(): void {
    const header = this.sparseHeader;
    if (header === undefined) return;
    const resolved = this.extensions.resolve(header);
    if (this.sparseSize < 0 || this.sparseSize > this.limits.fileBytes) {
      const path = header.name;
      throw refusal("bad_sparse_map", "a sparse layer entry has no usable size", { path });
    }
    const entry = { ...resolved.entry, sizeBytes: this.sparseSize };
    this.startData({ ...resolved, entry }, resolved.archivedBytes, this.regions);
  }

  private startEntry(resolved: ResolvedEntry): void {
    if (resolved.sparse === "in-data") {
      this.waiting = resolved;
      this.mapReader = new SparseMapReader(this.limits.paxHeaderBytes, resolved.entry.name);
      this.mode = "sparse-map";
      return;
    }
    this.startData(resolved, resolved.archivedBytes, resolved.sparse);
  }

  private sparseMapBlock(buffer: Buffer, at: number): void {
    const { waiting, mapReader } = this;
    if (waiting === undefined || mapReader === undefined) return;
    const regions = mapReader.block(buffer, at);
    if (mapReader.bytes > waiting.archivedBytes) {
      const path = waiting.entry.name;
      throw refusal("bad_sparse_map", "a sparse map goes past its entry's data", { path });
    }
    if (regions === undefined) return;
    this.mapReader = this.waiting = undefined;
    this.startData(waiting, waiting.archivedBytes - mapReader.bytes, regions);
  }

  private startData(
    { entry }: ResolvedEntry,
    archivedBytes: number,
    regions: SparseRegion[] | undefined,
  ): void {
    if (regions !== undefined) {
      checkSparseMap(regions, entry.sizeBytes, archivedBytes, entry.name);
    }
    this.sink = this.handler.entry(entry);
    this.regions = regions;
    this.region = this.regionBytes = this.logical = 0;
    this.logicalSize = entry.sizeBytes;
    this.remaining = archivedBytes;
    this.padding = (BLOCK_BYTES - (archivedBytes % BLOCK_BYTES)) % BLOCK_BYTES;
    this.mode = "data";
    if (archivedBytes === 0) this.endData();
  }

  private takeData(chunk: Buffer, at: number): number {
    const take = Math.min(this.remaining, chunk.length - at);
    const whole = at === 0 && take === chunk.length;
    if (this.regions === undefined) {
      this.sink?.write(whole ? chunk : chunk.subarray(at, at + take));
    } else this.takeSparse(chunk.subarray(at, at + take), this.regions);
    this.remaining -= take;
    if (this.remaining === 0) this.endData();
    return at + take;
  }

  private takeSparse(bytes: Buffer, regions: readonly SparseRegion[]): void {
    for (let at = 0; at < bytes.length;) {
      const region = regions[this.region] as SparseRegion;
      const left = region.length - this.regionBytes;
      if (left === 0) {
        this.region++;
        this.regionBytes = 0;
        continue;
      }
      const start = region.offset + this.regionBytes;
      if (start > this.logical) this.sink?.skip(start - this.logical);
      const take = Math.min(left, bytes.length - at);
      this.sink?.write(bytes.subarray(at, at + take));
      this.regionBytes += take;
      this.logical = start + take;
      at += take;
    }
  }

  private endData(): void {
    if (this.regions !== undefined && this.logicalSize > this.logical) {
      this.sink?.skip(this.logicalSize - this.logical);
    }
    this.sink?.end();
    this.sink = this.regions = undefined;
    this.mode = this.padding > 0 ? "padding" : "header";
  }

  private takePadding(chunk: Buffer, at: number): number {
    const take = Math.min(this.padding, chunk.length - at);
    this.padding -= take;
    if (this.padding === 0) this.mode = "header";
    return at + take;
  }
}
