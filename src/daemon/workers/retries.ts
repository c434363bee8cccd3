/** When what has failed is tried again: pauses that double, by id. */
import type { Clock } from "../../domain/index.ts";

/** Before what may pass is tried again: no holder, no space, no peer. */
const RETRY_MS = { first: 5_000, most: 300_000 } as const;

export class Retries {
  readonly #clock: Pick<Clock, "after" | "monotonic">;
  readonly #onDue: (id: string) => void;
  readonly #waiting = new Map<string, { at: number; pauseMs: number }>();

  constructor(clock: Pick<Clock, "after" | "monotonic">, onDue: (id: string) => void) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  /** True when it has failed in this life, and not succeeded since. */
  has(id: string): boolean {
    return this.#waiting.has(id);
  }

  isDue(id: string): boolean {
    const retry = this.#waiting.get(id);
    return retry !== undefined && this.#clock.monotonic() >= retry.at;
  }

  later(id: string): void {
    const last = this.#waiting.get(id)?.pauseMs;
    const pauseMs = last === undefined ? RETRY_MS.first : Math.min(last * 2, RETRY_MS.most);
    this.#waiting.set(id, { at: this.#clock.monotonic() + pauseMs, pauseMs });
    this.#clock.after(pauseMs, () => this.#onDue(id));
  }

  forget(id: string): void {
    this.#waiting.delete(id);
  }
}
