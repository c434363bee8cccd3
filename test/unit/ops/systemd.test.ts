import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createNotifier } from "../../../src/daemon/systemd.ts";
import type { Clock, Log } from "../../../src/domain/index.ts";

const WATCHDOG_MS = 30_000;
let dir: string;
let warnings: string[];
const log = { warn: (message: string) => warnings.push(message) } as unknown as Log;

/** A clock whose timers fire when the test says. */
function handClock() {
  let now = 0;
  let timers: { at: number; callback: () => void }[] = [];
  const clock = {
    monotonic: () => now,
    after(ms: number, callback: () => void) {
      const timer = { at: now + ms, callback };
      timers.push(timer);
      return { cancel: () => (timers = timers.filter((it) => it !== timer)) };
    },
  } as unknown as Clock;
  return {
    clock,
    waiting: () => timers.map(({ at }) => at - now),
    /** The only timer fires, `lateMs` after its time. */
    fire: (lateMs = 0) => {
      const [timer, ...rest] = timers;
      if (timer === undefined) throw new Error("no timer waits");
      timers = rest;
      now = timer.at + lateMs;
      timer.callback();
    },
  };
}

/** What reached the service manager, a message a line. */
const sent = (): string[] => {
  try {
    return readFileSync(join(dir, "sent"), "utf8").trimEnd().split("\n");
  } catch {
    return [];
  }
};

beforeEach(() => {
  warnings = [];
  dir = mkdtempSync(join(tmpdir(), "tc-notify-"));
  // Stands for the real program, which needs a service manager (test/systemd has one).
  const script = `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> ${dir}/sent\n`;
  writeFileSync(join(dir, "systemd-notify"), script);
  chmodSync(join(dir, "systemd-notify"), 0o755);
});
afterEach(() => rmSync(dir, { recursive: true }));

const environment = (more: Record<string, string> = {}) => ({
  PATH: `${dir}:/usr/bin:/bin`,
  NOTIFY_SOCKET: "/run/notify",
  ...more,
});
const watched = () => environment({ WATCHDOG_USEC: String(WATCHDOG_MS * 1_000) });

describe("without a service manager", () => {
  test("nothing is sent and nothing is timed", async () => {
    const { clock, waiting } = handClock();
    const notifier = createNotifier({ PATH: dir, WATCHDOG_USEC: "1000000" }, clock, log);
    await notifier.ready("up");
    await notifier.status("x");
    await notifier.stopping();
    notifier.watch(() => true)();
    expect([sent(), waiting(), warnings]).toEqual([[], [], []]);
  });
});

describe("with one", () => {
  test("each message goes to its socket, in words systemd-notify knows", async () => {
    const notifier = createNotifier(environment(), handClock().clock, log);
    await notifier.ready("2 templates");
    await notifier.status("3 templates");
    await notifier.reloading();
    await notifier.stopping();
    expect(sent()).toEqual([
      "/run/notify --ready --status=2 templates",
      "/run/notify --status=3 templates",
      "/run/notify RELOADING=1",
      "/run/notify STOPPING=1",
    ]);
  });

  test("a program that fails or is missing is a warning, no error", async () => {
    rmSync(join(dir, "systemd-notify"));
    const notifier = createNotifier({ PATH: dir, NOTIFY_SOCKET: "/n" }, handClock().clock, log);
    await notifier.ready("up");
    expect(warnings).toEqual(["systemd-notify failed"]);
  });

  test("no watchdog is fed where none was asked for", () => {
    const { clock, waiting } = handClock();
    createNotifier(environment(), clock, log).watch(() => true);
    expect(waiting()).toEqual([]);
  });
});

describe("the watchdog", () => {
  const fed = () => sent().filter((line) => line.endsWith("WATCHDOG=1")).length;

  test("is fed at once and then three times in its interval, until told to stop", async () => {
    const { clock, waiting, fire } = handClock();
    const stop = createNotifier(watched(), clock, log).watch(() => true);
    for (let times = 1; times <= 3; times++) {
      await vi.waitFor(() => expect([fed(), waiting()]).toEqual([times, [WATCHDOG_MS / 3]]));
      fire();
    }
    await vi.waitFor(() => expect([fed(), waiting()]).toEqual([4, [WATCHDOG_MS / 3]]));
    stop();
    expect(waiting()).toEqual([]);
  });

  test("is not fed while the core stands still, and again when it moves", async () => {
    const { clock, waiting, fire } = handClock();
    let alive = true;
    const stop = createNotifier(watched(), clock, log).watch(() => alive);
    await vi.waitFor(() => expect(waiting()).toEqual([WATCHDOG_MS / 3]));
    alive = false;
    for (let round = 0; round < 3; round++) {
      fire();
      await vi.waitFor(() => expect(waiting()).toEqual([WATCHDOG_MS / 12]));
    }
    expect(fed()).toBe(1);
    alive = true;
    fire();
    await vi.waitFor(() => expect([fed(), waiting()]).toEqual([2, [WATCHDOG_MS / 3]]));
    stop();
  });

  test("is not fed by a timer that comes late, but soon after if all is well again", async () => {
    const { clock, waiting, fire } = handClock();
    const stop = createNotifier(watched(), clock, log).watch(() => true);
    await vi.waitFor(() => expect(waiting()).toEqual([WATCHDOG_MS / 3]));
    fire(WATCHDOG_MS / 3 + 1);
    await vi.waitFor(() => expect(waiting()).toEqual([WATCHDOG_MS / 12]));
    expect(fed()).toBe(1);
    fire();
    await vi.waitFor(() => expect(fed()).toBe(2));
    stop();
  });
});
