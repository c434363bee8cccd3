/**
 * The runtime driver over a simulated host: VM processes that outlive the daemon, folders that are
 * whole or not there, and steps between which the daemon may die.
 */
import {
  AppError,
  type DriverSandbox,
  type DriverSnapshot,
  type RuntimeDriver,
} from "../../../src/domain/index.ts";
import { frozenContent } from "./images.ts";
import type { Machine } from "./machine.ts";
import { digestOf } from "./store.ts";

const versionsOf = (guest: string) => ({
  guest_image_version: guest,
  agent_version: "a1",
  kernel_version: "k1",
  extra: {},
});
const MEMORY = "memory";
const DISK = "disk";

type Failure = "guest_boot_failed" | "snapshot_failed" | "restore_failed";
type Options = { readonly signal?: AbortSignal } | undefined;

/** @throws AppError with that code, for whatever the step has failed by; the signal's reason */
async function step(
  machine: Machine,
  [low, high]: readonly [number, number],
  code: Failure,
  options: Options,
): Promise<void> {
  try {
    const signal = options?.signal;
    await machine.takes(low, high, signal === undefined ? {} : { signal });
  } catch (cause) {
    options?.signal?.throwIfAborted();
    throw new AppError(code, `${code}: ${String(cause)}`, { cause });
  }
}

export function simDriver(machine: Machine): RuntimeDriver {
  const { vms, dirs, files } = machine;
  const vmOf = (sandboxId: string) => {
    const vm = vms.get(sandboxId);
    if (vm !== undefined) return vm;
    throw new AppError("sandbox_not_found", `no VM of ${sandboxId} runs`);
  };
  const assertRootfs = (path: string) => {
    if (files.has(path.replace("/artifacts/", ""))) return;
    throw new AppError("guest_boot_failed", `the root filesystem ${path} is not there`);
  };
  /** One piece of work on a sandbox after the other. */
  const queues = new Map<string, Promise<unknown>>();
  const inOrder = <T>(sandboxId: string, work: () => Promise<T>): Promise<T> => {
    const result = (queues.get(sandboxId) ?? Promise.resolve()).then(work);
    queues.set(
      sandboxId,
      result.catch(() => undefined),
    );
    return result;
  };

  const driver: Partial<RuntimeDriver> = {
    name: "rootfs",
    versions: async () => versionsOf(machine.guest),
    probe: async () => ({ available: true, detail: "simulated" }),
    async makeSnapshot({ templateId, rootfsPath, dir }, options) {
      assertRootfs(rootfsPath);
      dirs.set(`${dir}.new`, undefined);
      try {
        await step(machine, [20, 200], "guest_boot_failed", options);
        if (!machine.boots) throw new AppError("guest_boot_failed", "no guest boots here");
        await step(machine, [10, 100], "snapshot_failed", options);
        assertRootfs(rootfsPath);
      } catch (error) {
        dirs.delete(`${dir}.new`);
        throw error;
      }
      const snapshot = made(machine.guest, templateId, undefined, dir);
      machine.publish(dir, snapshot);
      return snapshot;
    },
    async flattenSnapshot({ snapshot, to }, options) {
      if (dirs.get(snapshot.dir) === undefined) throw new AppError("snapshot_not_found");
      await step(machine, [10, 100], "snapshot_failed", options);
      const { bytes, manifest } = frozenContent(snapshot, DISK);
      machine.scratch.set(to, bytes);
      return { snapshot, rootfs: { digest: digestOf(manifest), manifest } };
    },
    async exportSnapshot(snapshot, options) {
      if (dirs.get(snapshot.dir) === undefined) throw new AppError("snapshot_not_found");
      await step(machine, [5, 50], "snapshot_failed", options);
      const { manifest } = frozenContent(snapshot, MEMORY);
      const path = `${snapshot.dir}/${MEMORY}`;
      const file = { name: MEMORY, path, digest: digestOf(manifest), manifest };
      return { description: {}, files: [file] };
    },
    async importSnapshot(
      { templateId, snapshotId, versions, files: from, rootfsPath, dir },
      options,
    ) {
      assertRootfs(rootfsPath);
      for (const { path } of from) {
        if (files.has(path.replace("/artifacts/", ""))) continue;
        throw new AppError("snapshot_failed", `${path} is not there`);
      }
      await step(machine, [5, 50], "snapshot_failed", options);
      const snapshot = made(versions.guest_image_version, templateId, snapshotId, dir);
      machine.publish(dir, snapshot);
      return snapshot;
    },
    async removeSnapshot({ dir }) {
      await machine.takes(1, 10);
      machine.drop(dir);
    },
    hasSnapshot: async ({ dir }) => dirs.get(dir) !== undefined,
    async restore({ sandboxId, snapshot }, options) {
      if (vms.has(sandboxId)) throw new AppError("sandbox_already_exists");
      const { templateId, snapshotId, dir } = snapshot;
      if (dirs.get(dir) === undefined) {
        throw new AppError("restore_failed", `${dir} is not there`);
      }
      const sandbox: DriverSandbox = {
        ...{ sandboxId, templateId, ports: {}, timings: {} },
        ...(snapshotId === undefined ? {} : { snapshotId }),
      };
      const { guest_image_version: guest } = snapshot.versions;
      vms.set(sandboxId, { sandbox, base: dir, guest });
      try {
        await step(machine, [5, 60], "restore_failed", options);
      } catch (error) {
        vms.delete(sandboxId);
        throw error;
      }
      return sandbox;
    },
    snapshotSandbox: ({ sandboxId, snapshotId, dir }, options) =>
      inOrder(sandboxId, async () => {
        vmOf(sandboxId);
        if (dirs.has(dir)) throw new AppError("snapshot_failed", `${dir} is there already`);
        dirs.set(`${dir}.new`, undefined);
        try {
          await step(machine, [10, 200], "snapshot_failed", options);
          await step(machine, [5, 50], "snapshot_failed", options);
          vmOf(sandboxId);
        } catch (error) {
          dirs.delete(`${dir}.new`);
          throw error;
        }
        const { sandbox, guest } = vmOf(sandboxId);
        const snapshot = made(guest, sandbox.templateId, snapshotId, dir);
        machine.publish(dir, snapshot);
        return snapshot;
      }),
    rollback: ({ sandboxId, snapshot }, options) =>
      inOrder(sandboxId, async () => {
        vmOf(sandboxId);
        await step(machine, [10, 150], "restore_failed", options);
        if (dirs.get(snapshot.dir) === undefined) {
          throw new AppError("restore_failed", `${snapshot.dir} is not there`);
        }
        const { sandbox } = vmOf(sandboxId);
        const { snapshotId: _before, ...rest } = sandbox;
        const { snapshotId } = snapshot;
        const after = snapshotId === undefined ? rest : { ...rest, snapshotId };
        const { guest_image_version: guest } = snapshot.versions;
        vms.set(sandboxId, { sandbox: after, base: snapshot.dir, guest });
        // Switched: what is left to do cannot fail any more.
        await machine.host.clock().sleep(machine.host.world.chance.between(1, 20));
        return { ...after, timings: { running_ms: 1 } };
      }),
    async stop(sandboxId) {
      await machine.host.clock().sleep(machine.host.world.chance.between(1, 20));
      vms.delete(sandboxId);
    },
    list: async () => [...vms.values()].map(({ sandbox }) => sandbox),
    reap: async () => [],
    usage: async () => ({ sandboxes: vms.size, processes: vms.size, memoryBytes: 0 }),
    warm: async () => undefined,
    close: async () => undefined,
  };
  return driver as RuntimeDriver;
}

const made = (
  guest: string,
  templateId: string,
  snapshotId: string | undefined,
  dir: string,
): DriverSnapshot => ({
  templateId,
  ...(snapshotId === undefined ? {} : { snapshotId }),
  driver: "rootfs",
  dir,
  versions: versionsOf(guest),
  bytes: 4_096,
  timings: { pause_ms: 1 },
});
