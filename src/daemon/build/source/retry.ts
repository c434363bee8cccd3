/** Trying again: exponential back-off with jitter, and the server's own word where it gives one. */
import type { AppError, Clock, Random } from "../../../domain/index.ts";
import { SOURCE_LIMITS } from "./limits.ts";

/** A failure that another try may mend; `failure` is what the caller sees when none did. */
export class TransientFailure extends Error {
  override readonly name = "TransientFailure";
  readonly failure: AppError;
  readonly retryAfterMs: number | undefined;

  constructor(failure: AppError, retryAfterMs?: number) {
    super(failure.message, { cause: failure });
    this.failure = failure;
    this.retryAfterMs = retryAfterMs;
  }
}

export interface RetryPorts {
  readonly clock: Clock;
  readonly random: Random;
}

/** Counts the tries of one piece of work and waits between them. */
export class Backoff {
  readonly #ports: RetryPorts;
  #failures = 0;

  constructor(ports: RetryPorts) {
    this.#ports = ports;
  }

  /** The work got somewhere: it has all its tries again. */
  reset(): void {
    this.#failures = 0;
  }

  /**
   * Waits before the next try. Half of each delay is drawn at random, so that many pulls cut at
   * once do not come back at once.
   * @throws what `error` stands for, when it is not transient or the tries are used up
   */
  async wait(error: unknown, signal?: AbortSignal): Promise<void> {
    if (!(error instanceof TransientFailure)) throw error;
    this.#failures += 1;
    if (this.#failures >= SOURCE_LIMITS.attempts) throw error.failure;
    const { backoffBaseMs, backoffCapMs, retryAfterCapMs } = SOURCE_LIMITS;
    const full = Math.min(backoffCapMs, backoffBaseMs * 2 ** (this.#failures - 1));
    const share = (this.#ports.random.bytes(1)[0] ?? 0) / 255;
    const delayMs = full / 2 + (full / 2) * share;
    const askedMs = Math.min(error.retryAfterMs ?? 0, retryAfterCapMs);
    await this.#ports.clock.sleep(
      Math.max(delayMs, askedMs),
      signal === undefined ? {} : { signal },
    );
  }
}

export async function retrying<T>(
  ports: RetryPorts,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const backoff = new Backoff(ports);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await backoff.wait(error, signal);
    }
  }
}

/** `Retry-After` in milliseconds from `nowMs`: seconds, or a date. */
export function parseRetryAfter(value: string | undefined, nowMs: number): number | undefined {
  const text = value?.trim() ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const atMs = text === "" ? Number.NaN : Date.parse(text);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
