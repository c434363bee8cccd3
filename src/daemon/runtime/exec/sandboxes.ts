/** Starting, freezing, putting back and ending the sandboxes of an exec driver. */
import { mkdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  AppError,
  errorText,
  isAppError,
  type Clock,
  type DriverSandbox,
  type DriverSnapshot,
  type Log,
  type RuntimeDriver,
} from "../../../domain/index.ts";
import type { Executable } from "./call.ts";
import { guestOf, type Instance } from "./contract.ts";
import { meaningOf } from "./failure.ts";
import {
  OneAtATime,
  folderOf,
  foldersIn,
  instanceOf,
  readSandbox,
  runningAs,
  sandboxOf,
  writeSandbox,
  type Origin,
  type SandboxRecord,
} from "./sandbox-folder.ts";
import {
  isWhole,
  publishSnapshot,
  readSnapshot,
  snapshotOf,
  workFolder,
  type SnapshotRecord,
} from "./snapshot-folder.ts";

export interface ExecSandboxParts {
  readonly executable: Executable;
  /** The name that the executable gives itself. */
  readonly runtime: string;
  readonly sandboxesDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

type RestoreInput = Parameters<RuntimeDriver["restore"]>[0];
type RollbackInput = Parameters<RuntimeDriver["rollback"]>[0];

export class ExecSandboxes {
  readonly #parts: ExecSandboxParts;
  readonly #alone = new OneAtATime();
  /** Folders of sandboxes that are being started. */
  readonly #starting = new Set<string>();

  constructor(parts: ExecSandboxParts) {
    this.#parts = parts;
  }

  #folder(sandboxId: string): string {
    return join(this.#parts.sandboxesDir, sandboxId);
  }

  settled(): Promise<void> {
    return this.#alone.settled();
  }

  /** @throws AppError restore_failed: there is nothing to start from */
  async #snapshot({ dir }: DriverSnapshot, what: string): Promise<SnapshotRecord> {
    const record = await readSnapshot(dir);
    if (record !== undefined && (await isWhole(dir, this.#parts.runtime))) return record;
    throw new AppError("restore_failed", what, { cause: new Error(`${dir} is not whole`) });
  }

  /** @throws AppError sandbox_already_exists, restore_failed; nothing is left then */
  async restore(input: RestoreInput, signal: AbortSignal): Promise<DriverSandbox> {
    const { executable, clock } = this.#parts;
    const { sandboxId, snapshot, guest, dir } = input;
    signal.throwIfAborted();
    const began = clock.monotonic();
    const what = `sandbox ${sandboxId} could not be restored`;
    const from = await this.#snapshot(snapshot, what);
    await mkdir(dir, { mode: 0o750 }).catch((cause: unknown) => {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") {
        throw new AppError("restore_failed", `sandbox ${sandboxId} got no folder`, { cause });
      }
      throw new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`, {
        cause,
      });
    });
    this.#starting.add(sandboxId);
    const instance = instanceOf(sandboxId, dir);
    try {
      await mkdir(instance.dir, { mode: 0o750 });
      const generation = 1;
      const record: SandboxRecord = {
        ...{ format: 1, sandbox_id: sandboxId, generation, busy: false, timings: {} },
        origins: { [generation]: originOf(snapshot, from) },
      };
      await writeSandbox(dir, record);
      const answer = await executable.call(
        "restore",
        {
          instance,
          generation,
          snapshot: snapshotOf(snapshot.dir, from),
          rootfs_path: from.rootfs_path,
          guest: guestOf(guest),
        },
        { signal, dir: instance.dir, onLine: this.#say(sandboxId) },
      );
      const timings = { running_ms: Math.round((clock.monotonic() - began) * 10) / 10 };
      const running = { ...runningAs(record, { ...answer.instance, generation }), timings };
      await writeSandbox(dir, running);
      return sandboxOf(running) as DriverSandbox;
    } catch (error) {
      await this.#end(instance, dir);
      throw meaningOf(error, "restore_failed", what, { not_running: "restore_failed" });
    } finally {
      this.#starting.delete(sandboxId);
    }
  }

  #say(sandboxId: string): (line: string) => void {
    return (line) => this.#parts.log.debug("exec driver says", { sandbox_id: sandboxId, line });
  }

  /** Ends an instance and drops its folder, unless the executable fails at it: see `reap`. */
  async #end(instance: Instance, dir: string): Promise<readonly number[]> {
    const { executable, log } = this.#parts;
    try {
      const { ended } = await executable.call("stop", { instance }, { dir: instance.dir });
      await rm(dir, { recursive: true, force: true });
      return ended;
    } catch (error) {
      log.error("an instance is not ended", { dir, reason: errorText(error) });
      return [];
    }
  }

  /** @throws AppError sandbox_not_found */
  async #running(sandboxId: string): Promise<SandboxRecord> {
    const record = await readSandbox(this.#folder(sandboxId));
    if (record !== undefined && sandboxOf(record) !== undefined) return record;
    throw new AppError("sandbox_not_found", `sandbox ${sandboxId} does not run`);
  }

  /** @throws AppError sandbox_not_found, snapshot_failed; it runs on */
  snapshot(
    input: Parameters<RuntimeDriver["snapshotSandbox"]>[0],
    until: AbortSignal,
  ): Promise<DriverSnapshot> {
    const { sandboxId, snapshotId, dir } = input;
    const { executable, clock, runtime } = this.#parts;
    return this.#alone.run(sandboxId, until, async (signal) => {
      const began = clock.monotonic();
      const record = await this.#running(sandboxId);
      const origin = record.origins[record.generation] as Origin;
      const own = this.#folder(sandboxId);
      const instance = instanceOf(sandboxId, own);
      const work = workFolder(dir);
      const target = join(work, "snapshot");
      await rm(work, { recursive: true, force: true });
      await mkdir(target, { recursive: true, mode: 0o750 });
      await writeSandbox(own, { ...record, busy: true });
      try {
        const options = { signal, dir: instance.dir, onLine: this.#say(sandboxId) };
        const request = { instance, snapshot: { dir: target }, live: true };
        const told = await executable.call("snapshot", request, options);
        await writeSandbox(own, record);
        const { template_id: templateId, rootfs_path, versions } = origin;
        const { files, description } = told;
        const about = { runtime, rootfs_path, description, versions, files };
        const bytes = await publishSnapshot(target, dir, about);
        const timings = {
          ...{ pause_ms: 0, live_ms: 0, ...told.timings },
          total_ms: Math.round(clock.monotonic() - began),
        };
        return { templateId, snapshotId, driver: "exec", dir, versions, bytes, timings };
      } catch (error) {
        await this.#recover(record, until);
        const what = `sandbox ${sandboxId} could not be frozen`;
        throw meaningOf(error, "snapshot_failed", what);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    });
  }

  /** @throws AppError sandbox_not_found, restore_failed: it runs on as it was */
  rollback(input: RollbackInput, until: AbortSignal): Promise<DriverSandbox> {
    const { sandboxId, snapshot, guest } = input;
    const { executable, clock } = this.#parts;
    return this.#alone.run(sandboxId, until, async (signal) => {
      const began = clock.monotonic();
      const record = await this.#running(sandboxId);
      const what = `sandbox ${sandboxId} could not be put back`;
      const from = await this.#snapshot(snapshot, what);
      const own = this.#folder(sandboxId);
      const instance = instanceOf(sandboxId, own);
      const generation = record.generation + 1;
      const origins = { ...record.origins, [generation]: originOf(snapshot, from) };
      const between: SandboxRecord = { ...record, origins, busy: true };
      await writeSandbox(own, between);
      const request = {
        ...{ instance, generation, snapshot: snapshotOf(snapshot.dir, from) },
        ...{ rootfs_path: from.rootfs_path, guest: guestOf(guest), ports: record.ports ?? {} },
      };
      const options = { signal, dir: instance.dir, onLine: this.#say(sandboxId) };
      let after: SandboxRecord;
      try {
        const answer = await executable.call("rollback", request, options);
        after = runningAs(between, { ...answer.instance, generation });
      } catch (error) {
        const found = await this.#recover(between, until);
        // It may have been at its end already.
        if (found?.generation !== generation) {
          throw meaningOf(error, "restore_failed", what);
        }
        after = found;
      }
      const running_ms = Math.round((clock.monotonic() - began) * 10) / 10;
      const rolled = { ...after, timings: { running_ms } };
      await writeSandbox(own, rolled);
      return sandboxOf(rolled) as DriverSandbox;
    });
  }

  /**
   * After a call that was cut short or failed: the executable puts the instance in order, and says
   * which of its starts it runs by. Left to the next start of the daemon when this one ends.
   * @returns undefined when it does not run any more; as it was when nothing could be found out
   */
  async #recover(record: SandboxRecord, until?: AbortSignal): Promise<SandboxRecord | undefined> {
    if (isAppError(until?.reason, "daemon_draining")) return record;
    const { executable, log } = this.#parts;
    const { sandbox_id: sandboxId } = record;
    const own = this.#folder(sandboxId);
    const instance = instanceOf(sandboxId, own);
    try {
      const told = await executable.call("recover", { instance }, { dir: instance.dir });
      const isKnown = record.origins[told.instance?.generation ?? 0] !== undefined;
      const found =
        told.instance !== null && isKnown
          ? runningAs(record, told.instance)
          : { ...record, busy: false };
      await writeSandbox(own, found);
      return told.instance === null ? undefined : found;
    } catch (error) {
      const fields = { sandbox_id: sandboxId, reason: errorText(error) };
      log.error("a sandbox is not put in order", fields);
      return record;
    }
  }

  /** Sandboxes on the disk that were started, whether or not they run. */
  async #records(): Promise<SandboxRecord[]> {
    const { sandboxesDir } = this.#parts;
    const found: SandboxRecord[] = [];
    for (const name of await foldersIn(sandboxesDir)) {
      if (this.#starting.has(name)) continue;
      const record = await readSandbox(join(sandboxesDir, name));
      if (record?.sandbox_id === name && sandboxOf(record) !== undefined) found.push(record);
    }
    return found;
  }

  async instances(): Promise<Instance[]> {
    const records = await this.#records();
    return records.map(({ sandbox_id: id }) => instanceOf(id, this.#folder(id)));
  }

  /** @throws AppError driver_failed: nobody knows what runs */
  async list(): Promise<readonly DriverSandbox[]> {
    const asked = new Map<string, SandboxRecord>();
    const running: SandboxRecord[] = [];
    for (const record of await this.#records()) {
      if (this.#alone.has(record.sandbox_id)) running.push(record);
      // Cut short in a life before: when it cannot be put in order it counts as running.
      else if (record.busy) running.push((await this.#recover(record)) ?? record);
      else asked.set(record.sandbox_id, record);
    }
    if (asked.size > 0) {
      const instances = [...asked.keys()].map((id) => instanceOf(id, this.#folder(id)));
      const told = await this.#parts.executable.call("list", { instances });
      for (const { id, ...instance } of told.instances) {
        const record = asked.get(id);
        if (record?.origins[instance.generation] === undefined) continue;
        running.push({ ...runningAs(record, instance), timings: record.timings });
      }
    }
    return running.flatMap((record) => sandboxOf(record) ?? []);
  }

  /** @throws AppError driver_failed: it may still run, and keeps its folder */
  async stop(sandboxId: string): Promise<void> {
    const { sandboxesDir, executable } = this.#parts;
    const dir = folderOf(sandboxesDir, sandboxId);
    if (dir === undefined) return;
    const reason = new AppError("sandbox_not_found", `sandbox ${sandboxId} is being ended`);
    await this.#alone.interrupt(sandboxId, reason);
    if ((await stat(dir).catch(() => undefined)) === undefined) return;
    const instance = instanceOf(sandboxId, dir);
    await executable.call("stop", { instance }, { dir: instance.dir });
    await rm(dir, { recursive: true, force: true });
  }

  /** Folders without a sandbox that runs: what may be left of them is ended. */
  async reap(): Promise<readonly number[]> {
    const { sandboxesDir } = this.#parts;
    const live = new Set((await this.list()).map(({ sandboxId }) => sandboxId));
    const ended: number[] = [];
    for (const name of await foldersIn(sandboxesDir)) {
      if (live.has(name) || this.#starting.has(name)) continue;
      const dir = this.#folder(name);
      ended.push(...(await this.#end(instanceOf(basename(dir), dir), dir)));
    }
    return ended;
  }
}

const originOf = ({ templateId, snapshotId }: DriverSnapshot, record: SnapshotRecord): Origin => ({
  template_id: templateId,
  ...(snapshotId === undefined ? {} : { snapshot_id: snapshotId }),
  rootfs_path: record.rootfs_path,
  versions: record.versions,
});
