/**
 * A running sandbox back to a snapshot. Its new VM is started and has read its state beside the old
 * one before that stands still; the host's ports then change hands, and the folders. Whatever
 * fails before, the old one runs on; what came after it has run is only the old one's end.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import type { DriverSandbox, Log } from "../../../domain/index.ts";
import {
  addForwards,
  endMachine,
  readState,
  removeForwards,
  withQemuLog,
  type Machine,
} from "./machine.ts";
import type { Qmp } from "./qmp.ts";
import { hearFresh, keepOrigin, startBeside, type Input, type RestoreParts } from "./restore.ts";
import { writeVmRecord, type VmRecord } from "./sandbox-record.ts";
import { endProcess } from "./vm-process.ts";

export interface Rollback {
  readonly parts: RestoreParts;
  readonly input: Input;
  /** The sandbox as it is, and the control channel of its VM. */
  readonly record: VmRecord;
  readonly qmp: Qmp;
  /** The sandbox's folder, the new VM's, and where the old one goes to its end. */
  readonly dirs: { readonly own: string; readonly next: string; readonly gone: string };
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onStep: (step: string) => void;
  /** Told when the folders change hands; the answer is called when they have. */
  readonly onSwitch: (sandbox: DriverSandbox) => () => void;
}

export interface RolledBack {
  readonly machine: Machine;
  readonly sandbox: DriverSandbox;
  readonly fresh: Promise<boolean>;
}

/**
 * @throws AppError restore_failed, or the signal's reason: the sandbox runs as before, unless its
 *   VM has died by itself
 */
export async function rollBack(rollback: Rollback): Promise<RolledBack> {
  const { parts, dirs, record } = rollback;
  const { machine, sandbox, fresh } = await switchBeside(rollback);
  try {
    await endProcess(record.process, parts.clock);
    await rm(dirs.gone, { recursive: true, force: true });
  } catch (error) {
    // The rollback is done; `reap` ends what nobody owns.
    rollback.log.warn("what a rollback replaced is left", { err: error });
  }
  return { machine: { ...machine, dir: dirs.own }, sandbox, fresh };
}

async function switchBeside(rollback: Rollback): Promise<RolledBack> {
  const { parts, dirs, signal, onStep } = rollback;
  const began = parts.clock.monotonic();
  for (const dir of [dirs.next, dirs.gone]) await rm(dir, { recursive: true, force: true });
  await mkdir(dirs.next, { mode: 0o750 });
  let machine: Machine | undefined;
  try {
    signal.throwIfAborted();
    onStep("restoring beside the running guest");
    machine = await startBeside(parts, rollback.input, dirs.next);
    const fresh = hearFresh(parts, machine);
    await readState(machine);
    signal.throwIfAborted();
    onStep("switching");
    return { machine, sandbox: await takeOver(rollback, machine, began), fresh };
  } catch (cause) {
    if (machine !== undefined) await endMachine(machine, parts.clock);
    const what = `sandbox ${rollback.record.sandbox.sandboxId} could not be rolled back`;
    const error = await withQemuLog("restore_failed", dirs.next, what, cause);
    await rm(dirs.next, { recursive: true, force: true });
    if (signal.aborted) throw signal.reason;
    throw error;
  }
}

/** From the old guest's stop until the new one runs in the sandbox's folder. */
async function takeOver(
  rollback: Rollback,
  machine: Machine,
  began: number,
): Promise<DriverSandbox> {
  const { parts, input, record, qmp: old, dirs } = rollback;
  const { sandboxId, ports } = record.sandbox;
  const { templateId, snapshotId } = input.snapshot;
  const process = machine.process.id;
  const origin = await keepOrigin(input, dirs.next);
  const stopped = parts.clock.monotonic();
  try {
    await old.execute("stop");
    await removeForwards(old, ports);
    await addForwards(machine.qmp, ports);
    await machine.qmp.execute("cont");
    const ran = parts.clock.monotonic();
    const sandbox: DriverSandbox = {
      sandboxId,
      templateId,
      ...(snapshotId === undefined ? {} : { snapshotId }),
      pid: process.pid,
      ports,
      timings: { running_ms: tenths(ran - began), switch_ms: tenths(ran - stopped) },
    };
    await writeVmRecord(dirs.next, { process, sandbox, origin: origin });
    const switched = rollback.onSwitch(sandbox);
    try {
      await swap(dirs);
    } finally {
      switched();
    }
    return sandbox;
  } catch (error) {
    // Its ports must be free before the old one can have them again.
    await endMachine(machine, parts.clock);
    await addForwards(old, ports);
    await old.execute("cont");
    throw error;
  }
}

async function swap({ own, next, gone }: Rollback["dirs"]): Promise<void> {
  await rename(own, gone);
  try {
    await rename(next, own);
  } catch (error) {
    await rename(gone, own);
    throw error;
  }
}

const tenths = (milliseconds: number): number => Math.round(milliseconds * 10) / 10;
