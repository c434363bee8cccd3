/**
 * The sandboxes of a folder: each its own folder with a record, a process, and one thing at a time
 * that is done to it.
 */
import { readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { AppError, type Clock, type DriverSandbox, type Log } from "../../../domain/index.ts";
import { isAlive } from "../process-id.ts";
import { VM_FILES } from "./command.ts";
import { addForwards, type Machine } from "./machine.ts";
import { Qmp } from "./qmp.ts";
import { readVmRecord, type VmRecord } from "./sandbox-record.ts";
import { endProcess, findVms } from "./vm-process.ts";

/** A QEMU that does not answer this long does not count as running. */
const ADOPT_TIMEOUT_MS = 2_000;
/** Prefixes of folders beside a sandbox's: what a rollback restores, and what it has replaced. */
const NEXT = ".next-";
const GONE = ".gone-";
/** States of a guest that a snapshot or a rollback had stopped. */
const HELD = ["paused", "save-vm"];

interface Running {
  readonly pid: number;
  /** Absent when another daemon has started it. */
  readonly machine?: Machine;
}

/** What something is done to a sandbox with. */
export interface Control {
  readonly record: VmRecord;
  readonly qmp: Qmp;
  /** The host's end of its agent's port; absent when another daemon has started it. */
  readonly agent: Duplex | undefined;
}

interface Busy {
  readonly abort: AbortController;
  readonly done: Promise<unknown>;
}

export class RunningSandboxes {
  readonly #dir: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #running = new Map<string, Running>();
  readonly #busy = new Map<string, Busy>();
  /** Sandboxes whose folder changes hands at this moment. */
  readonly #switching = new Map<string, DriverSandbox>();
  #settled: Promise<void> | undefined;

  constructor(dir: string, clock: Clock, log: Log) {
    this.#dir = dir;
    this.#clock = clock;
    this.#log = log;
  }

  folder = (sandboxId: string): string => join(this.#dir, sandboxId);
  /** The sandbox's own, the one that a rollback restores in, and where the old one ends. */
  foldersOf(sandboxId: string) {
    const own = this.folder(sandboxId);
    const next = join(this.#dir, `${NEXT}${sandboxId}`);
    return { own, next, gone: join(this.#dir, `${GONE}${sandboxId}`) };
  }

  ids = (): string[] => [...this.#running.keys()];
  get = (sandboxId: string): Running | undefined => this.#running.get(sandboxId);

  set(sandboxId: string, machine: Machine): void {
    this.#running.set(sandboxId, { pid: machine.process.id.pid, machine });
  }

  delete(sandboxId: string): void {
    this.#running.delete(sandboxId);
  }

  async list(): Promise<readonly DriverSandbox[]> {
    this.#settled ??= this.#settle();
    await this.#settled;
    const found: DriverSandbox[] = [];
    for (const name of await folders(this.#dir)) {
      if (this.#switching.has(name)) continue;
      const record = await readVmRecord(join(this.#dir, name));
      if (record?.sandbox.sandboxId !== name || !(await isAlive(record.process))) continue;
      const known = this.#running.get(name)?.pid === record.process.pid;
      if (!known && !(await this.#answers(record))) continue;
      this.#running.set(name, { ...this.#running.get(name), pid: record.process.pid });
      found.push(record.sandbox);
    }
    return [...found, ...this.#switching.values()];
  }

  /** Its folder is about to be replaced: until the answer is called, it is listed as given. */
  switching(sandbox: DriverSandbox): () => void {
    this.#switching.set(sandbox.sandboxId, sandbox);
    return () => this.#switching.delete(sandbox.sandboxId);
  }

  /**
   * Does something to a running sandbox as soon as nothing else is done to it.
   * @throws AppError sandbox_not_found
   */
  async alone<T>(
    sandboxId: string,
    signal: AbortSignal,
    work: (on: Control & { readonly signal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    while (this.#busy.has(sandboxId)) await this.#busy.get(sandboxId)?.done;
    const abort = new AbortController();
    const either = AbortSignal.any([signal, abort.signal]);
    const doing = this.#withControl(sandboxId, (on) => work({ ...on, signal: either }));
    const done = doing.catch(() => undefined);
    this.#busy.set(sandboxId, { abort, done });
    return doing.finally(() => this.#busy.delete(sandboxId));
  }

  /** Ends what is being done to the sandbox, and waits until it has ended. */
  async interrupt(sandboxId: string, reason: Error): Promise<void> {
    const busy = this.#busy.get(sandboxId);
    busy?.abort.abort(reason);
    await busy?.done;
  }

  async #withControl<T>(sandboxId: string, use: (on: Control) => Promise<T>): Promise<T> {
    const there = (await this.list()).some((one) => one.sandboxId === sandboxId);
    const record = there ? await readVmRecord(this.folder(sandboxId)) : undefined;
    if (record === undefined) {
      throw new AppError("sandbox_not_found", `sandbox ${sandboxId} does not run`);
    }
    const { machine } = this.#running.get(sandboxId) ?? {};
    if (machine !== undefined) {
      return use({ record, qmp: machine.qmp, agent: machine.process.agent });
    }
    const qmp = await Qmp.open(join(this.folder(sandboxId), VM_FILES.qmp), this.#clock);
    try {
      return await use({ record, qmp, agent: undefined });
    } finally {
      qmp.close();
    }
  }

  /** True when the sandbox's QEMU answers on its control socket and its guest runs. */
  async #answers({ sandbox }: VmRecord): Promise<boolean> {
    const { sandboxId } = sandbox;
    const signal = AbortSignal.timeout(ADOPT_TIMEOUT_MS);
    try {
      const path = join(this.folder(sandboxId), VM_FILES.qmp);
      const qmp = await Qmp.open(path, this.#clock, { signal });
      try {
        const state = async () =>
          (await qmp.execute("query-status", {}, { signal })) as {
            running: boolean;
            status: string;
          };
        const { running, status } = await state();
        if (running) return true;
        if (!HELD.includes(status)) return false;
        this.#log.warn("sandbox was left standing and is put in order", { sandbox_id: sandboxId });
        await addForwards(qmp, sandbox.ports);
        await qmp.execute("cont");
        return (await state()).running;
      } finally {
        qmp.close();
      }
    } catch (error) {
      this.#log.warn("sandbox's QEMU does not answer", { sandbox_id: sandboxId, err: error });
      return false;
    }
  }

  /** Rollbacks that a crash cut short: back before the folders changed hands, else to their end. */
  async #settle(): Promise<void> {
    for (const name of await folders(this.#dir)) {
      if (!name.startsWith(NEXT)) continue;
      const sandboxId = name.slice(NEXT.length);
      if (this.#busy.has(sandboxId)) continue;
      const next = join(this.#dir, name);
      const isThere = await stat(this.folder(sandboxId)).catch(() => undefined);
      const record = await readVmRecord(next);
      if (isThere === undefined && record?.sandbox.sandboxId === sandboxId) {
        await rename(next, this.folder(sandboxId));
        continue;
      }
      // It may hold the sandbox's ports.
      for (const vm of await findVms([this.#dir])) {
        if (vm.dir === next) await endProcess(vm.id, this.#clock);
      }
      await rm(next, { recursive: true, force: true });
    }
  }
}

/** Names of the folders in a folder, sorted; none when it is not there. */
export async function folders(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}
