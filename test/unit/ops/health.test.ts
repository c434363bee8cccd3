import { describe, expect, test } from "vitest";
import { createHealth, watchLoopLag } from "../../../src/daemon/health.ts";
import type { Catalog, Clock } from "../../../src/domain/index.ts";

const catalog = (writable: boolean, reason: string): Catalog =>
  ({ health: () => ({ writable, reason, entries: 0 }) }) as unknown as Catalog;
const failing = (report: { checks: readonly { name: string; ok: boolean; detail: string }[] }) =>
  report.checks.filter(({ ok }) => !ok).map(({ name, detail }) => `${name}: ${detail}`);

describe("health", () => {
  test("is not ready before the catalog is open", () => {
    const health = createHealth(() => 0);
    expect(health.ready().ok).toBe(false);
    expect(failing(health.ready())).toEqual(["catalog: not open yet"]);
    expect(health.live().ok).toBe(true);
  });
  test("is ready once it is, and says so", () => {
    const health = createHealth(() => 0);
    health.opened(catalog(true, ""));
    expect(health.ready()).toEqual({
      ok: true,
      checks: [
        { name: "catalog", ok: true, detail: "open and writable" },
        { name: "drain", ok: true, detail: "serving" },
      ],
    });
  });
  test("is not ready while the disk refuses, with the reason, and still alive", () => {
    const health = createHealth(() => 0);
    health.opened(catalog(false, "no space left on device"));
    expect(failing(health.ready())).toEqual(["catalog: no space left on device"]);
    expect(health.live().ok).toBe(true);
  });
  test("is not ready while it stops", () => {
    const health = createHealth(() => 0);
    health.opened(catalog(true, ""));
    health.drain();
    expect(failing(health.ready())).toEqual(["drain: the daemon is stopping"]);
  });
  test("is not alive when the loop stood still", () => {
    expect(createHealth(() => 4_999).live().ok).toBe(true);
    expect(failing(createHealth(() => 5_000).live())).toEqual(["event-loop: lag 5000 ms"]);
  });
});

describe("the event loop's lag", () => {
  test("is reported to all who ask, for one window after the one it was in", () => {
    let now = 0;
    let due: { at: number; callback: () => void } | undefined;
    const seen: number[] = [];
    const after = (ms: number, callback: () => void) => (due = { at: now + ms, callback });
    const clock = { after, monotonic: () => now } as unknown as Clock;
    const lag = watchLoopLag(clock, (ms) => seen.push(ms));
    const run = (untilMs: number, stallMs = 0) => {
      while (due !== undefined && due.at <= untilMs) {
        now = due.at + stallMs;
        stallMs = 0;
        due.callback();
      }
    };
    run(1_000);
    expect(lag()).toBe(0);
    run(1_100, 300);
    expect(lag()).toBe(300);
    expect(seen).toContain(300);
    run(15_000);
    expect(lag()).toBe(300);
    run(25_000);
    expect(lag()).toBe(0);
  });
});
