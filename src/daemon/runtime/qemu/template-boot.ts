/** A template's one boot: from the root filesystem to a snapshot of the ready guest. */
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AppError,
  isAppError,
  type Clock,
  type ComponentVersions,
  type DriverSnapshot,
  type GuestLog,
  type GuestSpec,
} from "../../../domain/index.ts";
import { AGENT_READY } from "../guest-agent.ts";
import type { GuestAssets } from "../guest-assets.ts";
import { STARTED_MARK, guestArchive } from "../guest-init.ts";
import { writeOverlay } from "../qcow2.ts";
import { awaitReady } from "../readiness.ts";
import { VM_FILES, shapeOf, type VmOptions } from "./command.ts";
import { readConsole } from "./console.ts";
import {
  endMachine,
  forwardedPorts,
  hearAgent,
  saveState,
  startMachine,
  withQemuLog,
  type Machine,
} from "./machine.ts";
import { awaitQuiet } from "./quiet.ts";
import { publishSnapshot, workFolder } from "./snapshot.ts";
import type { Chosen } from "./trial.ts";
import type { Spawned } from "./vm-process.ts";

/** From QEMU's start to the guest's command; seconds even under emulation. */
const COMMAND_START_MS = 120_000;
const INITRD = "initrd";

export interface TemplateBoot {
  readonly templateId: string;
  readonly rootfsPath: string;
  readonly guest: GuestSpec;
  /** The folder the snapshot gets; it is made under another name first. */
  readonly dir: string;
  readonly program: string;
  readonly chosen: Chosen;
  readonly assets: GuestAssets;
  readonly versions: ComponentVersions;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onLog: GuestLog;
  readonly onStep: (step: string) => void;
  /** Told the process while it runs, so that nobody takes it for a leftover. */
  readonly onProcess: (spawned: Spawned) => void;
}

/**
 * Boots, waits until the guest is ready, snapshots, ends the VM. On failure nothing is left.
 * @throws AppError guest_boot_failed, guest_probe_failed (with `console_tail`), snapshot_failed
 */
export async function bootTemplate(boot: TemplateBoot): Promise<DriverSnapshot> {
  const dir = workFolder(boot.dir);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true, mode: 0o750 });
  let machine: Machine | undefined;
  let console_tail: readonly string[] = [];
  try {
    const diskBytes = await prepare(boot, dir);
    const began = boot.clock.monotonic();
    boot.onStep(`booting with ${boot.chosen.accelerator}`);
    machine = await start(boot, dir);
    const following = follow(boot, machine, (tail) => (console_tail = tail));
    const ports = await forwardedPorts(machine.qmp, probePorts(boot.guest));
    await following.commandStarted;
    const started = boot.clock.monotonic();
    const { probe } = boot.guest;
    const target = probe === undefined ? undefined : ports[probe.port];
    if (probe !== undefined && target !== undefined) {
      boot.onStep(`command started; asking GET :${probe.port}${probe.path}`);
      await awaitReady(probe, target, { clock: boot.clock, signal: following.signal });
    }
    const ready = boot.clock.monotonic();
    boot.onStep(`ready ${Math.round(ready - began)} ms after the boot; taking the snapshot`);
    await awaitQuiet(machine.process.id.pid, boot.clock, following.signal);
    const quiet = boot.clock.monotonic();
    await saveState(machine, following.signal);
    const saved = boot.clock.monotonic();
    following.stop();
    await endMachine(machine, boot.clock);
    await rm(join(dir, INITRD));
    for (const name of [VM_FILES.qmp, VM_FILES.incoming])
      await rm(join(dir, name), { force: true });
    boot.signal.throwIfAborted();
    const shape = shapeOf(boot.guest);
    const { rootfsPath } = boot;
    const bytes = await publishSnapshot(dir, boot.dir, { shape, diskBytes, rootfsPath });
    const flushed = boot.clock.monotonic();
    const timings = {
      command_started_ms: Math.round(started - began),
      first_answer_ms: Math.round(ready - began),
      settle_ms: Math.round(quiet - ready),
      snapshot_ms: Math.round(saved - quiet),
      flush_ms: Math.round(flushed - saved),
    };
    const { templateId, versions } = boot;
    return { templateId, driver: "qemu", dir: boot.dir, versions, bytes, timings };
  } catch (thrown) {
    // The guest's end and its last words come on different channels.
    await boot.clock.sleep(machine?.process.alive() === false ? 20 : 0);
    if (machine !== undefined) await endMachine(machine, boot.clock);
    await rm(dir, { recursive: true, force: true });
    if (boot.signal.aborted) throw boot.signal.reason;
    throw withConsole(thrown, console_tail);
  }
}

/** The disk and the initial root; answers the disk's size. */
async function prepare(boot: TemplateBoot, dir: string): Promise<number> {
  const { size } = await stat(boot.rootfsPath).catch((cause: unknown) => {
    throw new AppError("guest_boot_failed", "the root filesystem is not there", { cause });
  });
  const backing = { path: boot.rootfsPath, format: "raw" } as const;
  await writeOverlay(join(dir, VM_FILES.disk), size, backing);
  // The kernel unpacks both archives; the second holds this guest's command.
  const common = await readFile(boot.assets.initramfs);
  const initrd = Buffer.concat([common, guestArchive(boot.guest)]);
  await writeFile(join(dir, INITRD), initrd, { mode: 0o640 });
  return size;
}

const probePorts = ({ probe }: GuestSpec): number[] => (probe === undefined ? [] : [probe.port]);

async function start(boot: TemplateBoot, dir: string): Promise<Machine> {
  const { chosen, assets } = boot;
  const vm: VmOptions = {
    name: `boot-${boot.templateId}`,
    accelerator: chosen.accelerator,
    shape: shapeOf(boot.guest),
    isolated: boot.guest.isolated === true,
    memory: { path: VM_FILES.memory, share: true },
    diskPath: VM_FILES.disk,
    below: [{ path: boot.rootfsPath, format: "raw" }],
    guestPorts: probePorts(boot.guest),
    start: { boot: { kernel: assets.kernel, initrd: INITRD, tscKhz: chosen.tscKhz } },
  };
  const machine = await startMachine(boot.program, vm, dir, undefined, boot.clock, boot.signal);
  boot.onProcess(machine.process);
  return machine;
}

/** Follows console and process: a signal that aborts as soon as the guest cannot get ready. */
function follow(boot: TemplateBoot, machine: Machine, onTail: (tail: readonly string[]) => void) {
  const failed = new AbortController();
  const signal = AbortSignal.any([boot.signal, failed.signal]);
  let stopped = false;
  const commandStarted = new Promise<void>((resolve, reject) => {
    let marked = false;
    const agentReady = hearAgent(machine, AGENT_READY, boot.clock, COMMAND_START_MS);
    const console = readConsole(machine.process.console, (line) => {
      boot.onLog(line);
      onTail(console.tail());
      if (marked || !line.includes(STARTED_MARK)) return;
      marked = true;
      void agentReady.then(() => resolve());
    });
    const timer = boot.clock.after(COMMAND_START_MS, () =>
      failed.abort(
        new AppError("guest_boot_failed", "the guest's command was not started in 2 minutes"),
      ),
    );
    signal.addEventListener("abort", () => {
      timer.cancel();
      reject(signal.reason as Error);
    });
  });
  commandStarted.catch(() => undefined);
  void machine.process.ended.then(async () => {
    if (stopped) return;
    const what = "the guest ended before it was ready";
    failed.abort(await withQemuLog("guest_boot_failed", machine.dir, what, undefined));
  });
  return { commandStarted, signal, stop: () => (stopped = true) };
}

const withConsole = (error: unknown, console_tail: readonly string[]): AppError =>
  isAppError(error) && error.code !== "driver_unavailable"
    ? new AppError(error.code, error.message, {
        cause: error.cause,
        meta: { ...error.meta, console_tail },
      })
    : new AppError("snapshot_failed", "the template could not be booted and snapshotted", {
        cause: error,
        meta: { console_tail },
      });
