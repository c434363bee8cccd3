/** What signals and programming errors do to the process, and how long its end may take. */
import { AppError, type Clock, type Log } from "../domain/index.ts";

const EXIT_BUG = 70;
const EXIT_IMPATIENT = 1;

/** The part of `process` that is used. */
export interface ProcessEvents {
  on(event: string, listener: (reason: unknown) => void): unknown;
  exit(code: number): void;
}

/**
 * SIGTERM or SIGINT resolve `stopped` with their name, a second one ends the process at once;
 * SIGHUP calls `reload`, one call after the other; an error that nobody caught is logged and ends
 * the process with 70, so that the service manager starts it anew.
 */
export function watchProcess(
  events: ProcessEvents,
  log: Log,
  reload: () => Promise<void>,
): { stopped: Promise<string> } {
  for (const event of ["uncaughtException", "unhandledRejection"]) {
    events.on(event, (error) => {
      log.error("a programming error ends the daemon", { err: error });
      events.exit(EXIT_BUG);
    });
  }
  let reloads = Promise.resolve();
  events.on("SIGHUP", () => {
    reloads = reloads.then(reload).catch((error: unknown) => {
      log.error("the reload failed; nothing has changed", { err: error });
    });
  });
  const stopped = new Promise<string>((resolve) => {
    let isSeen = false;
    for (const name of ["SIGTERM", "SIGINT"]) {
      events.on(name, () => {
        if (isSeen) events.exit(EXIT_IMPATIENT);
        isSeen = true;
        resolve(name);
      });
    }
  });
  return { stopped };
}

/**
 * Waits for `work`, but not for ever: what hangs must not keep the host from shutting down.
 * @throws AppError internal when the time is over; what `work` throws
 */
export async function within<T>(work: Promise<T>, milliseconds: number, clock: Clock): Promise<T> {
  let timer: { cancel(): void } | undefined;
  const overdue = new Promise<never>((_, reject) => {
    timer = clock.after(milliseconds, () =>
      reject(new AppError("internal", `not everything stopped within ${milliseconds} ms`)),
    );
  });
  try {
    return await Promise.race([work, overdue]);
  } finally {
    timer?.cancel();
  }
}
