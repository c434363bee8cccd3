/** What this node has sent and received of each artifact since it started. */
import type { Clock } from "../../domain/index.ts";
import { Meter } from "./limiter.ts";

/** Artifacts whose figures are kept: the oldest go. */
const KEPT = 1_000;

interface Tally {
  chunks: number | undefined;
  reused: number;
  sentBytes: number;
  readonly sources: Map<string, number>;
  readonly down: Meter;
  readonly up: Meter;
}

export class Tallies {
  readonly #clock: Clock;
  readonly #byDigest = new Map<string, Tally>();
  #sent = 0;
  #received = 0;
  #mismatches = 0;
  #invalid = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  sent(digest: string, bytes: number): void {
    const tally = this.#of(digest);
    tally.sentBytes += bytes;
    tally.up.add(bytes);
    this.#sent += bytes;
  }

  received(digest: string, nodeId: string, bytes: number): void {
    const tally = this.#of(digest);
    tally.sources.set(nodeId, (tally.sources.get(nodeId) ?? 0) + bytes);
    tally.down.add(bytes);
    this.#received += bytes;
  }

  reused(digest: string, chunks: number): void {
    this.#of(digest).reused += chunks;
  }

  chunks(digest: string, chunks: number): void {
    this.#of(digest).chunks = chunks;
  }

  invalid(): void {
    this.#invalid++;
  }

  mismatch(): void {
    this.#mismatches++;
  }

  chunkCountOf(digest: string): number | undefined {
    return this.#byDigest.get(digest)?.chunks;
  }

  view(digest: string) {
    const tally = this.#byDigest.get(digest);
    return {
      reused_chunks: tally?.reused ?? 0,
      sources: Object.fromEntries(tally?.sources ?? []),
      sent_bytes: tally?.sentBytes ?? 0,
      down_bps: tally?.down.bps ?? 0,
      up_bps: tally?.up.bps ?? 0,
    };
  }

  totals(): Readonly<Record<string, number>> {
    return {
      sent_bytes: this.#sent,
      received_bytes: this.#received,
      chunk_mismatch: this.#mismatches,
      wire_invalid: this.#invalid,
    };
  }

  #of(digest: string): Tally {
    let tally = this.#byDigest.get(digest);
    if (tally === undefined) {
      const clock = this.#clock;
      const [down, up] = [new Meter(clock), new Meter(clock)];
      tally = { chunks: undefined, reused: 0, sentBytes: 0, sources: new Map(), down, up };
      this.#byDigest.set(digest, tally);
      const oldest = this.#byDigest.keys().next().value;
      if (this.#byDigest.size > KEPT && oldest !== undefined) this.#byDigest.delete(oldest);
    }
    return tally;
  }
}
