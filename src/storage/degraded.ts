/**
 * A failed write latches LevelDB: it refuses every later write until it is closed and opened again,
 * also when the disk has room again, and what would be appended behind a half-written record would
 * be lost. So after the first failure nothing is written; reads go on; and the database is opened
 * anew, with growing pauses, until that works.
 */
import { AppError, errorText, type Clock, type Log } from "../domain/index.ts";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;

export class Degraded {
  readonly #options: { clock: Clock; log: Log; reopen: () => Promise<void>; changed: () => void };
  #reason = "";
  #timer: { cancel(): void } | undefined;
  #attempt: Promise<void> | undefined;
  #stopped = false;

  /** @param options.reopen tries once; `changed` is called when writable turns. */
  constructor(options: {
    clock: Clock;
    log: Log;
    reopen: () => Promise<void>;
    changed: () => void;
  }) {
    this.#options = options;
  }

  /** Why writes are refused; blank while they are not. */
  get reason(): string {
    return this.#reason;
  }

  /** @throws AppError catalog_degraded while writes are refused */
  assertWritable(): void {
    if (this.#reason === "") return;
    throw new AppError("catalog_degraded", `the catalog cannot be written: ${this.#reason}`);
  }

  /** Refuses writes from now on. Answers the error for those that were under way. */
  enter(cause: unknown): AppError {
    const first = this.#reason === "";
    this.#reason = errorText(cause);
    if (first) {
      this.#options.log.error("the catalog cannot be written; reads go on", {
        reason: this.#reason,
      });
      this.#schedule(FIRST_RETRY_MS);
      this.#options.changed();
    }
    return new AppError("catalog_degraded", "the catalog could not be written", { cause });
  }

  /** No more attempts; waits for one under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#attempt;
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(delayMs, () => {
      this.#attempt = this.#retry(delayMs);
    });
  }

  async #retry(delayMs: number): Promise<void> {
    try {
      await this.#options.reopen();
    } catch (error) {
      this.#reason = errorText(error);
      const nextMs = Math.min(delayMs * 2, LONGEST_RETRY_MS);
      this.#options.log.warn("the catalog still cannot be written", {
        reason: this.#reason,
        retry_in_ms: nextMs,
      });
      this.#schedule(nextMs);
      return;
    }
    this.#reason = "";
    this.#options.log.info("the catalog can be written again");
    this.#options.changed();
  }
}
