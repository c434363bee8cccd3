import { performance } from "node:perf_hooks";
import { setTimeout as wait } from "node:timers/promises";
import type { Clock } from "../../src/domain/index.ts";

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, options) {
    await wait(ms, undefined, { signal: options?.signal });
  },
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    timer.unref();
    return {
      cancel: () => {
        clearTimeout(timer);
      },
    };
  },
};
