import type { Clock } from "../../domain/index.ts";

/** The host's clocks. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(ms, { signal } = {}) {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      if (signal?.aborted === true) return reject(signal.reason as Error);
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
  after(ms, callback) {
    // Longer than a timer can be: the caller's timer ends with the process all the same.
    const timer = setTimeout(callback, Math.min(ms, 2 ** 31 - 1)).unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
