/**
 * Blocks in the order of the layers: what is placed never moves, and what comes later is placed
 * after it. Large files start on a chunk. Small files share chunks in runs; a run ends before a
 * file whose path says so, so that an insertion or a file that grows moves only the rest of its
 * run, and the chunks after it are those of the version before.
 */
import { BLOCKS_PER_GROUP, CHUNK_BLOCKS, RESERVED_BLOCKS, hasSuperblock } from "./layout.ts";

export interface Extent {
  /** First block of the file, first block of the image, number of blocks. */
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
}

/** One small file in this many begins a run, by the hash of its path: about four chunks a run. */
const RUN_FILES = 24;
/** Longest run of blocks one extent may name. */
const MAX_EXTENT = 32_768;

export class Allocator {
  #next = RESERVED_BLOCKS;
  #afterLarge = false;
  readonly #freed: { start: number; length: number }[] = [];

  /** The block after the last one placed. */
  get end(): number {
    return this.#next;
  }

  /** What was given back, in the order it was. */
  get freed(): readonly { start: number; length: number }[] {
    return this.#freed;
  }

  alignChunk(): void {
    this.#next = Math.ceil(this.#next / CHUNK_BLOCKS) * CHUNK_BLOCKS;
    this.#afterLarge = false;
  }

  /** Prepares the place of a file of `blocks` blocks whose path has this hash. */
  startFile(pathHash: number, blocks: number): void {
    if (blocks >= CHUNK_BLOCKS) {
      this.alignChunk();
      this.#afterLarge = true;
    } else if (this.#afterLarge || (blocks > 0 && pathHash % RUN_FILES === 0)) {
      this.alignChunk();
    }
  }

  /**
   * Places `length` blocks for logical blocks from `logical` on; more than one extent at group
   * starts.
   */
  take(logical: number, length: number): Extent[] {
    const extents: Extent[] = [];
    let placed = 0;
    while (placed < length) {
      const group = Math.floor(this.#next / BLOCKS_PER_GROUP);
      if (this.#next % BLOCKS_PER_GROUP < RESERVED_BLOCKS && hasSuperblock(group)) {
        this.#next = group * BLOCKS_PER_GROUP + RESERVED_BLOCKS;
      }
      let stop = group + 1;
      while (!hasSuperblock(stop)) stop++;
      const room = stop * BLOCKS_PER_GROUP - this.#next;
      const count = Math.min(length - placed, room, MAX_EXTENT);
      extents.push({ logical: logical + placed, physical: this.#next, length: count });
      this.#next += count;
      placed += count;
    }
    return extents;
  }

  /** Places `length` blocks that must be one run; answers the first. */
  takeRun(length: number): number {
    for (;;) {
      const [extent, ...more] = this.take(0, length);
      if (extent !== undefined && more.length === 0) return extent.physical;
    }
  }

  free(extents: readonly Extent[]): void {
    for (const { physical, length } of extents) this.#freed.push({ start: physical, length });
  }
}

/** FNV-1a of a name, continued from the hash of the folder it is in. */
export function hashName(folderHash: number, name: string): number {
  let hash = folderHash ^ 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  }
  return (hash ^ (hash >>> 15)) >>> 0;
}
