/**
 * The service manager's notification protocol (sd_notify(3)) through the `systemd-notify` program:
 * Node has no unix datagram socket. Nothing happens where NOTIFY_SOCKET is not set.
 */
import { execa } from "execa";
import type { Clock, Log } from "../domain/index.ts";

export interface Notifier {
  ready(status: string): Promise<void>;
  status(text: string): Promise<void>;
  stopping(): Promise<void>;
  reloading(): Promise<void>;
  /** Feeds the watchdog, as often as it asks for, while `alive` holds. */
  watch(alive: () => boolean): () => void;
}

const NOTIFY_TIMEOUT_MS = 5_000;

export function createNotifier(
  environment: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  log: Log,
): Notifier {
  const socket = environment["NOTIFY_SOCKET"];
  const watchdogMs = Number(environment["WATCHDOG_USEC"] ?? 0) / 1_000;
  const send = async (...words: string[]): Promise<void> => {
    if (socket === undefined) return;
    const sent = await execa("systemd-notify", words, {
      env: { NOTIFY_SOCKET: socket, PATH: environment["PATH"] ?? "/usr/bin:/bin" },
      extendEnv: false,
      timeout: NOTIFY_TIMEOUT_MS,
      reject: false,
    });
    if (sent.failed) log.warn("systemd-notify failed", { words, output: sent.stderr });
  };
  return {
    ready: (status) => send("--ready", `--status=${status}`),
    status: (text) => send(`--status=${text}`),
    stopping: () => send("STOPPING=1"),
    reloading: () => send("RELOADING=1"),
    watch(alive) {
      if (socket === undefined || !(watchdogMs > 0)) return () => undefined;
      let stopped = false;
      let due = clock.monotonic();
      let timer: { cancel(): void } | undefined;
      const beat = () => {
        // A timer that fires while the core stands still, or long after its time, must not say that
        // all is well; it is asked again soon, since one slow moment is no hang.
        const late = clock.monotonic() - due > watchdogMs / 3;
        const isFed = !late && alive();
        const pause = isFed ? watchdogMs / 3 : watchdogMs / 12;
        void (isFed ? send("WATCHDOG=1") : Promise.resolve()).finally(() => {
          if (stopped) return;
          due = clock.monotonic() + pause;
          timer = clock.after(pause, beat);
        });
      };
      beat();
      return () => {
        stopped = true;
        timer?.cancel();
      };
    },
  };
}
