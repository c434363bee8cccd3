/** A running sandbox to a snapshot of its own: frozen, its disk made one file, published. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import {
  AppError,
  type Clock,
  type DriverSnapshot,
  type Log,
  type Random,
} from "../../../domain/index.ts";
import { mergeOverlays } from "../qcow2-merge.ts";
import { ORIGIN_FILES, VM_FILES } from "./command.ts";
import { foldLayer } from "./disk-layer.ts";
import { freeze, type Frozen } from "./freeze.ts";
import { syncGuest } from "./guest-sync.ts";
import type { Qmp } from "./qmp.ts";
import type { Origin, VmRecord } from "./sandbox-record.ts";
import { publishSnapshot, ROOTFS_BACKING, workFolder } from "./snapshot.ts";

const MEBIBYTE = 1_048_576;

export interface LiveSnapshot {
  readonly record: VmRecord;
  readonly qmp: Qmp;
  readonly vmDir: string;
  readonly agent: Duplex | undefined;
  /** The guest is asked to flush its file systems first. */
  readonly sync: boolean;
  readonly snapshotId: string;
  /** The folder the snapshot gets; it is made under another name first. */
  readonly dir: string;
  /** What this host's QEMU adds to the versions that the guest was booted with. */
  readonly extra: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onStep: (step: string) => void;
}

/** @throws AppError snapshot_failed, or the signal's reason; the sandbox runs on */
export async function snapshotLive(live: LiveSnapshot): Promise<DriverSnapshot> {
  const { record, clock, signal, vmDir, qmp } = live;
  const { origin } = record;
  if (origin === undefined) {
    throw new AppError("snapshot_failed", "the sandbox was started by a version without snapshots");
  }
  const began = clock.monotonic();
  const work = workFolder(live.dir);
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true, mode: 0o750 });
  try {
    signal.throwIfAborted();
    const { unsynced, ...frozen } = await freezeInto(live, origin, work);
    signal.throwIfAborted();
    const shape = { memoryMib: origin.memoryMib, cpus: origin.cpus };
    const { diskBytes, rootfsPath } = origin;
    const bytes = await publishSnapshot(work, live.dir, { shape, diskBytes, rootfsPath });
    const { versions } = origin;
    return {
      templateId: record.sandbox.templateId,
      snapshotId: live.snapshotId,
      driver: "qemu",
      dir: live.dir,
      versions: { ...versions, extra: { ...versions.extra, ...live.extra } },
      bytes,
      ...(unsynced === "" ? {} : { unsynced }),
      timings: {
        pause_ms: tenths(frozen.pauseMs),
        live_ms: tenths(frozen.liveMs),
        total_ms: tenths(clock.monotonic() - began),
      },
    };
  } catch (cause) {
    await rm(work, { recursive: true, force: true });
    if (signal.aborted) throw signal.reason;
    const what = `sandbox ${record.sandbox.sandboxId} could not be snapshotted`;
    throw new AppError("snapshot_failed", what, { cause });
  } finally {
    await foldLayer(qmp, vmDir, clock).catch((error: unknown) => {
      // The next snapshot folds it first.
      const { sandboxId } = record.sandbox;
      live.log.warn("a sandbox's disk keeps its layer", { sandbox_id: sandboxId, err: error });
    });
  }
}

async function freezeInto(
  live: LiveSnapshot,
  origin: Origin,
  work: string,
): Promise<Frozen & { readonly unsynced: string }> {
  const { qmp, vmDir, clock, signal, onStep } = live;
  const { diskBytes } = origin;
  await foldLayer(qmp, vmDir, clock);
  onStep("copying memory while the guest runs");
  const { pid } = live.record.process;
  const memoryBytes = origin.memoryMib * MEBIBYTE;
  let unsynced = "";
  const beforePause = async () => {
    if (live.sync) unsynced = await flush(live, origin);
  };
  const frozen = await freeze({
    ...{ qmp, pid, vmDir, memoryBytes, diskBytes, beforePause, to: work, clock, signal },
  });
  onStep(`the guest stood still for ${tenths(frozen.pauseMs)} ms; copying its disk`);
  const layers = [VM_FILES.disk, ORIGIN_FILES.disk].map((name) => join(vmDir, name));
  await mergeOverlays(layers, join(work, VM_FILES.disk), diskBytes, ROOTFS_BACKING, { signal });
  return { ...frozen, unsynced };
}

/** Blank, or why the guest has not flushed. */
async function flush(live: LiveSnapshot, { versions }: Origin): Promise<string> {
  const { clock, onStep } = live;
  const began = clock.monotonic();
  const unsynced = await syncGuest({ ...live, agentVersion: versions.agent_version });
  const took = Math.round(clock.monotonic() - began);
  onStep(unsynced === "" ? `the guest flushed its file systems in ${took} ms` : unsynced);
  return unsynced;
}

const tenths = (milliseconds: number): number => Math.round(milliseconds * 10) / 10;
