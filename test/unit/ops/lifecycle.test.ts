import { describe, expect, test, vi } from "vitest";
import { watchProcess, within } from "../../../src/daemon/lifecycle.ts";
import type { Clock, Log } from "../../../src/domain/index.ts";

function watched(reload: () => Promise<void> = () => Promise.resolve()) {
  const listeners = new Map<string, (reason: unknown) => void>();
  const exits: number[] = [];
  const errors: unknown[][] = [];
  const events = {
    on: (event: string, listener: (reason: unknown) => void) => listeners.set(event, listener),
    exit: (code: number) => void exits.push(code),
  };
  const log = { error: (...words: unknown[]) => errors.push(words) } as unknown as Log;
  const { stopped } = watchProcess(events, log, reload);
  return {
    stopped,
    exits,
    errors,
    emit: (name: string, it?: unknown) => listeners.get(name)?.(it),
  };
}

describe("signals", () => {
  test.each(["SIGTERM", "SIGINT"])("%s asks for an orderly end", async (name) => {
    const { stopped, exits, emit } = watched();
    emit(name);
    expect(await stopped).toBe(name);
    expect(exits).toEqual([]);
  });

  test("a second one, of either kind, ends the process at once", () => {
    const { exits, emit } = watched();
    emit("SIGTERM");
    emit("SIGINT");
    expect(exits).toEqual([1]);
  });

  test("reloads run one after the other, also after one that failed", async () => {
    const steps: string[] = [];
    const open: { resolve: () => void; reject: (reason: Error) => void }[] = [];
    const { emit, errors } = watched(() => {
      steps.push(`reload ${steps.length + 1}`);
      return new Promise((resolve, reject) => open.push({ resolve, reject }));
    });
    emit("SIGHUP");
    emit("SIGHUP");
    await vi.waitFor(() => expect(steps).toEqual(["reload 1"]));
    const failure = new Error("no such file");
    open[0]?.reject(failure);
    await vi.waitFor(() => expect(steps).toEqual(["reload 1", "reload 2"]));
    expect(errors).toEqual([["the reload failed; nothing has changed", { err: failure }]]);
  });
});

describe("programming errors", () => {
  test.each(["uncaughtException", "unhandledRejection"])("%s is logged and exits 70", (event) => {
    const { exits, errors, emit } = watched();
    const bug = new TypeError("x is not a function");
    emit(event, bug);
    expect(errors).toEqual([["a programming error ends the daemon", { err: bug }]]);
    expect(exits).toEqual([70]);
  });
});

describe("the end", () => {
  const timers: { callback: () => void; isCancelled: boolean }[] = [];
  const clock = {
    after(_: number, callback: () => void) {
      const timer = { callback, isCancelled: false };
      timers.push(timer);
      return { cancel: () => (timer.isCancelled = true) };
    },
  } as unknown as Clock;

  test("is waited for, and the timer dropped", async () => {
    expect(await within(Promise.resolve("done"), 5, clock)).toBe("done");
    await expect(within(Promise.reject(new Error("x")), 5, clock)).rejects.toThrow("x");
    expect(timers.map(({ isCancelled }) => isCancelled)).toEqual([true, true]);
  });

  test("is not waited for longer than its time", async () => {
    const waiting = within(new Promise(() => undefined), 20_000, clock);
    timers.at(-1)?.callback();
    await expect(waiting).rejects.toThrow("not everything stopped within 20000 ms");
  });
});
