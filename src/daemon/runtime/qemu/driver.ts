/**
 * Real micro-VMs with the distribution's QEMU (design §7). The driver keeps no state of its own
 * that matters: a sandbox is a folder with a record of its process, and a driver over the same
 * folders finds it again.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
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
} from "../../../domain/index.ts";
import { readGuestAssets, type GuestAssets } from "../guest-assets.ts";
import { CPU_MODEL, MACHINE, VM_FILES } from "./command.ts";
import { endMachine, releaseMachine, withQemuLog, type Machine } from "./machine.ts";
import { measureMemory } from "./memory.ts";
import { Pool } from "./pool.ts";
import { Qmp } from "./qmp.ts";
import {
  readVmRecord,
  restoreNew,
  restoreWaiting,
  startWaiting,
  writeVmRecord,
  type RestoreParts,
  type Restored,
  type VmRecord,
} from "./restore.ts";
import { isWhole, readSnapshot, type SnapshotRecord } from "./snapshot.ts";
import { bootTemplate, workFolder } from "./template-boot.ts";
import { chooseAccelerator, type Chosen } from "./trial.ts";
import { endProcess, findVms, isAlive, type Spawned } from "./vm-process.ts";

export interface QemuParts {
  readonly program: string;
  readonly qemuVersion: string;
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
/** A QEMU that does not answer this long does not count as running. */
const ADOPT_TIMEOUT_MS = 2_000;
const TERMINATE_GRACE_MS = 1_000;

type RestoreInput = Parameters<RuntimeDriver["restore"]>[0];

export class QemuDriver implements RuntimeDriver {
  readonly name = "qemu";
  readonly #parts: QemuParts;
  readonly #pool: Pool;
  readonly #chosen: Promise<Chosen>;
  readonly #closing = new AbortController();
  readonly #records = new Map<string, SnapshotRecord>();
  /** Sandboxes this instance started or found: their process and its control channel. */
  readonly #running = new Map<string, { pid: number; machine?: Machine }>();
  /** Processes and folders of work that this instance has under way. */
  readonly #ownPids = new Set<number>();
  readonly #ownDirs = new Set<string>();
  #settled: Chosen | undefined;
  #assets: GuestAssets;

  constructor(parts: QemuParts) {
    this.#parts = parts;
    this.#assets = parts.assets;
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

  /** Does not wait for the trial boot: the accelerator is blank until it is known. */
  async versions(): Promise<ComponentVersions> {
    // Without assets nothing can be booted, and what was known of them stays what others see.
    this.#assets = await this.#guestAssets().catch(() => this.#assets);
    return {
      ...this.#assets.versions,
      extra: {
        qemu_version: this.#parts.qemuVersion,
        machine: MACHINE,
        cpu_model: CPU_MODEL,
        accelerator: this.#settled?.accelerator ?? "",
      },
    };
  }

  async makeSnapshot(
    input: { templateId: string; rootfsPath: string; guest: GuestSpec; dir: string },
    options: { signal?: AbortSignal; onLog?: GuestLog; onStep?: (step: string) => void } = {},
  ): Promise<DriverSnapshot> {
    const { clock, program } = this.#parts;
    const signals = [this.#closing.signal, options.signal].filter((one) => one !== undefined);
    const signal = AbortSignal.any(signals);
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
    const { clock, log } = this.#parts;
    const { sandboxId, snapshot, guest, dir } = input;
    options.signal?.throwIfAborted();
    const began = clock.monotonic();
    if (this.#ownDirs.has(dir) || this.#running.has(sandboxId)) throw alreadyExists(sandboxId);
    this.#ownDirs.add(dir);
    try {
      const { machine, ports, runningMs, fresh } = await this.#restoreAny(input, began);
      void fresh.then((isFresh) => {
        if (isFresh || !machine.process.alive()) return;
        log.warn("restored guest took no time and entropy", { sandbox_id: sandboxId });
      });
      const timings = { running_ms: Math.round(runningMs * 10) / 10 };
      const { id } = machine.process;
      const { templateId } = snapshot;
      const sandbox: DriverSandbox = { sandboxId, templateId, pid: id.pid, ports, timings };
      if (options.signal?.aborted === true) {
        await endMachine(machine, clock);
        await rm(dir, { recursive: true, force: true });
        throw options.signal.reason;
      }
      await writeVmRecord(dir, { process: id, sandbox });
      this.#running.set(sandboxId, { pid: id.pid, machine });
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
      const record = await this.#record(snapshot);
      return await restoreNew(
        parts,
        { snapshot, record, ports: guest.exposedPorts, isolated: guest.isolated === true },
        dir,
        began,
      );
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

  async stop(sandboxId: string): Promise<void> {
    const { sandboxesDir, clock } = this.#parts;
    const dir = join(sandboxesDir, sandboxId);
    if (dirname(dir) !== sandboxesDir) return;
    const running = this.#running.get(sandboxId);
    this.#running.delete(sandboxId);
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

  async list(): Promise<readonly DriverSandbox[]> {
    const found: DriverSandbox[] = [];
    for (const [sandboxId, record] of await this.#recorded()) {
      if (!(await isAlive(record.process))) continue;
      const known = this.#running.get(sandboxId)?.pid === record.process.pid;
      if (!known && !(await this.#answers(sandboxId))) continue;
      this.#running.set(sandboxId, {
        ...this.#running.get(sandboxId),
        pid: record.process.pid,
      });
      found.push(record.sandbox);
    }
    return found;
  }

  /** Folders of sandboxes with a record, by sandbox id. */
  async #recorded(): Promise<readonly (readonly [string, VmRecord])[]> {
    const { sandboxesDir } = this.#parts;
    const found: (readonly [string, VmRecord])[] = [];
    for (const name of await folders(sandboxesDir)) {
      const record = await readVmRecord(join(sandboxesDir, name));
      if (record?.sandbox.sandboxId === name) found.push([name, record]);
    }
    return found;
  }

  /** True when the sandbox's QEMU answers on its control socket. */
  async #answers(sandboxId: string): Promise<boolean> {
    const { sandboxesDir, clock } = this.#parts;
    const signal = AbortSignal.timeout(ADOPT_TIMEOUT_MS);
    try {
      const path = join(sandboxesDir, sandboxId, VM_FILES.qmp);
      const qmp = await Qmp.open(path, clock, { signal });
      const status = await qmp.execute("query-status", {}, { signal });
      qmp.close();
      return (status as { running: boolean }).running;
    } catch (error) {
      this.#parts.log.warn("sandbox's QEMU does not answer", { sandbox_id: sandboxId, err: error });
      return false;
    }
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
    const record = await this.#record(snapshot);
    const input = {
      snapshot,
      record,
      ports: guest.exposedPorts,
      isolated: guest.isolated === true,
    };
    await this.#pool.fill(snapshot, guest, size, (dir) => startWaiting(parts, input, dir));
  }

  async close(options: { keepSandboxes: boolean }): Promise<void> {
    this.#closing.abort(new AppError("daemon_draining", "the runtime driver is closed"));
    await this.#chosen.catch(() => undefined);
    await this.#pool.close();
    for (const sandboxId of [...this.#running.keys()]) {
      const { machine } = this.#running.get(sandboxId) ?? {};
      if (!options.keepSandboxes) await this.stop(sandboxId);
      else if (machine !== undefined) releaseMachine(machine);
    }
    this.#running.clear();
  }
}

const alreadyExists = (sandboxId: string, cause?: unknown): AppError =>
  new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`, { cause });

/** Names of the folders in a folder, sorted; none when it is not there. */
async function folders(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}
