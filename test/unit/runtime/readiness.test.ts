import { describe, expect, test } from "vitest";
import { awaitReady, type Ask } from "../../../src/daemon/runtime/readiness.ts";
import type { GuestProbe } from "../../../src/domain/index.ts";
import { fakeClock } from "../../support/source-ports.ts";

const probe: GuestProbe = {
  port: 80,
  path: "/ready",
  timeoutMs: 30_000,
  periodMs: 500,
  successThreshold: 1,
  failureThreshold: 60,
};
const target = { host: "127.0.0.1", port: 4_000 };

/** Answers from a script, the last one for ever; each question takes `costMs`. */
function run(change: Partial<GuestProbe>, answers: boolean[], costMs = 0) {
  const clock = fakeClock();
  const abort = new AbortController();
  let asked = 0;
  const ask: Ask = async () => {
    clock.advance(costMs);
    return answers[Math.min(asked++, answers.length - 1)] ?? false;
  };
  const done = awaitReady({ ...probe, ...change }, target, { clock, signal: abort.signal, ask });
  return { done, clock, abort, asked: () => asked };
}

describe("a guest's readiness", () => {
  test("is there with the first good answer, and asked for once a period until then", async () => {
    const { done, clock, asked } = run({}, [false, false, true]);
    await done;
    expect(asked()).toBe(3);
    expect(clock.sleeps).toEqual([500, 500]);
  });

  test("needs as many good answers in a row as the threshold says", async () => {
    const { done, asked } = run({ successThreshold: 2 }, [true, false, true, true]);
    await done;
    expect(asked()).toBe(4);
  });

  test("is given up after as many bad answers in a row as the threshold says", async () => {
    const { done, asked } = run({ failureThreshold: 3 }, [false]);
    await expect(done).rejects.toMatchObject({
      code: "guest_probe_failed",
      message: "the guest did not answer GET :80/ready well 3 times in a row",
      meta: { bad_answers: 3 },
    });
    expect(asked()).toBe(3);
  });

  test("counts bad answers anew after a good one", async () => {
    const { done, asked } = run({ failureThreshold: 2, successThreshold: 2 }, [
      ...[false, true, false, true, true],
    ]);
    await done;
    expect(asked()).toBe(5);
  });

  test("is given up when the time is over, however few answers came", async () => {
    const { done, clock } = run({ timeoutMs: 2_000, failureThreshold: 60 }, [false], 400);
    const began = clock.monotonic();
    await expect(done).rejects.toMatchObject({ message: /well within 2000 ms$/ });
    expect(clock.monotonic() - began).toBeLessThanOrEqual(2_400);
  });

  test("is not waited for any longer when the caller gives up", async () => {
    const { done, abort } = run({}, [false]);
    abort.abort(new Error("cancelled"));
    await expect(done).rejects.toThrow("cancelled");
  });
});
