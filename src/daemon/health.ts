/** Liveness and readiness from what is known in memory: a probe never touches the disk. */
import { untilTick, type Catalog, type Clock } from "../domain/index.ts";
import type { HealthPort } from "./http/ports.ts";

/** A loop that stood still this long serves nobody. */
const MAX_LAG_MS = 5_000;

/** A stall is reported for one to two of these, however often somebody asks. */
const LAG_WINDOW_MS = 10_000;

/**
 * A stall is seen shorter than it was by up to one of these: an idle loop is looked at seldom, and
 * often from when it was found late. Node's own monitor is finer and wakes the process so often
 * that it takes more of the processor than all else in an idle cluster.
 */
const LAG_SAMPLE_MS = { idle: 1_000, late: 100 } as const;
/** More than a timer is late by in a process that has little to do. */
const LATE_MS = 50;
/** So many samples in time, and the loop counts as idle again. */
const CALM_SAMPLES = 50;

/**
 * Reads the longest stall of the event loop of late, in milliseconds.
 * @param observe is told of each sample
 */
export function watchLoopLag(clock: Clock, observe: (lagMs: number) => void): () => number {
  let previous = 0;
  let longest = 0;
  let windowEndsAt = clock.monotonic() + LAG_WINDOW_MS;
  let calm = 0;
  const sample = (expectedAt: number) => {
    const now = clock.monotonic();
    const lag = Math.max(0, now - expectedAt);
    if (now >= windowEndsAt) {
      previous = longest;
      longest = 0;
      windowEndsAt = now + LAG_WINDOW_MS;
    }
    longest = Math.max(longest, lag);
    calm = lag > LATE_MS ? 0 : calm + 1;
    observe(lag);
    wait(now);
  };
  const wait = (now: number) => {
    const isIdle = calm >= CALM_SAMPLES;
    const pauseMs = isIdle ? untilTick(clock, LAG_SAMPLE_MS.idle) : LAG_SAMPLE_MS.late;
    clock.after(pauseMs, () => sample(now + pauseMs));
  };
  wait(clock.monotonic());
  return () => Math.max(previous, longest);
}

export interface Health extends HealthPort {
  /** From now on the catalog's state counts. */
  opened(catalog: Catalog): void;
  drain(): void;
}

export function createHealth(loopLagMs: () => number): Health {
  let catalog: Catalog | undefined;
  let draining = false;
  const answer = (checks: { name: string; ok: boolean; detail: string }[]) => ({
    ok: checks.every((check) => check.ok),
    checks,
  });
  return {
    opened: (open) => (catalog = open),
    drain: () => (draining = true),
    live() {
      const lag = loopLagMs();
      return answer([
        { name: "event-loop", ok: lag < MAX_LAG_MS, detail: `lag ${Math.round(lag)} ms` },
      ]);
    },
    ready() {
      const health = catalog?.health();
      return answer([
        {
          name: "catalog",
          ok: health?.writable === true,
          detail: health === undefined ? "not open yet" : health.reason || "open and writable",
        },
        { name: "drain", ok: !draining, detail: draining ? "the daemon is stopping" : "serving" },
      ]);
    },
  };
}
