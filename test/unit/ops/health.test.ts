import { describe, expect, test, vi } from "vitest";
import { performance } from "node:perf_hooks";
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
  test("is reported to all who ask, for one window after the one it was in", async () => {
    const turns: (() => void)[] = [];
    const after = (_: number, callback: () => void) => void turns.push(callback);
    const lag = watchLoopLag({ after } as unknown as Clock);
    const turn = () => turns.pop()?.();
    await vi.waitFor(() => expect(lag()).toBeGreaterThan(0));
    const until = performance.now() + 300;
    while (performance.now() < until);
    await vi.waitFor(() => expect(lag()).toBeGreaterThan(250));
    expect(lag()).toBeGreaterThan(250);
    turn();
    expect(lag()).toBeGreaterThan(250);
    turn();
    expect(lag()).toBe(0);
  });
});
