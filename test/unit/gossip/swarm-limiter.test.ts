import { describe, expect, it } from "vitest";
import type { Clock } from "../../../src/domain/index.ts";
import { Limiter } from "../../../src/gossip/swarm/limiter.ts";
import {
  decodeMessage,
  encodeMessage,
  swarmRequestSchema,
} from "../../../src/gossip/swarm/messages.ts";

/** A clock that a test moves; timers fire in order. */
function steppedClock() {
  let time = 0;
  let timers: { at: number; run: () => void }[] = [];
  const clock = {
    now: () => time,
    monotonic: () => time,
    sleep: () => Promise.reject(new Error("not used")),
    after(ms: number, run: () => void) {
      const timer = { at: time + ms, run };
      timers.push(timer);
      return { cancel: () => void (timers = timers.filter((one) => one !== timer)) };
    },
  } satisfies Clock;
  const advance = async (ms: number) => {
    for (const end = time + ms; ;) {
      const next = timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      time = Math.max(time, next?.at ?? end);
      if (next === undefined) return;
      timers = timers.filter((one) => one !== next);
      next.run();
      await Promise.resolve();
    }
  };
  /** Time goes on and no timer gets its turn. */
  const stall = (ms: number) => void (time += ms);
  return { clock, advance, stall };
}

describe("the limiter", () => {
  it("lets through its rate, shared equally between those who wait", async () => {
    const { clock, advance } = steppedClock();
    const limiter = new Limiter(clock, 1_000_000);
    const got = new Map<string, number>();
    const ask = (lane: string, bytes: number) =>
      void limiter.take(lane, bytes).then(() => got.set(lane, (got.get(lane) ?? 0) + bytes));
    for (let i = 0; i < 400; i++) ask("greedy", 10_000);
    for (let i = 0; i < 40; i++) ask("modest", 10_000);
    await advance(500);
    const [greedy = 0, modest = 0] = [got.get("greedy"), got.get("modest")];
    expect(greedy + modest).toBeGreaterThanOrEqual(500_000);
    expect(greedy + modest).toBeLessThanOrEqual(500_000 + 50_000 + 20_000);
    expect(modest / greedy).toBeGreaterThan(0.6);
    await advance(5_000);
    expect(limiter.waiting).toBe(0);
  });

  it("loses nothing when its turns come late, and a pause gives no more than a burst", async () => {
    const { clock, advance, stall } = steppedClock();
    const limiter = new Limiter(clock, 1_000_000);
    let got = 0;
    const ask = () => void limiter.take("a", 10_000).then(() => (got += 10_000));
    for (let i = 0; i < 400; i++) ask();
    for (let turn = 0; turn < 10; turn++) {
      stall(200);
      await advance(1);
    }
    expect(got).toBeGreaterThanOrEqual(2_000_000);
    expect(got).toBeLessThanOrEqual(2_010_000 + 50_000 + 10_000);
    await advance(5_000);
    stall(60_000);
    got = 0;
    for (let i = 0; i < 400; i++) ask();
    await advance(0);
    expect(got).toBeLessThanOrEqual(60_000);
  });

  it("gives back what was not sent, and lets nobody hang when it closes", async () => {
    const { clock, advance } = steppedClock();
    const limiter = new Limiter(clock, 1_000);
    await limiter.take("a", 10_000);
    expect(limiter.tryTake(1)).toBe(false);
    limiter.giveBack(10_000);
    expect(limiter.tryTake(1)).toBe(true);
    await limiter.take("a", 10_000);
    const waiting = limiter.take("b", 1);
    limiter.close();
    await waiting;
    await advance(10);
  });
});

describe("a message", () => {
  const digest = `sha256:${"a".repeat(64)}`;
  const request = { v: 1, kind: "fresh", digest, limit: 3 } as const;

  it("is read back with its bytes, from the middle of a buffer too", () => {
    const bytes = encodeMessage(request, [new Uint8Array([1, 2]), new Uint8Array([3])]);
    const inside = new Uint8Array(bytes.length + 7);
    inside.set(bytes, 7);
    const { head, body } = decodeMessage(swarmRequestSchema, inside.subarray(7));
    expect(head).toEqual(request);
    expect([...body]).toEqual([1, 2, 3]);
  });

  it.each([
    ["too short", new Uint8Array(3)],
    ["a head longer than it", new Uint8Array([9, 0, 0, 0, 123])],
    ["no JSON", new Uint8Array([1, 0, 0, 0, 123])],
    ["no UTF-8", new Uint8Array([1, 0, 0, 0, 255])],
    ["another kind", encodeMessage({ ...request, kind: "other" })],
    ["too much", encodeMessage({ ...request, limit: 1e9 })],
    ["a path for a digest", encodeMessage({ ...request, digest: "../../etc" })],
  ])("is refused when it is %s", (_what, bytes) => {
    expect(() => decodeMessage(swarmRequestSchema, bytes)).toThrow(
      expect.objectContaining({ code: "wire_invalid" }),
    );
  });
});
