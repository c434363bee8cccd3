/**
 * A token bucket that is fair between those who wait: whoever has got the least comes next. Bytes
 * may be taken into debt by one grant, so that a large one never starves.
 */
import type { Clock } from "../../domain/index.ts";

/** What may go at once after a pause. Short, so that the rate holds over any second. */
const BURST_SECONDS = 0.05;
/**
 * While somebody waits, time that passes is not lost, however late this process gets its turn: on a
 * busy host that is often longer than a burst. One that was stopped does not make up for it.
 */
const LATE_SECONDS = 0.5;

interface Waiter {
  readonly bytes: number;
  readonly grant: () => void;
}

interface Lane {
  /** Bytes granted, as a virtual time: a lane that was idle starts at the common time. */
  served: number;
  readonly waiting: Waiter[];
}

export class Limiter {
  readonly #clock: Clock;
  readonly #rateBps: number;
  readonly #lanes = new Map<string, Lane>();
  #tokens: number;
  #filledAt: number;
  #virtual = 0;
  #timer: { cancel(): void } | undefined;

  /** @param rateBps bytes per second; Infinity: no limit */
  constructor(clock: Clock, rateBps: number) {
    this.#clock = clock;
    this.#rateBps = rateBps;
    this.#tokens = rateBps * BURST_SECONDS;
    this.#filledAt = clock.monotonic();
  }

  get waiting(): number {
    let count = 0;
    for (const lane of this.#lanes.values()) count += lane.waiting.length;
    return count;
  }

  waitingOf(lane: string): number {
    return this.#lanes.get(lane)?.waiting.length ?? 0;
  }

  /** Resolves when `bytes` may be sent to `lane`. */
  take(lane: string, bytes: number): Promise<void> {
    if (this.#rateBps === Infinity) return Promise.resolve();
    return new Promise((resolve) => {
      // What has passed before anybody waited counts as a pause.
      this.#fill();
      let known = this.#lanes.get(lane);
      if (known === undefined) {
        known = { served: this.#virtual, waiting: [] };
        this.#lanes.set(lane, known);
      }
      known.waiting.push({ bytes, grant: resolve });
      this.#pump();
    });
  }

  /** Bytes that were taken and not sent. */
  giveBack(bytes: number): void {
    if (this.#rateBps === Infinity) return;
    this.#tokens += bytes;
    this.#pump();
  }

  /** True when it took them: for who can come again. */
  tryTake(bytes: number): boolean {
    if (this.#rateBps === Infinity) return true;
    this.#fill();
    if (this.#tokens <= 0) return false;
    this.#tokens -= bytes;
    return true;
  }

  close(): void {
    this.#timer?.cancel();
    for (const { waiting } of this.#lanes.values()) for (const { grant } of waiting) grant();
    this.#lanes.clear();
  }

  #fill(): void {
    const now = this.#clock.monotonic();
    const gained = ((now - this.#filledAt) / 1_000) * this.#rateBps;
    const seconds = this.#lanes.size > 0 ? LATE_SECONDS : BURST_SECONDS;
    this.#tokens = Math.min(this.#rateBps * seconds, this.#tokens + gained);
    this.#filledAt = now;
  }

  #next(): [string, Lane] | undefined {
    let best: [string, Lane] | undefined;
    for (const entry of this.#lanes) {
      if (best === undefined || entry[1].served < best[1].served) best = entry;
    }
    return best;
  }

  #pump(): void {
    this.#fill();
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      if (this.#tokens <= 0) {
        if (this.#timer !== undefined) return;
        const ms = Math.max(1, Math.ceil((-this.#tokens / this.#rateBps) * 1_000));
        this.#timer = this.#clock.after(ms, () => {
          this.#timer = undefined;
          this.#pump();
        });
        return;
      }
      const [name, lane] = next;
      const waiter = lane.waiting.shift();
      if (waiter !== undefined) {
        this.#virtual = lane.served;
        lane.served += waiter.bytes;
        this.#tokens -= waiter.bytes;
        waiter.grant();
      }
      if (lane.waiting.length === 0) this.#lanes.delete(name);
    }
  }
}

/** Bytes per second over the last few seconds. */
export class Meter {
  readonly #clock: Clock;
  #rate = 0;
  #bytes = 0;
  #since: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.monotonic();
  }

  add(bytes: number): void {
    this.#roll();
    this.#bytes += bytes;
  }

  get bps(): number {
    this.#roll();
    return Math.round(this.#rate);
  }

  #roll(): void {
    const passed = this.#clock.monotonic() - this.#since;
    if (passed < 1_000) return;
    const now = (this.#bytes / passed) * 1_000;
    const weight = Math.min(1, passed / 3_000);
    this.#rate = this.#rate * (1 - weight) + now * weight;
    this.#bytes = 0;
    this.#since += passed;
  }
}
