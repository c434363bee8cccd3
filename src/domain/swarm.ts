/**
 * The decisions of the swarm, without any I/O: which chunks a node asks whom for, which a complete
 * holder gives out first, and how much it asks for at once.
 */
import { isHole, chunkCount, type ChunkManifest } from "./chunk-manifest.ts";

/** One bit for each chunk, lowest bit of the first byte first. Counts as it goes. */
export class Bitfield {
  readonly length: number;
  readonly bytes: Uint8Array;
  #count = 0;

  /** @throws RangeError when `bytes` is not as long as `length` bits need */
  constructor(length: number, bytes?: Uint8Array) {
    const size = Math.ceil(length / 8);
    if (bytes !== undefined && bytes.length !== size) {
      throw new RangeError(`a bitfield of ${length} bits has ${size} bytes, not ${bytes.length}`);
    }
    this.length = length;
    this.bytes = bytes === undefined ? new Uint8Array(size) : Uint8Array.from(bytes);
    const spare = size * 8 - length;
    if (spare > 0) this.bytes[size - 1] = (this.bytes[size - 1] ?? 0) & (0xff >> spare);
    for (let byte of this.bytes) for (; byte !== 0; byte &= byte - 1) this.#count++;
  }

  /** How many bits are set. */
  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === this.length;
  }

  has(index: number): boolean {
    return (((this.bytes[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
  }

  /** True when the bit was not set before. Indexes outside are ignored. */
  set(index: number): boolean {
    if (index < 0 || index >= this.length || this.has(index)) return false;
    this.bytes[index >> 3] = (this.bytes[index >> 3] ?? 0) | (1 << (index & 7));
    this.#count++;
    return true;
  }

  clear(index: number): boolean {
    if (!this.has(index)) return false;
    this.bytes[index >> 3] = (this.bytes[index >> 3] ?? 0) & ~(1 << (index & 7));
    this.#count--;
    return true;
  }
}

/** The chunks that are never transferred. */
export function holesOf(manifest: ChunkManifest): Bitfield {
  const holes = new Bitfield(chunkCount(manifest));
  for (let i = 0; i < holes.length; i++) if (isHole(manifest, i)) holes.set(i);
  return holes;
}

/** Length in bytes of the chunk `index`: the last one may be shorter. */
export const chunkLength = (
  manifest: { sizeBytes: number; chunkSizeBytes: number },
  index: number,
): number =>
  Math.min(manifest.chunkSizeBytes, manifest.sizeBytes - index * manifest.chunkSizeBytes);

/** Numbers in [0, 1), the same for the same seed (mulberry32): for choices, not for secrets. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Chunks that are not here yet: taken out one by one, walked through again and again. */
export class LackingChunks {
  readonly #indexes: Uint32Array;
  /** Where each index stands in `#indexes`. */
  readonly #places: Uint32Array;
  #size = 0;

  /** @param have bits of what is here already */
  constructor(have: Bitfield) {
    this.#indexes = new Uint32Array(have.length - have.count);
    this.#places = new Uint32Array(have.length);
    for (let index = 0; index < have.length; index++) {
      if (have.has(index)) continue;
      this.#places[index] = this.#size;
      this.#indexes[this.#size++] = index;
    }
  }

  get size(): number {
    return this.#size;
  }

  /** In no order; `position` below `size`. */
  at(position: number): number {
    return this.#indexes[position] ?? 0;
  }

  /** All of them, lowest first. */
  indexes(): number[] {
    return [...this.#indexes.subarray(0, this.#size)].sort((a, b) => a - b);
  }

  delete(index: number): void {
    const place = this.#places[index] ?? 0;
    if (place >= this.#size || this.#indexes[place] !== index) return;
    const last = this.#indexes[--this.#size] ?? 0;
    this.#indexes[place] = last;
    this.#places[last] = place;
  }
}

/** Candidates looked at for one choice: bounds its cost for very large artifacts. */
const SCAN_CHUNKS = 8_192;

/**
 * Up to `limit` of the lacking chunks for which `isWanted` holds, those that the fewest have first;
 * among equals in random order, so that nodes that ask at the same time ask for different ones. It
 * runs for each neighbour at each answer, so it keeps only the best and sorts nothing.
 */
export function pickRarest(options: {
  readonly lacking: LackingChunks;
  readonly limit: number;
  readonly isWanted: (index: number) => boolean;
  readonly availability: (index: number) => number;
  readonly random: () => number;
}): number[] {
  const { lacking, limit, isWanted, availability, random } = options;
  if (lacking.size === 0 || limit <= 0) return [];
  const best: { index: number; rank: number }[] = [];
  const start = Math.floor(random() * lacking.size);
  const steps = Math.min(lacking.size, SCAN_CHUNKS);
  for (let step = 0; step < steps; step++) {
    const index = lacking.at((start + step) % lacking.size);
    if (!isWanted(index)) continue;
    const rank = availability(index) + random();
    const worst = best[best.length - 1];
    if (best.length === limit && worst !== undefined && rank >= worst.rank) continue;
    if (best.length === limit) best.pop();
    let at = best.length;
    while (at > 0 && (best[at - 1]?.rank ?? 0) > rank) at--;
    best.splice(at, 0, { index, rank });
  }
  return best.map(({ index }) => index);
}

/**
 * What a complete holder has given to nobody yet, in random order. While anything is left it hands
 * out each chunk once, whoever asks, and leaves it to the receivers to pass it on: so it sends
 * little more than one copy however many there are.
 */
export class FreshPool {
  readonly #left: number[];

  constructor(holes: Bitfield, random: () => number) {
    const left: number[] = [];
    for (let i = 0; i < holes.length; i++) if (!holes.has(i)) left.push(i);
    for (let i = left.length - 1; i > 0; i--) {
      const other = Math.floor(random() * (i + 1));
      const here = left[i] as number;
      left[i] = left[other] as number;
      left[other] = here;
    }
    this.#left = left;
  }

  get size(): number {
    return this.#left.length;
  }

  /** Takes up to `limit` that are not in `exclude`. */
  take(limit: number, exclude: Bitfield): number[] {
    const taken: number[] = [];
    for (let at = this.#left.length - 1; at >= 0 && taken.length < limit; at--) {
      const index = this.#left[at] as number;
      if (exclude.has(index)) continue;
      taken.push(index);
      const last = this.#left.pop() as number;
      if (at < this.#left.length) this.#left[at] = last;
    }
    return taken;
  }
}

/** Data asked for and not yet here, per peer: long enough to hide a round trip and a queue. */
const OUTSTANDING_SECONDS = 0.5;
const WINDOW_CHUNKS = { first: 4, least: 2, most: 256 } as const;
/** One answer stays near 1 MiB: many such fit between others on one connection. */
export const REQUEST_CHUNKS_MAX = 16;

/** How many chunks may be outstanding at a peer that delivers at `rate` (undefined: unknown). */
export function windowChunks(rateBps: number | undefined, chunkSizeBytes: number): number {
  if (rateBps === undefined) return WINDOW_CHUNKS.first;
  const wanted = Math.ceil((rateBps * OUTSTANDING_SECONDS) / chunkSizeBytes);
  return Math.min(WINDOW_CHUNKS.most, Math.max(WINDOW_CHUNKS.least, wanted));
}

/** A window is spread over about four requests, so that the pipe never runs dry. */
export const requestChunks = (window: number): number =>
  Math.min(REQUEST_CHUNKS_MAX, Math.max(1, Math.ceil(window / 4)));

const BACK_OFF_MS = { first: 500, most: 30_000 } as const;

/** Pause after the `failures`-th failure in a row, half of it random. */
export const backOffMs = (failures: number, random: () => number): number =>
  Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** Math.min(16, failures - 1)) *
  (0.5 + random() / 2);
