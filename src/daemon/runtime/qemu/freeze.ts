/**
 * A running guest frozen to files, with a pause that does not depend on its size or on what the
 * filesystem can do. QEMU's migration copies the memory while the guest runs, again and again what
 * changed, until so little is left that the rest takes a moment. Then the guest stands still: a
 * layer is put on the disk, the rest and the devices' state follow, and it runs on.
 */
import type { Clock } from "../../../domain/index.ts";
import { VM_FILES } from "./command.ts";
import { prepareLayer, putLayer } from "./disk-layer.ts";
import { receiveLive } from "./live-copy.ts";
import type { Qmp, QmpEvent } from "./qmp.ts";

/** QEMU stops the guest as soon as it thinks that the rest takes no longer. */
const REST_MS = 20;
/** A guest that changes memory faster than it can be copied is stopped all the same after this. */
const LIVE_LIMIT_MS = 10_000;
/** The whole: the slowest disk for the largest guest. */
const FREEZE_TIMEOUT_MS = 600_000;
const UNLIMITED = 2 ** 40;
const POLL_MS = 5;

export interface Freeze {
  readonly qmp: Qmp;
  readonly vmDir: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** Folder for memory and state. */
  readonly to: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Frozen {
  /** How long the guest stood still, by QEMU's own clock. */
  readonly pauseMs: number;
  readonly liveMs: number;
}

/**
 * The guest runs again when this settles, however it does; the disk has its layer then, unless it
 * failed early.
 * @throws Error, or the signal's reason
 */
export async function freeze(freeze: Freeze): Promise<Frozen> {
  const { qmp, clock, signal } = freeze;
  const began = clock.monotonic();
  const receiver = await receiveLive(freeze.vmDir, freeze.to, freeze.memoryBytes);
  const pause = listenForPause(qmp);
  try {
    await prepareLayer(qmp, freeze.vmDir, freeze.diskBytes);
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "pause-before-switchover", state: true }],
    });
    const limits = { "max-bandwidth": UNLIMITED, "downtime-limit": REST_MS };
    await qmp.execute("migrate-set-parameters", limits);
    const still = status(qmp, "pre-switchover", signal);
    await qmp.execute("migrate", { uri: `unix:${VM_FILES.incoming}` });
    const late = clock.after(LIVE_LIMIT_MS, () => void qmp.execute("stop").catch(() => undefined));
    // What the receiver cannot write is known before QEMU notices.
    await Promise.race([still, receiver.written.then(() => still)]).finally(() => late.cancel());
    const liveMs = clock.monotonic() - began;
    const saved = status(qmp, "completed", signal);
    await Promise.all([
      putLayer(qmp),
      qmp.execute("migrate-continue", { state: "pre-switchover" }),
      saved,
    ]);
    await qmp.execute("cont");
    await receiver.written;
    return { pauseMs: pause.milliseconds(), liveMs };
  } catch (error) {
    await runOn(qmp, clock);
    throw error;
  } finally {
    pause.stop();
    await receiver.close();
  }
}

/** Lets a guest run that a snapshot, or a rollback, had stopped; ends what it was stopped for. */
export async function runOn(qmp: Qmp, clock: Clock): Promise<void> {
  await qmp.execute("migrate_cancel");
  const until = clock.monotonic() + FREEZE_TIMEOUT_MS;
  const settled = ["none", "completed", "failed", "cancelled", undefined];
  const state = async () => (await qmp.execute("query-migrate")) as { status?: string };
  while (!settled.includes((await state()).status) && clock.monotonic() < until) {
    await clock.sleep(POLL_MS);
  }
  await qmp.execute("cont");
}

/** Call it before what leads to that status. */
function status(qmp: Qmp, wanted: string, signal: AbortSignal): Promise<void> {
  const ends = ["failed", "cancelled", wanted];
  const seen = qmp
    .waitFor(({ event, data }) => event === "MIGRATION" && ends.includes(String(data["status"])), {
      timeoutMs: FREEZE_TIMEOUT_MS,
      signal,
    })
    .then(({ data }) => {
      if (data["status"] !== wanted) throw new Error("QEMU's migration failed");
    });
  // It counts only where it is awaited: the command before it may fail first.
  seen.catch(() => undefined);
  return seen;
}

/** From the guest's stop to its going on, by the times QEMU gives its events. */
function listenForPause(qmp: Qmp) {
  let stopped = 0;
  let resumed = 0;
  const stop = qmp.onEvent(({ event, at }: QmpEvent) => {
    if (event === "STOP") stopped = at;
    if (event === "RESUME") resumed = at;
  });
  return { milliseconds: () => Math.max(0, resumed - stopped), stop };
}
