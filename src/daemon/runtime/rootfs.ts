/**
 * The driver without VMs: a replica is ready when the verified root filesystem is in place. For
 * hosts without hypervisor, and for large simulated clusters.
 */
import { mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AppError,
  type DriverSandbox,
  type DriverSnapshot,
  type RuntimeDriver,
} from "../../domain/index.ts";

const VERSIONS = {
  guest_image_version: "rootfs",
  agent_version: "none",
  kernel_version: "",
  extra: {},
} as const;

export function createRootfsDriver(options: { sandboxesDir: string }): RuntimeDriver {
  const recordPath = (sandboxId: string) => join(options.sandboxesDir, sandboxId, "sandbox.json");
  const present = (path: string) =>
    stat(path).then(
      (found) => found.size,
      () => -1,
    );
  const list = async (): Promise<DriverSandbox[]> => {
    const found: DriverSandbox[] = [];
    for (const name of (await readdir(options.sandboxesDir).catch(() => [])).sort()) {
      const text = await readFile(recordPath(name), "utf8").catch(() => undefined);
      if (text !== undefined) found.push(JSON.parse(text) as DriverSandbox);
    }
    return found;
  };
  return {
    name: "rootfs",
    probe: () => Promise.resolve({ available: true, detail: "no VM: root filesystems only" }),
    versions: () => Promise.resolve(VERSIONS),
    async makeSnapshot({ templateId, rootfsPath, dir }, { onStep } = {}) {
      const bytes = await present(rootfsPath);
      if (bytes <= 0) {
        throw new AppError("snapshot_failed", `the root filesystem ${rootfsPath} is not there`);
      }
      onStep?.("the root filesystem is in place; this driver boots nothing");
      await mkdir(dir, { recursive: true, mode: 0o750 });
      const snapshot: DriverSnapshot = {
        templateId,
        driver: "rootfs",
        dir,
        versions: VERSIONS,
        bytes: 0,
        timings: {},
      };
      await writeFile(
        join(dir, "snapshot.json"),
        JSON.stringify({ ...snapshot, rootfsPath, bytes }),
      );
      return snapshot;
    },
    removeSnapshot: ({ dir }) => rm(dir, { recursive: true, force: true }),
    async hasSnapshot({ dir }) {
      const text = await readFile(join(dir, "snapshot.json"), "utf8").catch(() => undefined);
      if (text === undefined) return false;
      const { rootfsPath, bytes } = JSON.parse(text) as { rootfsPath: string; bytes: number };
      return (await present(rootfsPath)) === bytes;
    },
    async restore({ sandboxId, snapshot, dir }) {
      await mkdir(dir, { mode: 0o750 }).catch((cause: unknown) => {
        throw new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`, {
          cause,
        });
      });
      const sandbox: DriverSandbox = {
        sandboxId,
        templateId: snapshot.templateId,
        ports: {},
        timings: {},
      };
      await writeFile(recordPath(sandboxId), JSON.stringify(sandbox));
      return sandbox;
    },
    stop: (sandboxId) =>
      rm(join(options.sandboxesDir, sandboxId), { recursive: true, force: true }),
    list,
    reap: () => Promise.resolve([]),
    usage: async () => ({ sandboxes: (await list()).length, processes: 0, memoryBytes: 0 }),
    warm: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}
