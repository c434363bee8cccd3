/** What a fetching node knows of one that holds, or fetches, the same artifact. */
import {
  Bitfield,
  backOffMs,
  requestChunks,
  windowChunks,
  type Clock,
  type LackingChunks,
} from "../../domain/index.ts";
import type { PeerId } from "../ports.ts";
import type { HavesPart } from "./messages.ts";

/** A rate is taken over at least so long. */
const RATE_SPAN_MS = 200;
const RATE_WEIGHT = 0.4;
/** Long enough for two have-maps and an answer. */
const REST_MS = 750;

export class Neighbour {
  readonly nodeId: string;
  readonly peerId: PeerId;
  readonly #clock: Clock;
  readonly #availability: Uint16Array;
  /** Undefined before it has told. */
  have: Bitfield | undefined;
  complete = false;
  /** It was complete when it was first heard of: it may have chunks that nobody else has. */
  seed = false;
  freshDone = false;
  #restUntil = 0;
  log = "";
  cursor = 0;
  outstanding = 0;
  requests = 0;
  polling = false;
  pollAt = 0;
  failures = 0;
  notBefore = 0;
  receivedBytes = 0;
  /** It was found to have nothing to ask for, and nothing has changed since. */
  hasNothing = false;
  #rateBps: number | undefined;
  #spanBytes = 0;
  #spanFrom = 0;

  constructor(options: {
    nodeId: string;
    peerId: PeerId;
    clock: Clock;
    /** How many neighbours have each chunk; kept up to date from here. */
    availability: Uint16Array;
  }) {
    this.nodeId = options.nodeId;
    this.peerId = options.peerId;
    this.#clock = options.clock;
    this.#availability = options.availability;
  }

  has(index: number): boolean {
    return this.complete || this.have?.has(index) === true;
  }

  /** It has told that it has one of them. */
  hasAnyOf(missing: LackingChunks): boolean {
    if (this.have === undefined) return false;
    for (let at = 0; at < missing.size; at++) if (this.have.has(missing.at(at))) return true;
    return false;
  }

  /** Chunks that may be asked for now. */
  room(chunkSizeBytes: number): number {
    return windowChunks(this.#rateBps, chunkSizeBytes) - this.outstanding;
  }

  perRequest(chunkSizeBytes: number): number {
    return requestChunks(windowChunks(this.#rateBps, chunkSizeBytes));
  }

  asked(chunks: number): void {
    if (this.requests === 0) {
      this.#spanFrom = this.#clock.monotonic();
      this.#spanBytes = 0;
    }
    this.requests++;
    this.outstanding += chunks;
  }

  /** @param bytes of whole chunks, however few were on the wire */
  answered(chunks: number, bytes: number): void {
    this.requests--;
    this.outstanding -= chunks;
    this.#spanBytes += bytes;
    const passed = this.#clock.monotonic() - this.#spanFrom;
    if (passed < RATE_SPAN_MS && (this.requests > 0 || this.#rateBps !== undefined)) return;
    const rate = (this.#spanBytes / Math.max(1, passed)) * 1_000;
    this.#rateBps =
      this.#rateBps === undefined ? rate : this.#rateBps + (rate - this.#rateBps) * RATE_WEIGHT;
    this.#spanFrom += passed;
    this.#spanBytes = 0;
  }

  failed(random: () => number): void {
    this.failures++;
    this.#rateBps = undefined;
    this.notBefore = this.#clock.monotonic() + backOffMs(this.failures, random);
  }

  /** Takes over what the other side says it has. @throws RangeError */
  learn(part: HavesPart, length: number, whole?: Uint8Array): void {
    const isFirst = this.have === undefined;
    if (part.complete) {
      if (this.complete && !isFirst) return;
      if (isFirst) this.seed = true;
      this.#become(new Bitfield(length, new Uint8Array(Math.ceil(length / 8)).fill(0xff)));
      this.complete = true;
      return;
    }
    this.complete = false;
    if (part.haves !== undefined && part.log === this.log && this.have !== undefined) {
      for (const index of part.haves) {
        if (!this.have.set(index)) continue;
        this.#availability[index] = (this.#availability[index] ?? 0) + 1;
        this.hasNothing = false;
      }
      this.cursor = Math.max(this.cursor, part.cursor);
      return;
    }
    if (whole === undefined) return;
    this.#become(new Bitfield(length, whole));
    this.log = part.log;
    this.cursor = part.cursor;
  }

  /** It has given out everything once: those who got it are given a moment to pass it on. */
  exhausted(): void {
    if (this.freshDone) return;
    this.freshDone = true;
    this.#restUntil = this.#clock.monotonic() + REST_MS;
  }

  get isResting(): boolean {
    return this.#clock.monotonic() < this.#restUntil;
  }

  /** It was asked for a chunk that it does not have after all. */
  lacks(index: number): void {
    this.complete = false;
    if (this.have?.clear(index) !== true) return;
    this.#availability[index] = Math.max(0, (this.#availability[index] ?? 0) - 1);
  }

  /** It no longer counts. */
  forget(): void {
    this.#become(undefined);
    this.complete = false;
  }

  #become(next: Bitfield | undefined): void {
    for (let i = 0; i < this.#availability.length; i++) {
      const change = Number(next?.has(i) ?? false) - Number(this.have?.has(i) ?? false);
      if (change !== 0) this.#availability[i] = (this.#availability[i] ?? 0) + change;
    }
    this.have = next;
    this.hasNothing = false;
  }
}

/** Of several that were complete from the start, each is asked for its own share of the chunks. */
export function excludeSharesOfOthers(
  exclude: Bitfield,
  neighbour: Neighbour,
  all: Iterable<Neighbour>,
): void {
  const seeds = [...all]
    .filter((one) => one.seed && one.complete && !one.freshDone)
    .map(({ nodeId }) => nodeId)
    .sort();
  const turn = seeds.indexOf(neighbour.nodeId);
  if (seeds.length < 2) return;
  for (let i = 0; i < exclude.length; i++) if (i % seeds.length !== turn) exclude.set(i);
}
