import type { Clock, Log, Random } from "../../src/domain/index.ts";

/** A clock whose sleeps end at once and are counted; time moves by them only. */
export function fakeClock(): Clock & { sleeps: number[]; advance(ms: number): void } {
  let time = 1_700_000_000_000;
  const sleeps: number[] = [];
  return {
    sleeps,
    advance: (ms) => {
      time += ms;
    },
    now: () => time,
    monotonic: () => time,
    sleep: async (ms, options) => {
      options?.signal?.throwIfAborted();
      sleeps.push(ms);
      time += ms;
    },
    after: () => ({ cancel: () => undefined }),
  };
}

export const steadyRandom: Random = {
  bytes: (length) => new Uint8Array(length),
  uuid: () => "00000000-0000-4000-8000-000000000000",
};

/** Keeps what is logged, to show that no secret is in it. */
export function recordingLog(): Log & { lines: string[] } {
  const lines: string[] = [];
  const keep = (message: string, fields?: Record<string, unknown>) => {
    lines.push(`${message} ${JSON.stringify(fields ?? {})}`);
  };
  const log = { lines, debug: keep, info: keep, warn: keep, error: keep, child: () => log };
  return log;
}
