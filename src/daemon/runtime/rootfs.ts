/**
 * The driver without VMs: a replica is ready when the verified root filesystem is in place. For
 * hosts without hypervisor, and for large simulated clusters.
 */
import { copyFile, mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import {
  AppError,
  type Clock,
  type DriverSandbox,
  type DriverSnapshot,
  type RuntimeDriver,
} from "../../domain/index.ts";
import { copySparse } from "./file-copy.ts";
import { readManifest } from "./file-manifest.ts";

/** Constants, so that compat finds replicas of this driver equal on every host. */
const VERSIONS = {
  guest_image_version: "rootfs",
  agent_version: "none",
  kernel_version: "",
  extra: {},
} as const;

const SNAPSHOT = "snapshot.json";
const SANDBOX = "sandbox.json";
/** What a VM's memory would be: says whose state it is. */
const STATE = "state";

const snapshotSchema = z.object({ rootfs_path: z.string(), rootfs_bytes: z.number() });
const descriptionSchema = z.strictObject({ format: z.literal(1), rootfs_bytes: z.number() });
const sandboxSchema = z.object({
  sandboxId: z.string(),
  templateId: z.string(),
  snapshotId: z.string().exactOptional(),
  ports: z.object({}),
  timings: z.record(z.string(), z.number()),
  rootfsPath: z.string().exactOptional(),
});

/** Whole or not at all: a crash leaves no half of a record. */
async function writeRecord(path: string, record: unknown): Promise<void> {
  await writeFile(`${path}.new`, `${JSON.stringify(record)}\n`, { mode: 0o640, flush: true });
  await rename(`${path}.new`, path);
}

/** The record, or undefined when there is none that reads. */
async function readRecord<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined;
  }
}

/** -1 when the file is not there. */
const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => -1,
  );

const namesIn = async (dir: string): Promise<string[]> =>
  (await readdir(dir).catch(() => [])).sort();

export function createRootfsDriver(options: { sandboxesDir: string; clock: Clock }): RuntimeDriver {
  const { sandboxesDir, clock } = options;
  const list = async (): Promise<DriverSandbox[]> => {
    const found: DriverSandbox[] = [];
    for (const name of await namesIn(sandboxesDir)) {
      const record = await readRecord(join(sandboxesDir, name, SANDBOX), sandboxSchema);
      if (record?.sandboxId !== name) continue;
      const { rootfsPath: _rootfsPath, ...sandbox } = record;
      found.push(sandbox);
    }
    return found;
  };
  const write = async (sandboxId: string, snapshot: DriverSnapshot, began: number) => {
    const { templateId, snapshotId } = snapshot;
    const record = await readRecord(join(snapshot.dir, SNAPSHOT), snapshotSchema);
    if (record === undefined) {
      throw new AppError("restore_failed", `sandbox ${sandboxId} has no whole snapshot`);
    }
    const sandbox: DriverSandbox = {
      sandboxId,
      templateId,
      ...(snapshotId === undefined ? {} : { snapshotId }),
      ports: {},
      timings: { running_ms: Math.round((clock.monotonic() - began) * 10) / 10 },
    };
    const rootfsPath = record.rootfs_path;
    await writeRecord(join(sandboxesDir, sandboxId, SANDBOX), { ...sandbox, rootfsPath });
    return sandbox;
  };
  return {
    name: "rootfs",
    probe: () => Promise.resolve({ available: true, detail: "no VM: root filesystems only" }),
    versions: () => Promise.resolve(VERSIONS),
    makeSnapshot,
    removeSnapshot: ({ dir }) => rm(dir, { recursive: true, force: true }),
    async hasSnapshot({ dir }) {
      const record = await readRecord(join(dir, SNAPSHOT), snapshotSchema);
      return record !== undefined && (await sizeOf(record.rootfs_path)) === record.rootfs_bytes;
    },
    async restore({ sandboxId, snapshot, dir }) {
      const began = clock.monotonic();
      await mkdir(dir, { mode: 0o750 }).catch((cause: unknown) => {
        const there = (cause as NodeJS.ErrnoException).code === "EEXIST";
        throw there
          ? new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`, { cause })
          : new AppError("restore_failed", `sandbox ${sandboxId} got no folder`, { cause });
      });
      try {
        return await write(sandboxId, snapshot, began);
      } catch (error) {
        await rm(dir, { recursive: true, force: true });
        throw error;
      }
    },
    async snapshotSandbox({ sandboxId, snapshotId, dir }, { signal, onStep } = {}) {
      signal?.throwIfAborted();
      const record = await readRecord(join(sandboxesDir, sandboxId, SANDBOX), sandboxSchema);
      if (record === undefined) throw notRunning(sandboxId);
      onStep?.("this driver runs nothing: there is no memory to freeze");
      const { templateId, rootfsPath = "" } = record;
      const state = `${JSON.stringify({ sandbox_id: sandboxId, snapshot_id: snapshotId })}\n`;
      const write = (to: string) => writeFile(to, state, { mode: 0o640, flush: true });
      return publish({ templateId, snapshotId, rootfsPath, dir }, VERSIONS, write);
    },
    async rollback({ sandboxId, snapshot }, { signal } = {}) {
      const began = clock.monotonic();
      signal?.throwIfAborted();
      const record = await readRecord(join(sandboxesDir, sandboxId, SANDBOX), sandboxSchema);
      if (record === undefined) throw notRunning(sandboxId);
      return write(sandboxId, snapshot, began);
    },
    flattenSnapshot,
    exportSnapshot,
    async importSnapshot({ description, files, rootfsPath, versions, ...input }) {
      const { rootfs_bytes } = descriptionSchema.parse(description);
      const state = files.find(({ name }) => name === STATE);
      if (state === undefined || (await sizeOf(rootfsPath)) !== rootfs_bytes) {
        const id = input.snapshotId ?? input.templateId;
        throw new AppError("snapshot_failed", `${id} lacks its state or filesystem`);
      }
      return publish({ ...input, rootfsPath }, versions, (to) => copyFile(state.path, to));
    },
    async stop(sandboxId) {
      const dir = join(sandboxesDir, sandboxId);
      if (dirname(dir) === sandboxesDir) await rm(dir, { recursive: true, force: true });
    },
    list,
    async reap() {
      const kept = new Set((await list()).map(({ sandboxId }) => sandboxId));
      for (const name of await namesIn(sandboxesDir)) {
        if (!kept.has(name)) await rm(join(sandboxesDir, name), { recursive: true, force: true });
      }
      return [];
    },
    usage: async () => ({ sandboxes: (await list()).length, processes: 0, memoryBytes: 0 }),
    warm: () => Promise.resolve(),
    async close({ keepSandboxes }) {
      if (keepSandboxes) return;
      for (const { sandboxId } of await list()) {
        await rm(join(sandboxesDir, sandboxId), { recursive: true, force: true });
      }
    },
  };
}

const notRunning = (sandboxId: string): AppError =>
  new AppError("sandbox_not_found", `sandbox ${sandboxId} does not run`);

/** A sandbox's snapshot: its state, then the record that makes it whole. */
async function publish(
  input: { templateId: string; snapshotId?: string; rootfsPath: string; dir: string },
  versions: DriverSnapshot["versions"],
  writeState: (path: string) => Promise<void>,
): Promise<DriverSnapshot> {
  const { templateId, snapshotId, rootfsPath, dir } = input;
  const bytes = await sizeOf(rootfsPath);
  if (bytes <= 0) throw new AppError("snapshot_failed", "the root filesystem is not there");
  await mkdir(dir, { recursive: true, mode: 0o750 });
  try {
    await writeState(join(dir, STATE));
    await writeRecord(join(dir, SNAPSHOT), { rootfs_path: rootfsPath, rootfs_bytes: bytes });
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
  const timings = { pause_ms: 0, live_ms: 0, total_ms: 0 };
  const size = await sizeOf(join(dir, STATE));
  const of = snapshotId === undefined ? { templateId } : { templateId, snapshotId };
  return { ...of, driver: "rootfs", dir, versions, bytes: size, timings };
}

const flattenSnapshot: RuntimeDriver["flattenSnapshot"] = async (
  { snapshot, to },
  { signal } = {},
) => {
  const record = await readRecord(join(snapshot.dir, SNAPSHOT), snapshotSchema);
  if (record === undefined) {
    throw new AppError("snapshot_not_found", `${snapshot.dir} holds no whole snapshot`);
  }
  try {
    await copySparse(record.rootfs_path, to, signal);
    await writeRecord(join(snapshot.dir, SNAPSHOT), { ...record, rootfs_path: to });
    return { snapshot, rootfs: await readManifest(to, signal) };
  } catch (cause) {
    await rm(to, { force: true });
    if (signal?.aborted === true) throw signal.reason;
    const what = `the root filesystem of ${snapshot.dir} was not written out`;
    throw new AppError("snapshot_failed", what, { cause });
  }
};

const exportSnapshot: RuntimeDriver["exportSnapshot"] = async ({ dir }, { signal } = {}) => {
  const record = await readRecord(join(dir, SNAPSHOT), snapshotSchema);
  if (record === undefined || (await sizeOf(join(dir, STATE))) < 0) {
    throw new AppError("snapshot_not_found", `${dir} holds no whole snapshot of a sandbox`);
  }
  const path = join(dir, STATE);
  const file = { name: STATE, path, ...(await readManifest(path, signal)) };
  return { description: { format: 1, rootfs_bytes: record.rootfs_bytes }, files: [file] };
};

const makeSnapshot: RuntimeDriver["makeSnapshot"] = async (
  { templateId, rootfsPath, dir },
  { signal, onStep } = {},
) => {
  signal?.throwIfAborted();
  const bytes = await sizeOf(rootfsPath);
  if (bytes <= 0) throw new AppError("snapshot_failed", "the root filesystem is not there");
  onStep?.("the root filesystem is in place; this driver boots nothing");
  await mkdir(dir, { recursive: true, mode: 0o750 });
  const record = { rootfs_path: rootfsPath, rootfs_bytes: bytes };
  await writeRecord(join(dir, SNAPSHOT), record);
  const snapshot: DriverSnapshot = {
    templateId,
    driver: "rootfs",
    dir,
    versions: VERSIONS,
    bytes: 0,
    timings: {},
  };
  return snapshot;
};
