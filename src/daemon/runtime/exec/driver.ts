/**
 * Any other hypervisor (design §7): an operator's executable is called with a verb and JSON. This
 * side owns folders, records and readiness, so that the executable starts guests, freezes them, and
 * ends them; it keeps no state but what it puts into the folders that it is given.
 */
import { copyFile, mkdir, rm, stat } from "node:fs/promises";
import { constants } from "node:fs";
import { basename, join } from "node:path";
import {
  AppError,
  errorText,
  type Clock,
  type ComponentVersions,
  type DriverProbe,
  type DriverSandbox,
  type DriverSnapshot,
  type Log,
  type RuntimeDriver,
  type SnapshotExport,
} from "../../../domain/index.ts";
import { readManifest } from "../file-manifest.ts";
import { assertExecutable, Executable } from "./call.ts";
import { CAPABILITIES, FILE_NAME, type Capability } from "./contract.ts";
import { meaningOf } from "./failure.ts";
import { foldersIn, instanceOf } from "./sandbox-folder.ts";
import { ExecSandboxes } from "./sandboxes.ts";
import {
  isWhole,
  measureFiles,
  publishSnapshot,
  readSnapshot,
  snapshotOf,
  workFolder,
  type SnapshotRecord,
} from "./snapshot-folder.ts";
import { bootTemplate } from "./template-boot.ts";

export interface ExecParts {
  /** Absolute path of the executable. */
  readonly path: string;
  readonly sandboxesDir: string;
  readonly templatesDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** The node's fact asks every few seconds; an executable is not started each time. */
const VERSIONS_KEPT_MS = 10_000;
/** Ours among the numbers of an export's description. */
const ROOTFS_BYTES = "rootfs_bytes";

type MakeOptions = Parameters<RuntimeDriver["makeSnapshot"]>[1];
type ImportInput = Parameters<RuntimeDriver["importSnapshot"]>[0];
interface Waits {
  readonly signal?: AbortSignal;
}

export class ExecDriver implements RuntimeDriver {
  readonly name = "exec";
  readonly #parts: ExecParts;
  readonly #executable: Executable;
  readonly #sandboxes: ExecSandboxes;
  readonly #runtime: string;
  readonly #offers: ReadonlySet<Capability>;
  readonly #closing = new AbortController();
  /** Folders of work that this instance has under way. */
  readonly #ownDirs = new Set<string>();
  readonly #detail: string;
  #failure: string | undefined;
  #versions: { readonly at: number; readonly found: ComponentVersions };

  private constructor(
    parts: ExecParts,
    about: {
      executable: Executable;
      runtime: string;
      detail: string;
      offers: ReadonlySet<Capability>;
      versions: ComponentVersions;
    },
  ) {
    this.#parts = parts;
    this.#executable = about.executable;
    this.#runtime = about.runtime;
    this.#detail = about.detail;
    this.#offers = about.offers;
    this.#versions = { at: parts.clock.monotonic(), found: about.versions };
    this.#sandboxes = new ExecSandboxes({
      ...parts,
      executable: about.executable,
      runtime: about.runtime,
    });
  }

  /**
   * Asks the executable what it is and what it can do.
   * @throws AppError driver_unavailable, driver_failed
   */
  static async open(parts: ExecParts): Promise<ExecDriver> {
    await assertExecutable(parts.path);
    const executable = new Executable(parts.path, parts.clock, parts.log);
    const { name, version, capabilities } = await executable.call("capabilities", {});
    const probed = await executable.call("probe", {});
    if (!probed.available) {
      throw new AppError("driver_unavailable", `${name} ${version}: ${probed.detail}`);
    }
    const offers = new Set(CAPABILITIES.filter((one) => capabilities.includes(one)));
    const { schema_version: _schema, ...versions } = await executable.call("versions", {});
    const detail = `${name} ${version}: ${probed.detail}`;
    return new ExecDriver(parts, { executable, runtime: name, detail, offers, versions });
  }

  /** What it is, in words. */
  detail(): string {
    return this.#detail;
  }

  /** Why it did not tell its versions when it was last asked. */
  failure(): string | undefined {
    return this.#failure;
  }

  async probe(options: Waits = {}): Promise<DriverProbe> {
    const { schema_version: _schema, ...probed } = await this.#executable.call(
      "probe",
      {},
      { signal: this.#until(options.signal) },
    );
    return probed;
  }

  /** What was last told, when the executable does not answer: others go on judging by it. */
  async versions(): Promise<ComponentVersions> {
    const { clock, log } = this.#parts;
    const now = clock.monotonic();
    if (now - this.#versions.at < VERSIONS_KEPT_MS) return this.#versions.found;
    this.#versions = { ...this.#versions, at: now };
    try {
      const { schema_version: _schema, ...found } = await this.#executable.call("versions", {});
      this.#versions = { at: now, found };
      this.#failure = undefined;
    } catch (error) {
      this.#failure = errorText(error);
      log.warn("the exec driver does not tell its versions", { reason: this.#failure });
    }
    return this.#versions.found;
  }

  #until(signal: AbortSignal | undefined): AbortSignal {
    return AbortSignal.any([this.#closing.signal, ...(signal === undefined ? [] : [signal])]);
  }

  #needs(capability: Capability, what: string): void {
    if (this.#offers.has(capability)) return;
    throw new AppError("driver_unsupported", `${this.#runtime} does not offer ${what}`);
  }

  async #ask(): Promise<ComponentVersions> {
    this.#versions = { ...this.#versions, at: -Infinity };
    return this.versions();
  }

  async makeSnapshot(
    input: Parameters<RuntimeDriver["makeSnapshot"]>[0],
    options: MakeOptions = {},
  ): Promise<DriverSnapshot> {
    const { clock, log } = this.#parts;
    const signal = this.#until(options.signal);
    signal.throwIfAborted();
    return this.#working(workFolder(input.dir), async () =>
      bootTemplate({
        ...input,
        ...{ executable: this.#executable, runtime: this.#runtime, clock, log, signal },
        versions: await this.#ask(),
        onLog: options.onLog ?? (() => undefined),
        onStep: options.onStep ?? (() => undefined),
      }),
    );
  }

  async #working<T>(dir: string, work: () => Promise<T>): Promise<T> {
    this.#ownDirs.add(dir);
    try {
      return await work();
    } finally {
      this.#ownDirs.delete(dir);
    }
  }

  async removeSnapshot({ dir }: DriverSnapshot): Promise<void> {
    const record = await readSnapshot(dir);
    if (record !== undefined && this.#offers.has("remove_snapshot")) {
      await this.#executable.call("remove", { snapshot: snapshotOf(dir, record) });
    }
    await rm(dir, { recursive: true, force: true });
  }

  hasSnapshot({ dir }: DriverSnapshot): Promise<boolean> {
    return isWhole(dir, this.#runtime);
  }

  /** @throws AppError snapshot_not_found */
  async #record(dir: string): Promise<SnapshotRecord> {
    const record = await readSnapshot(dir);
    if (record !== undefined && (await isWhole(dir, this.#runtime))) return record;
    throw new AppError("snapshot_not_found", `${dir} holds no whole snapshot of ${this.#runtime}`);
  }

  restore(
    input: Parameters<RuntimeDriver["restore"]>[0],
    options: Waits = {},
  ): Promise<DriverSandbox> {
    return this.#sandboxes.restore(input, this.#until(options.signal));
  }

  async snapshotSandbox(
    input: Parameters<RuntimeDriver["snapshotSandbox"]>[0],
    options: Waits = {},
  ): Promise<DriverSnapshot> {
    this.#needs("live_snapshot", "snapshots of running sandboxes");
    const signal = this.#until(options.signal);
    return this.#working(workFolder(input.dir), () => this.#sandboxes.snapshot(input, signal));
  }

  async rollback(
    input: Parameters<RuntimeDriver["rollback"]>[0],
    options: Waits = {},
  ): Promise<DriverSandbox> {
    this.#needs("rollback", "rollbacks");
    return this.#sandboxes.rollback(input, this.#until(options.signal));
  }

  /** Only the executable knows where the disk is, and the contract has no verb for it. */
  async flattenSnapshot(): Promise<never> {
    const what = `the exec driver ${this.#runtime} does not write out disks: it commits no sandbox`;
    throw new AppError("driver_unsupported", what);
  }

  async exportSnapshot({ dir }: DriverSnapshot, options: Waits = {}): Promise<SnapshotExport> {
    this.#needs("transfer", "snapshots on other hosts");
    const record = await this.#record(dir);
    const snapshot = snapshotOf(dir, record);
    const signal = this.#until(options.signal);
    const told = await this.#executable
      .call("export", { snapshot }, { signal })
      .catch((error: unknown) => {
        const meanings = { snapshot_unusable: "snapshot_not_found" } as const;
        throw meaningOf(error, "snapshot_failed", `${dir} cannot be exported`, meanings);
      });
    const files = [];
    for (const name of told.files) {
      const path = join(dir, name);
      files.push({ name, path, ...(await readManifest(path, signal)) });
    }
    return { description: { ...told.description, [ROOTFS_BYTES]: record.rootfs_bytes }, files };
  }

  async importSnapshot(input: ImportInput, options: Waits = {}): Promise<DriverSnapshot> {
    this.#needs("transfer", "snapshots of other hosts");
    const work = workFolder(input.dir);
    return this.#working(work, async () => {
      const signal = this.#until(options.signal);
      try {
        return await this.#import(input, work, signal);
      } catch (cause) {
        await rm(work, { recursive: true, force: true });
        if (signal.aborted) throw signal.reason;
        const what = `snapshot ${input.snapshotId ?? input.templateId} cannot be made of what came for it`;
        throw new AppError("snapshot_failed", what, { cause });
      }
    });
  }

  async #import(input: ImportInput, work: string, signal: AbortSignal): Promise<DriverSnapshot> {
    const { templateId, snapshotId, versions, rootfsPath, dir } = input;
    const { [ROOTFS_BYTES]: rootfsBytes, ...description } = input.description;
    if ((await stat(rootfsPath)).size !== rootfsBytes) {
      throw new Error("the root filesystem is not the one the snapshot lies on");
    }
    await rm(work, { recursive: true, force: true });
    const from = join(work, "snapshot");
    await mkdir(from, { recursive: true, mode: 0o750 });
    for (const { name, path } of input.files) {
      signal.throwIfAborted();
      if (!FILE_NAME.test(name)) throw new Error(`${JSON.stringify(name)} is no name of a file`);
      // Not linked: an executable may change what it is given.
      await copyFile(path, join(from, name), constants.COPYFILE_FICLONE);
    }
    const snapshot = { dir: from, files: input.files.map(({ name }) => name), description };
    const request = { snapshot, rootfs_path: rootfsPath };
    const told = await this.#executable.call("import", request, { signal });
    await measureFiles(from, told.files);
    const bytes = await publishSnapshot(from, dir, {
      runtime: this.#runtime,
      rootfs_path: rootfsPath,
      description: told.description,
      versions,
      files: told.files,
    });
    await rm(work, { recursive: true, force: true });
    const of = snapshotId === undefined ? { templateId } : { templateId, snapshotId };
    return { ...of, driver: "exec", dir, versions, bytes, timings: {} };
  }

  stop(sandboxId: string): Promise<void> {
    return this.#sandboxes.stop(sandboxId);
  }

  list(): Promise<readonly DriverSandbox[]> {
    return this.#sandboxes.list();
  }

  /** Instances of folders that no sandbox owns; one that does not end keeps its folder. */
  async reap(): Promise<readonly number[]> {
    const { templatesDir, log } = this.#parts;
    const ended = [...(await this.#sandboxes.reap())];
    for (const name of await foldersIn(templatesDir)) {
      const work = join(templatesDir, name);
      if (work !== workFolder(work.slice(0, -4)) || this.#ownDirs.has(work)) continue;
      const instance = instanceOf(`boot-${basename(work, ".new")}`, work);
      try {
        const told = await this.#executable.call("stop", { instance }, { dir: instance.dir });
        ended.push(...told.ended);
        await rm(work, { recursive: true, force: true });
      } catch (error) {
        log.error("a left instance is not ended", { dir: work, reason: errorText(error) });
      }
    }
    return ended;
  }

  async usage() {
    const { length } = await this.list();
    const instances = await this.#sandboxes.instances();
    const told = await this.#executable.call("usage", { instances });
    return { sandboxes: length, processes: told.processes, memoryBytes: told.memory_bytes };
  }

  /** The contract has no processes that wait. */
  warm(): Promise<void> {
    return Promise.resolve();
  }

  async close(options: { keepSandboxes: boolean }): Promise<void> {
    this.#closing.abort(new AppError("daemon_draining", "the runtime driver is closed"));
    await this.#sandboxes.settled();
    if (options.keepSandboxes) return;
    for (const { id } of await this.#sandboxes.instances()) await this.stop(id);
  }
}
