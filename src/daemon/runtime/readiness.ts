/** Whether a guest is ready: an HTTP GET through its forwarded port, as a kubelet would ask. */
import { request } from "node:http";
import { AppError, type Clock, type GuestProbe } from "../../domain/index.ts";

/** Longer than a period: under emulation a first answer may take seconds. */
const ASK_TIMEOUT_MS = 5_000;

export interface ProbeTarget {
  readonly host: string;
  readonly port: number;
}

/** One question: true when the answer was good. Never throws. */
export type Ask = (
  target: ProbeTarget,
  path: string,
  options: { timeoutMs: number; signal: AbortSignal },
) => Promise<boolean>;

/** One GET: good is a status from 200 to 399. */
export const askHttp: Ask = ({ host, port }, path, { timeoutMs, signal }) =>
  new Promise((resolve) => {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    // A guest's server may end its lines with LF alone, which other clients take.
    const lenient = { agent: false, insecureHTTPParser: true, signal: limit } as const;
    const options = { host, port, path, ...lenient };
    const asked = request(options, (answer) => {
      const status = answer.statusCode ?? 0;
      resolve(status >= 200 && status < 400);
      answer.destroy();
    });
    asked.on("error", () => resolve(false));
    asked.end();
  });

/**
 * Asks every `periodMs` until `successThreshold` answers in a row are good.
 * @throws AppError guest_probe_failed after `timeoutMs`, or `failureThreshold` bad answers in a row
 */
export async function awaitReady(
  probe: GuestProbe,
  target: ProbeTarget,
  options: { clock: Clock; signal: AbortSignal; ask?: Ask },
): Promise<void> {
  const { clock, signal, ask = askHttp } = options;
  const until = clock.monotonic() + probe.timeoutMs;
  let good = 0;
  let bad = 0;
  for (;;) {
    signal.throwIfAborted();
    const left = Math.max(1, until - clock.monotonic());
    const timeoutMs = Math.ceil(Math.min(ASK_TIMEOUT_MS, left));
    if (await ask(target, probe.path, { timeoutMs, signal })) {
      good++;
      bad = 0;
    } else {
      bad++;
      good = 0;
    }
    signal.throwIfAborted();
    if (good >= probe.successThreshold) return;
    const late = clock.monotonic() + probe.periodMs > until;
    if (bad >= probe.failureThreshold || late) throw probeFailed(probe, bad, late);
    await clock.sleep(probe.periodMs, { signal });
  }
}

const probeFailed = (probe: GuestProbe, bad: number, late: boolean): AppError =>
  new AppError(
    "guest_probe_failed",
    `the guest did not answer GET :${probe.port}${probe.path} well ` +
      (late ? `within ${probe.timeoutMs} ms` : `${bad} times in a row`),
    { meta: { port: probe.port, path: probe.path, bad_answers: bad } },
  );
