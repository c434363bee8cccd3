/**
 * The sandboxes on this host. A row is durable before the process starts and goes after it ended,
 * so that after a crash a row without a process is removed and a process without a row is ended.
 */
import { join } from "node:path";
import {
  AppError,
  RELEASE_REASONS,
  errorText,
  guestSpecOf,
  newSandboxId,
  type Catalog,
  type Clock,
  type DriverSandbox,
  type DriverSnapshot,
  type LocalWrite,
  type Log,
  type Random,
  type RunSandboxRequest,
  type RuntimeDriver,
  type SandboxInfo,
  type SandboxRequest,
} from "../domain/index.ts";
import type { EventHub } from "./events.ts";
import { KeyedQueue } from "./records.ts";
import type { RuntimeRefs } from "./runtime-refs.ts";

export interface SandboxParts {
  readonly catalog: Catalog;
  readonly refs: RuntimeRefs;
  readonly driver: RuntimeDriver;
  readonly hub: EventHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly nodeId: string;
  readonly dir: string;
  /** VM processes kept waiting for a template's snapshot, from its first sandbox here on. */
  readonly poolSize: number;
  /** Every guest is cut off, whatever its request says. */
  readonly isolateGuests: boolean;
  readonly onStarted: (milliseconds: number) => void;
}

export interface Sandboxes {
  list(): readonly SandboxInfo[];
  /** @throws AppError sandbox_already_exists, restore_failed */
  run(input: {
    request: RunSandboxRequest;
    templateId: string;
    effective: SandboxRequest;
    snapshot: DriverSnapshot;
    /** Of the template's replica here. */
    generation?: number;
    signal?: AbortSignal;
  }): Promise<SandboxInfo>;
  /** @throws AppError sandbox_not_found */
  remove(sandboxId: string): Promise<void>;
  /** One that runs, with the request it was started with. @throws AppError sandbox_not_found */
  running(sandboxId: string): { info: SandboxInfo; spec: SandboxRequest };
  /**
   * Takes a snapshot of it into `dir`; it runs on whatever happens. See the driver for `sync`.
   * @throws AppError sandbox_not_found, snapshot_failed
   */
  snapshot(
    input: { sandboxId: string; snapshotId: string; dir: string; sync?: boolean },
    options: { signal: AbortSignal; onStep?: (step: string) => void },
  ): Promise<DriverSnapshot>;
  /**
   * Puts it back to a snapshot. Until then, and when that fails, it runs on what it ran on, and
   * both have a ref.
   * @throws AppError sandbox_not_found, snapshot_not_found, snapshot_deleting, restore_failed
   */
  rollback(
    input: {
      sandboxId: string;
      snapshotId: string;
      snapshot: DriverSnapshot;
      generation: number;
    },
    options: { signal: AbortSignal; onRestored: () => Promise<void> },
  ): Promise<SandboxInfo>;
  usedTemplates(): ReadonlySet<string>;
  /** True while a sandbox runs on files of that generation of the template's replica here. */
  runsOn(templateId: string, generation: number): boolean;
  /** Sandboxes whose process has ended by itself become STOPPED. */
  refresh(): Promise<void>;
  /** At start: adopts what runs, ends what nobody owns, forgets what is gone. */
  recover(): Promise<void>;
}

/** What a rollback restores is held by a ref of its own until the sandbox runs on it. */
const ROLLBACK_TARGET = "rollback_target";

export function createSandboxes(parts: SandboxParts): Sandboxes {
  const { catalog, refs, driver, hub, clock, log } = parts;
  const table = catalog.table("sandbox");
  const known = new Map<string, SandboxInfo>();
  /** What each was started with: a snapshot of it is started with the same. */
  const specs = new Map<string, SandboxRequest>();
  /** Rollbacks under way: sandbox id → the snapshot it goes back to. */
  const targets = new Map<string, string>();
  /** Starts under way. */
  const starts = new Set<string>();
  const perSandbox = new KeyedQueue();

  const runsOn = (info: SandboxInfo) => info.snapshot_id ?? info.template_id;
  const valueOf = (info: SandboxInfo) => ({ ...info, spec: specs.get(info.sandbox_id) });
  const rowOf = (info: SandboxInfo): LocalWrite => ({
    table: "sandbox",
    key: info.sandbox_id,
    value: valueOf(info),
  });
  const store = async (info: SandboxInfo): Promise<SandboxInfo> => {
    await table.put(info.sandbox_id, valueOf(info));
    known.set(info.sandbox_id, info);
    hub.publish("sandbox", info.sandbox_id, info);
    return info;
  };
  /** The row and the ref that guards its snapshot's files, in one step and before the process. */
  const begin = async (info: SandboxInfo, spec: SandboxRequest): Promise<SandboxInfo> => {
    const { sandbox_id } = info;
    // Known first: whoever compares what is known with the refs must not find the ref alone.
    known.set(sandbox_id, info);
    specs.set(sandbox_id, spec);
    try {
      const request = { snapshot_id: runsOn(info), sandbox_id };
      await refs.acquire(request, "driver", { local: [rowOf(info)] });
    } catch (error) {
      known.delete(sandbox_id);
      specs.delete(sandbox_id);
      throw error;
    }
    hub.publish("sandbox", sandbox_id, info);
    return info;
  };
  const forget = async (sandboxId: string): Promise<void> => {
    const gone = known.get(sandboxId);
    known.delete(sandboxId);
    try {
      const local: LocalWrite[] = [{ table: "sandbox", key: sandboxId }];
      await refs.releaseBySandbox(sandboxId, RELEASE_REASONS.destroyed, { local });
    } catch (error) {
      if (gone !== undefined) known.set(sandboxId, gone);
      throw error;
    }
    specs.delete(sandboxId);
    hub.publish("sandbox", sandboxId, { sandbox_id: sandboxId, deleted: true });
  };
  /** Every sandbox that is known has its ref, and no ref of this daemon's is without one. */
  const compareRefs = (): Promise<void> =>
    refs.refresh(
      [
        ...[...known.values()].map((info) => ({
          snapshot_id: runsOn(info),
          sandbox_id: info.sandbox_id,
        })),
        ...[...targets].map(([sandbox_id, snapshot_id]) => ({
          snapshot_id,
          sandbox_id,
          binding_type: ROLLBACK_TARGET,
        })),
      ],
      "driver",
    );
  const running = (
    { snapshot_id: _before, ...info }: SandboxInfo,
    started: DriverSandbox,
  ): SandboxInfo => ({
    ...info,
    ...(started.snapshotId === undefined ? {} : { snapshot_id: started.snapshotId }),
    status: "RUNNING",
    ports: { ...started.ports },
    timings: { ...info.timings, ...started.timings },
    ...(started.pid === undefined ? {} : { pid: started.pid }),
  });

  const pooled = new Set<string>();
  const keepPool = (snapshot: DriverSnapshot, effective: SandboxRequest): void => {
    if (parts.poolSize === 0 || pooled.has(snapshot.dir)) return;
    pooled.add(snapshot.dir);
    driver
      .warm(snapshot, guestSpecOf(effective, parts.isolateGuests), parts.poolSize)
      .catch((error: unknown) => {
        pooled.delete(snapshot.dir);
        log.warn("no VM is kept waiting", { template_id: snapshot.templateId, err: error });
      });
  };

  /** False when it may still run: a driver that fails at one does not keep the daemon from all. */
  const endLeft = async (sandboxId: string): Promise<boolean> => {
    try {
      await driver.stop(sandboxId);
      return true;
    } catch (error) {
      log.error("sandbox is not ended", { sandbox_id: sandboxId, reason: errorText(error) });
      return false;
    }
  };

  /** What cannot be forgotten now, on a full disk, is at the next look. */
  const undo = async (sandboxId: string): Promise<void> => {
    try {
      await driver.stop(sandboxId);
      await forget(sandboxId);
    } catch (error) {
      log.warn("a failed start is undone later", { sandbox_id: sandboxId, err: error });
    }
  };
  const find = (sandboxId: string): SandboxInfo => {
    const info = known.get(sandboxId);
    if (info !== undefined) return info;
    throw new AppError("sandbox_not_found", `sandbox ${JSON.stringify(sandboxId)} not found`);
  };
  const assertRunning: Sandboxes["running"] = (sandboxId) => {
    const info = find(sandboxId);
    const spec = specs.get(sandboxId);
    if (info.status === "RUNNING" && spec !== undefined) return { info, spec };
    throw new AppError("wrong_status", `sandbox ${sandboxId} is ${info.status}, not RUNNING`);
  };

  const rollback = async (
    { sandboxId, snapshotId, snapshot, generation }: Parameters<Sandboxes["rollback"]>[0],
    { signal, onRestored }: Parameters<Sandboxes["rollback"]>[1],
  ): Promise<SandboxInfo> => {
    const { info, spec } = assertRunning(sandboxId);
    const target = { snapshot_id: snapshotId, sandbox_id: sandboxId };
    targets.set(sandboxId, snapshotId);
    try {
      await refs.acquire({ ...target, binding_type: ROLLBACK_TARGET }, "driver");
      const guest = guestSpecOf(spec, parts.isolateGuests);
      const started = await driver.rollback({ sandboxId, snapshot, guest }, { signal });
      const after = running(info, started);
      // It runs on the snapshot from here on, whatever can be written of it.
      known.set(sandboxId, after);
      hub.publish("sandbox", sandboxId, after);
      const local = [rowOf(after)];
      await refs.acquire({ ...target, sandbox_gen: generation }, "driver", { local });
      await onRestored();
      return after;
    } finally {
      targets.delete(sandboxId);
      await compareRefs().catch((error: unknown) => {
        log.warn("refs are compared later", { sandbox_id: sandboxId, err: error });
      });
    }
  };

  return {
    list: () => [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1)),
    usedTemplates: () => refs.usedSnapshots(),
    // One that does not say may run on any; one on a snapshot needs nothing of its template's.
    runsOn: (templateId, generation) =>
      [...known.values()].some(
        (info) =>
          info.template_id === templateId &&
          info.snapshot_id === undefined &&
          (info.generation ?? generation) === generation,
      ),
    async run({ request, templateId, effective, snapshot, generation, signal }) {
      const sandboxId = request.sandbox_id ?? newSandboxId(parts.random);
      if (known.has(sandboxId)) {
        throw new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`);
      }
      const began = clock.monotonic();
      starts.add(sandboxId);
      const starting = await begin(
        {
          sandbox_id: sandboxId,
          // A snapshot says of which template's sandbox it was.
          template_id: snapshot.snapshotId === undefined ? templateId : snapshot.templateId,
          ...(snapshot.snapshotId === undefined ? {} : { snapshot_id: snapshot.snapshotId }),
          ...(generation === undefined ? {} : { generation }),
          node_id: parts.nodeId,
          status: "STARTING",
          ports: {},
          labels: request.labels ?? {},
          timings: {},
          created_at: new Date(clock.now()).toISOString(),
        },
        effective,
      ).catch((error: unknown) => {
        starts.delete(sandboxId);
        throw error;
      });
      try {
        const started = await driver.restore(
          {
            sandboxId,
            snapshot,
            guest: guestSpecOf(effective, parts.isolateGuests),
            dir: join(parts.dir, sandboxId),
          },
          signal === undefined ? {} : { signal },
        );
        const total = clock.monotonic() - began;
        parts.onStarted(total);
        const info = running(starting, started);
        keepPool(snapshot, effective);
        return await store({ ...info, timings: { ...info.timings, total_ms: Math.round(total) } });
      } catch (error) {
        await undo(sandboxId);
        throw error;
      } finally {
        starts.delete(sandboxId);
      }
    },
    // After a snapshot or a rollback that is under way.
    remove: (sandboxId) =>
      perSandbox.run(sandboxId, async () => {
        find(sandboxId);
        await driver.stop(sandboxId);
        await forget(sandboxId);
      }),
    running: assertRunning,
    snapshot: (input, options) =>
      perSandbox.run(input.sandboxId, async () => {
        assertRunning(input.sandboxId);
        return driver.snapshotSandbox(input, options);
      }),
    rollback: (input, options) => perSandbox.run(input.sandboxId, () => rollback(input, options)),
    async refresh() {
      let found;
      try {
        found = await driver.list();
      } catch (error) {
        // Never freed on doubt.
        await refs.fail(`the driver could not be asked: ${errorText(error)}`, "driver");
        throw error;
      }
      const alive = new Set(found.map(({ sandboxId }) => sandboxId));
      for (const info of [...known.values()]) {
        if (info.status === "STARTING" && !starts.has(info.sandbox_id)) await undo(info.sandbox_id);
        if (info.status !== "RUNNING" || alive.has(info.sandbox_id)) continue;
        log.warn("sandbox has ended by itself", { sandbox_id: info.sandbox_id });
        await store({ ...info, status: "STOPPED" });
      }
      await compareRefs();
    },
    async recover() {
      const alive = new Map((await driver.list()).map((found) => [found.sandboxId, found]));
      for await (const [id, row] of table.range()) {
        const { spec, ...info } = row as SandboxInfo & { spec?: SandboxRequest };
        if (spec !== undefined) specs.set(id, spec);
        const found = alive.get(id);
        alive.delete(id);
        if (found !== undefined && info.status === "RUNNING") {
          known.set(id, running(info, found));
          continue;
        }
        log.warn("sandbox did not survive the restart", { sandbox_id: id, was: info.status });
        if (await endLeft(id)) await forget(id);
        else known.set(id, { ...info, status: "STOPPED" });
      }
      for (const id of alive.keys()) {
        log.warn("sandbox that nobody owns is ended", { sandbox_id: id });
        await endLeft(id);
      }
      await compareRefs();
      const reaped = await driver.reap();
      if (reaped.length > 0) log.warn("leftover VM processes ended", { pids: reaped });
    },
  };
}
