/** The content of one regular file on its way to its blocks. */
import { AppError } from "../../../domain/core.ts";
import type { FileWriter } from "../rootfs-tree.ts";
import type { Allocator, Extent } from "./allocator.ts";
import type { ChunkSink } from "./chunk-sink.ts";
import { joinExtents } from "./extents.ts";
import { BLOCK_BYTES } from "./layout.ts";
import type { Ext4Node } from "./node.ts";

export class FileData implements FileWriter {
  readonly node: Ext4Node;
  readonly #allocator: Allocator;
  readonly #sink: ChunkSink;
  readonly #onEnd: () => void;
  #position = 0;
  /** First logical block that has no place yet. */
  #unplaced = 0;
  /** Where the current run begins and ends in the file, and begins in the image. */
  #runStart = 0;
  #runEnd = 0;
  #runOffset = 0;
  /** Placed, and not yet reached. */
  #runs: Extent[] = [];

  constructor(node: Ext4Node, allocator: Allocator, sink: ChunkSink, onEnd: () => void) {
    this.node = node;
    this.#allocator = allocator;
    this.#sink = sink;
    this.#onEnd = onEnd;
  }

  write(bytes: Uint8Array): void {
    if (this.#position + bytes.length > this.node.sizeBytes) {
      throw new AppError("internal", `more than ${this.node.sizeBytes} bytes for a file`);
    }
    let at = 0;
    while (at < bytes.length) {
      if (this.#position >= this.#runEnd) this.#place(bytes.length - at);
      const length = Math.min(bytes.length - at, this.#runEnd - this.#position);
      const piece = length === bytes.length ? bytes : bytes.subarray(at, at + length);
      this.#sink.put(this.#runOffset + this.#position - this.#runStart, piece);
      this.#position += length;
      at += length;
    }
  }

  /** Gives blocks to the next bytes; where a group's start is in the way there are several runs. */
  #place(wanted: number): void {
    if (this.#runs.length === 0) {
      const first = Math.max(this.#unplaced, Math.floor(this.#position / BLOCK_BYTES));
      const last = Math.ceil((this.#position + wanted) / BLOCK_BYTES);
      this.#runs = this.#allocator.take(first, last - first);
      this.#unplaced = last;
      this.node.extents.push(...this.#runs);
    }
    const run = this.#runs.shift();
    if (run === undefined) throw new AppError("internal", "no block was placed");
    this.#runStart = run.logical * BLOCK_BYTES;
    this.#runEnd = (run.logical + run.length) * BLOCK_BYTES;
    this.#runOffset = run.physical * BLOCK_BYTES;
  }

  skip(bytes: number): void {
    this.#position += bytes;
  }

  end(): void {
    if (this.#position !== this.node.sizeBytes) {
      throw new AppError(
        "internal",
        `${this.#position} bytes came for a file of ${this.node.sizeBytes}`,
      );
    }
    this.node.extents = joinExtents(this.node.extents);
    this.#onEnd();
  }
}
