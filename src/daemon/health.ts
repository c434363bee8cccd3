/** Liveness and readiness from what is known in memory: a probe never touches the disk. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Catalog, Clock } from "../domain/index.ts";
import type { HealthPort } from "./http/ports.ts";

/** A loop that stood still this long serves nobody. */
const MAX_LAG_MS = 5_000;

/** A stall is reported for one to two of these, however often somebody asks. */
const LAG_WINDOW_MS = 10_000;

/** Reads the longest stall of the event loop of late, in milliseconds. */
export function watchLoopLag(clock: Clock): () => number {
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  let previous = 0;
  const turn = () => {
    previous = delay.max;
    delay.reset();
    clock.after(LAG_WINDOW_MS, turn);
  };
  clock.after(LAG_WINDOW_MS, turn);
  return () => Math.max(previous, delay.max) / 1e6;
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
