/**
 * Real micro-VMs with the distribution's QEMU (design §7). The driver keeps no state of its own
 * that matters: a sandbox is a folder with a record of its process, and a driver over the same
 * folders finds it again.
 */
import { mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  AppError,
  type Clock,
  type ComponentVersions,
  type DriverProbe,
  type DriverSandbox,
  type DriverSnapshot,
  type GuestLog,
  type GuestSpec,
  type Log,
  type Random,
  type RuntimeDriver,
  type SnapshotExport,
} from "../../../domain/index.ts";
import { readGuestAssets, type GuestAssets } from "../guest-assets.ts";
import { MACHINE } from "./command.ts";
import { cpuModel } from "./cpu-model.ts";
import { flattenDisk } from "./flatten.ts";
import { snapshotLive } from "./live-snapshot.ts";
import { endMachine, releaseMachine, withQemuLog, type Machine } from "./machine.ts";
import { measureMemory } from "./memory.ts";
import { Pool } from "./pool.ts";
import {
  keepOrigin,
  restoreNew,
  restoreWaiting,
  startWaiting,
  type Input,
  type RestoreParts,
  type Restored,
} from "./restore.ts";
import { rollBack } from "./rollback.ts";
import { folders, RunningSandboxes } from "./running.ts";
import { readVmRecord, writeVmRecord } from "./sandbox-record.ts";
import { isWhole, readSnapshot, workFolder, type SnapshotRecord } from "./snapshot.ts";
import { bootTemplate } from "./template-boot.ts";
import { exportFiles, importFiles } from "./transfer.ts";
import { chooseAccelerator, type Chosen } from "./trial.ts";
import { endProcess, findVms, type Spawned } from "./vm-process.ts";

export interface QemuParts {
  readonly program: string;
  readonly qemuVersion: string;
  /** `/proc/cpuinfo` of this host. */
  readonly cpuinfo: string;
  readonly assets: GuestAssets;
  /** The outcome of the trial boot is kept here. */
  readonly stateDir: string;
  readonly sandboxesDir: string;
  readonly templatesDir: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Below the sandboxes' folder: a waiting machine's folder becomes a sandbox's by rename. */
const POOL_FOLDER = ".waiting";
const TERMINATE_GRACE_MS = 1_000;

type RestoreInput = Parameters<RuntimeDriver["restore"]>[0];

export class QemuDriver implements RuntimeDriver {
  readonly name = "qemu";
  readonly #parts: QemuParts;
  readonly #pool: Pool;
  readonly #chosen: Promise<Chosen>;
  readonly #closing = new AbortController();
  readonly #records = new Map<string, SnapshotRecord>();
  readonly #sandboxes: RunningSandboxes;
  /** Processes and folders of work that this instance has under way. */
  readonly #ownPids = new Set<number>();
  readonly #ownDirs = new Set<string>();
  #settled: Chosen | undefined;
  #assets: GuestAssets;

  constructor(parts: QemuParts) {
    this.#parts = parts;
    this.#assets = parts.assets;
    this.#sandboxes = new RunningSandboxes(parts.sandboxesDir, parts.clock, parts.log);
    this.#pool = new Pool(join(parts.sandboxesDir, POOL_FOLDER), parts.clock, parts.log);
    // It may take seconds: the daemon's start does not wait for it, the first boot does.
    this.#chosen = chooseAccelerator(parts, this.#closing.signal);
    this.#chosen.then(
      (chosen) => (this.#settled = chosen),
      (error: unknown) => {
        if (!this.#closing.signal.aborted) parts.log.error("the trial boot failed", { err: error });
      },
    );
  }

  /** In words, without waiting for the trial boot. */
  detail(): string {
    const how = this.#settled?.detail ?? "a trial guest is being booted";
    return `QEMU ${this.#parts.qemuVersion} with ${how}`;
  }

  async probe(): Promise<DriverProbe> {
    try {
      const { accelerator } = await this.#chosen;
      return { available: true, accelerator, detail: this.detail() };
    } catch (error) {
      this.#parts.log.debug("the driver is not available", { err: error });
      return { available: false, detail: `QEMU ${this.#parts.qemuVersion} boots no trial guest` };
    }
  }

  /** As they are on the disk now: `guest install --refresh` replaces them under a daemon. */
  #guestAssets(): Promise<GuestAssets> {
    return readGuestAssets(dirname(this.#parts.assets.kernel));
  }

  /** Does not wait for the trial boot: accelerator and CPU are blank until it is known. */
  async versions(): Promise<ComponentVersions> {
    // Without assets nothing can be booted, and what was known of them stays what others see.
    this.#assets = await this.#guestAssets().catch(() => this.#assets);
    return {
      ...this.#assets.versions,
      extra: this.#extraVersions(),
    };
  }

  #extraVersions(): Record<string, string> {
    return {
      qemu_version: this.#parts.qemuVersion,
      machine: MACHINE,
      cpu_model: cpuModel(this.#settled?.accelerator, this.#parts),
      accelerator: this.#settled?.accelerator ?? "",
    };
  }

  async makeSnapshot(
    input: { templateId: string; rootfsPath: string; guest: GuestSpec; dir: string },
    options: { signal?: AbortSignal; onLog?: GuestLog; onStep?: (step: string) => void } = {},
  ): Promise<DriverSnapshot> {
    const { clock, program } = this.#parts;
    const signal = this.#until(options.signal);
    signal.throwIfAborted();
    const chosen = await this.#accelerator();
    const assets = await this.#guestAssets();
    signal.throwIfAborted();
    const work = workFolder(input.dir);
    this.#ownDirs.add(work);
    try {
      const snapshot = await bootTemplate({
        ...input,
        ...{ program, chosen, assets, clock, signal },
        versions: { ...(await this.versions()), ...assets.versions },
        onLog: options.onLog ?? (() => undefined),
        onStep: options.onStep ?? (() => undefined),
        onProcess: (spawned) => this.#own(spawned),
      });
      this.#records.delete(input.dir);
      return snapshot;
    } finally {
      this.#ownDirs.delete(work);
    }
  }

  /** Aborts with the caller's signal, and when the driver is closed. */
  #until(signal: AbortSignal | undefined): AbortSignal {
    return AbortSignal.any([this.#closing.signal, ...(signal === undefined ? [] : [signal])]);
  }

  async removeSnapshot(snapshot: DriverSnapshot): Promise<void> {
    await this.#pool.drop(snapshot.dir);
    this.#records.delete(snapshot.dir);
    await rm(snapshot.dir, { recursive: true, force: true });
  }

  hasSnapshot(snapshot: DriverSnapshot): Promise<boolean> {
    return isWhole(snapshot);
  }

  async #record(snapshot: DriverSnapshot): Promise<SnapshotRecord> {
    const known = this.#records.get(snapshot.dir);
    if (known !== undefined) return known;
    const record = await readSnapshot(snapshot);
    this.#records.set(snapshot.dir, record);
    return record;
  }

  async #input(snapshot: DriverSnapshot, guest: GuestSpec): Promise<Input> {
    const record = await this.#record(snapshot);
    const isolated = guest.isolated === true;
    return { snapshot, record, ports: guest.exposedPorts, isolated };
  }

  #warnUnlessFresh(sandboxId: string, machine: Machine, fresh: Promise<boolean>): void {
    void fresh.then((isFresh) => {
      if (isFresh || !machine.process.alive()) return;
      const what = "restored guest took no time and entropy";
      this.#parts.log.warn(what, { sandbox_id: sandboxId });
    });
  }

  async #restoreParts(): Promise<RestoreParts> {
    const { program, clock, random } = this.#parts;
    const { accelerator } = await this.#accelerator();
    const onProcess = (spawned: Spawned) => this.#own(spawned);
    return { program, accelerator, clock, random, onProcess };
  }

  async #accelerator(): Promise<Chosen> {
    try {
      return await this.#chosen;
    } catch (cause) {
      throw new AppError("driver_unavailable", "no trial guest could be booted", { cause });
    }
  }

  /** Not a leftover as long as it runs. */
  #own({ id, ended }: Spawned): void {
    this.#ownPids.add(id.pid);
    void ended.then(() => this.#ownPids.delete(id.pid));
  }

  /** Memory and processors are those of the snapshot; the exposed ports are the input's. */
  async restore(
    input: RestoreInput,
    options: { signal?: AbortSignal } = {},
  ): Promise<DriverSandbox> {
    const { clock } = this.#parts;
    const { sandboxId, snapshot, guest, dir } = input;
    options.signal?.throwIfAborted();
    const began = clock.monotonic();
    if (this.#ownDirs.has(dir) || this.#sandboxes.get(sandboxId) !== undefined)
      throw alreadyExists(sandboxId);
    this.#ownDirs.add(dir);
    try {
      const { machine, ports, runningMs, fresh } = await this.#restoreAny(input, began);
      this.#warnUnlessFresh(sandboxId, machine, fresh);
      const timings = { running_ms: Math.round(runningMs * 10) / 10 };
      const { id } = machine.process;
      const { templateId, snapshotId } = snapshot;
      const of = snapshotId === undefined ? { templateId } : { templateId, snapshotId };
      const sandbox: DriverSandbox = { sandboxId, ...of, pid: id.pid, ports, timings };
      if (options.signal?.aborted === true) {
        await endMachine(machine, clock);
        await rm(dir, { recursive: true, force: true });
        throw options.signal.reason;
      }
      const origin = await keepOrigin(await this.#input(snapshot, guest), dir);
      await writeVmRecord(dir, { process: id, sandbox, origin });
      this.#sandboxes.set(sandboxId, machine);
      return sandbox;
    } finally {
      this.#ownDirs.delete(dir);
      this.#pool.replenish(snapshot, guest);
    }
  }

  async #restoreAny(input: RestoreInput, began: number): Promise<Restored> {
    const { sandboxId, snapshot, guest, dir } = input;
    try {
      const parts = await this.#restoreParts();
      const pooled = await this.#restorePooled(parts, input, began);
      if (pooled !== undefined) return pooled;
      await mkdir(dir, { mode: 0o750 });
      return await restoreNew(parts, await this.#input(snapshot, guest), dir, began);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "EEXIST" || code === "ENOTEMPTY") throw alreadyExists(sandboxId, cause);
      const what = `sandbox ${sandboxId} could not be restored`;
      const error = await withQemuLog("restore_failed", dir, what, cause);
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** Undefined when no process waits, or the one that did had died unnoticed. */
  async #restorePooled(
    parts: RestoreParts,
    { sandboxId, snapshot, guest, dir }: RestoreInput,
    began: number,
  ): Promise<Restored | undefined> {
    const waiting = await this.#pool.take(snapshot, guest);
    if (waiting === undefined) return undefined;
    try {
      return await restoreWaiting(parts, waiting, dir, began);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST" || code === "ENOTEMPTY") throw error;
      this.#parts.log.warn("a waiting VM failed, another is started", {
        sandbox_id: sandboxId,
        err: error,
      });
      await rm(dir, { recursive: true, force: true });
      return undefined;
    }
  }

  async snapshotSandbox(
    { sandboxId, snapshotId, dir, sync }: Parameters<RuntimeDriver["snapshotSandbox"]>[0],
    options: Parameters<RuntimeDriver["snapshotSandbox"]>[1] = {},
  ): Promise<DriverSnapshot> {
    const { clock, random, log } = this.#parts;
    const work = workFolder(dir);
    await this.#accelerator();
    return this.#sandboxes.alone(sandboxId, this.#until(options.signal), async (on) => {
      this.#ownDirs.add(work);
      try {
        return await snapshotLive({
          ...on,
          ...{ snapshotId, dir, sync: sync === true, clock, random, log },
          vmDir: this.#sandboxes.folder(sandboxId),
          extra: this.#extraVersions(),
          onStep: options.onStep ?? (() => undefined),
        });
      } finally {
        this.#ownDirs.delete(work);
      }
    });
  }

  async rollback(
    { sandboxId, snapshot, guest }: Parameters<RuntimeDriver["rollback"]>[0],
    options: Parameters<RuntimeDriver["rollback"]>[1] = {},
  ): Promise<DriverSandbox> {
    const { log } = this.#parts;
    const running = this.#sandboxes;
    const parts = await this.#restoreParts();
    return running.alone(sandboxId, this.#until(options.signal), async (on) => {
      const dirs = running.foldersOf(sandboxId);
      for (const dir of [dirs.next, dirs.gone]) this.#ownDirs.add(dir);
      try {
        const input = await this.#input(snapshot, guest);
        const onStep = options.onStep ?? (() => undefined);
        const onSwitch = (sandbox: DriverSandbox) => running.switching(sandbox);
        const back = await rollBack({ ...on, ...{ parts, input, dirs, log, onStep, onSwitch } });
        const old = running.get(sandboxId)?.machine;
        if (old !== undefined) releaseMachine(old);
        running.set(sandboxId, back.machine);
        this.#warnUnlessFresh(sandboxId, back.machine, back.fresh);
        return back.sandbox;
      } finally {
        for (const dir of [dirs.next, dirs.gone]) this.#ownDirs.delete(dir);
      }
    });
  }

  async flattenSnapshot(
    { snapshot, to }: Parameters<RuntimeDriver["flattenSnapshot"]>[0],
    options: { signal?: AbortSignal } = {},
  ): ReturnType<RuntimeDriver["flattenSnapshot"]> {
    this.#records.delete(snapshot.dir);
    const { program, clock } = this.#parts;
    const onProcess = (spawned: Spawned) => this.#own(spawned);
    const chosen = await this.#accelerator();
    const parts = { program, chosen, assets: await this.#guestAssets(), clock, onProcess };
    return flattenDisk(snapshot, to, parts, this.#until(options.signal));
  }

  exportSnapshot(
    snapshot: DriverSnapshot,
    options: { signal?: AbortSignal } = {},
  ): Promise<SnapshotExport> {
    return exportFiles(snapshot, options.signal);
  }

  async importSnapshot(
    input: Parameters<RuntimeDriver["importSnapshot"]>[0],
    options: { signal?: AbortSignal } = {},
  ): Promise<DriverSnapshot> {
    const work = workFolder(input.dir);
    this.#ownDirs.add(work);
    try {
      return await importFiles(input, options.signal);
    } finally {
      this.#ownDirs.delete(work);
    }
  }

  async stop(sandboxId: string): Promise<void> {
    const { sandboxesDir, clock } = this.#parts;
    const dir = join(sandboxesDir, sandboxId);
    if (dirname(dir) !== sandboxesDir) return;
    await this.#sandboxes.interrupt(
      sandboxId,
      new AppError("sandbox_not_found", `sandbox ${sandboxId} is being ended`),
    );
    const running = this.#sandboxes.get(sandboxId);
    this.#sandboxes.delete(sandboxId);
    if (running?.machine !== undefined) await endMachine(running.machine, clock);
    const record = await readVmRecord(dir);
    if (record !== undefined) await endProcess(record.process, clock);
    else {
      for (const vm of await findVms([sandboxesDir])) {
        if (vm.dir === dir) await endProcess(vm.id, clock);
      }
    }
    await rm(dir, { recursive: true, force: true });
  }

  list(): Promise<readonly DriverSandbox[]> {
    return this.#sandboxes.list();
  }

  async reap(): Promise<readonly number[]> {
    const { sandboxesDir, templatesDir, stateDir, clock } = this.#parts;
    const owned = new Set((await this.list()).map(({ pid }) => pid));
    const reaped: number[] = [];
    const trials = join(stateDir, "work");
    for (const { id, dir } of await findVms([sandboxesDir, templatesDir, trials])) {
      // The trial of this instance may be under way.
      const trying = this.#settled === undefined && dir.startsWith(`${trials}/`);
      if (owned.has(id.pid) || this.#ownPids.has(id.pid) || trying) continue;
      if (this.#ownDirs.has(dir)) continue;
      await endProcess(id, clock, TERMINATE_GRACE_MS);
      reaped.push(id.pid);
    }
    const live = new Set((await this.list()).map(({ sandboxId }) => sandboxId));
    for (const name of await folders(sandboxesDir)) {
      if (name === POOL_FOLDER ? this.#pool.size > 0 : live.has(name)) continue;
      if (this.#ownDirs.has(join(sandboxesDir, name))) continue;
      await rm(join(sandboxesDir, name), { recursive: true, force: true });
    }
    for (const name of await folders(templatesDir)) {
      const dir = join(templatesDir, name);
      if (dir !== workFolder(dir.slice(0, -4)) || this.#ownDirs.has(dir)) continue;
      await rm(dir, { recursive: true, force: true });
    }
    return reaped;
  }

  /** `memoryBytes` counts what processes share in parts, so that the sum is what they take. */
  async usage() {
    const sandboxes = await this.list();
    const { pids, bytes } = await measureMemory([
      ...sandboxes.map(({ pid }) => pid ?? 0),
      ...this.#ownPids,
    ]);
    return { sandboxes: sandboxes.length, processes: pids, memoryBytes: bytes };
  }

  async warm(snapshot: DriverSnapshot, guest: GuestSpec, size: number): Promise<void> {
    const parts = await this.#restoreParts();
    const input = await this.#input(snapshot, guest);
    await this.#pool.fill(snapshot, guest, size, (dir) => startWaiting(parts, input, dir));
  }

  async close(options: { keepSandboxes: boolean }): Promise<void> {
    this.#closing.abort(new AppError("daemon_draining", "the runtime driver is closed"));
    await this.#chosen.catch(() => undefined);
    await this.#pool.close();
    for (const sandboxId of this.#sandboxes.ids()) {
      await this.#sandboxes.interrupt(sandboxId, this.#closing.signal.reason as Error);
      const { machine } = this.#sandboxes.get(sandboxId) ?? {};
      if (!options.keepSandboxes) await this.stop(sandboxId);
      else if (machine !== undefined) releaseMachine(machine);
      this.#sandboxes.delete(sandboxId);
    }
  }
}

const alreadyExists = (sandboxId: string, cause?: unknown): AppError =>
  new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`, { cause });
