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
    signal?: AbortSignal;
  }): Promise<SandboxInfo>;
  /** @throws AppError sandbox_not_found */
  remove(sandboxId: string): Promise<void>;
  usedTemplates(): ReadonlySet<string>;
  /** Sandboxes whose process has ended by itself become STOPPED. */
  refresh(): Promise<void>;
  /** At start: adopts what runs, ends what nobody owns, forgets what is gone. */
  recover(): Promise<void>;
}

export function createSandboxes(parts: SandboxParts): Sandboxes {
  const { catalog, refs, driver, hub, clock, log } = parts;
  const table = catalog.table("sandbox");
  const known = new Map<string, SandboxInfo>();

  const runsOn = (info: SandboxInfo) => info.snapshot_id ?? info.template_id;
  const rowOf = (info: SandboxInfo): LocalWrite => ({
    table: "sandbox",
    key: info.sandbox_id,
    value: info,
  });
  const store = async (info: SandboxInfo): Promise<SandboxInfo> => {
    await table.put(info.sandbox_id, info);
    known.set(info.sandbox_id, info);
    hub.publish("sandbox", info.sandbox_id, info);
    return info;
  };
  /** The row and the ref that guards its snapshot's files, in one step and before the process. */
  const begin = async (info: SandboxInfo): Promise<SandboxInfo> => {
    const { sandbox_id } = info;
    // Known first: whoever compares what is known with the refs must not find the ref alone.
    known.set(sandbox_id, info);
    try {
      const request = { snapshot_id: runsOn(info), sandbox_id };
      await refs.acquire(request, "driver", { local: [rowOf(info)] });
    } catch (error) {
      known.delete(sandbox_id);
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
    hub.publish("sandbox", sandboxId, { sandbox_id: sandboxId, deleted: true });
  };
  /** Every sandbox that is known has its ref, and no ref of this daemon's is without one. */
  const compareRefs = (): Promise<void> =>
    refs.refresh(
      [...known.values()].map((info) => ({
        snapshot_id: runsOn(info),
        sandbox_id: info.sandbox_id,
      })),
      "driver",
    );
  const running = (info: SandboxInfo, started: DriverSandbox): SandboxInfo => ({
    ...info,
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

  return {
    list: () => [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1)),
    usedTemplates: () => refs.usedSnapshots(),
    async run({ request, templateId, effective, snapshot, signal }) {
      const sandboxId = request.sandbox_id ?? newSandboxId(parts.random);
      if (known.has(sandboxId)) {
        throw new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`);
      }
      const began = clock.monotonic();
      const starting = await begin({
        sandbox_id: sandboxId,
        template_id: templateId,
        node_id: parts.nodeId,
        status: "STARTING",
        ports: {},
        labels: request.labels ?? {},
        timings: {},
        created_at: new Date(clock.now()).toISOString(),
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
        await driver.stop(sandboxId);
        await forget(sandboxId);
        throw error;
      }
    },
    async remove(sandboxId) {
      if (!known.has(sandboxId)) {
        throw new AppError("sandbox_not_found", `sandbox ${JSON.stringify(sandboxId)} not found`);
      }
      await driver.stop(sandboxId);
      await forget(sandboxId);
    },
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
        if (info.status !== "RUNNING" || alive.has(info.sandbox_id)) continue;
        log.warn("sandbox has ended by itself", { sandbox_id: info.sandbox_id });
        await store({ ...info, status: "STOPPED" });
      }
      await compareRefs();
    },
    async recover() {
      const alive = new Map((await driver.list()).map((found) => [found.sandboxId, found]));
      for await (const [id, row] of table.range()) {
        const info = row as SandboxInfo;
        const found = alive.get(id);
        alive.delete(id);
        if (found !== undefined && info.status === "RUNNING") {
          known.set(id, running(info, found));
          continue;
        }
        log.warn("sandbox did not survive the restart", { sandbox_id: id, was: info.status });
        await driver.stop(id);
        await forget(id);
      }
      for (const id of alive.keys()) {
        log.warn("sandbox that nobody owns is ended", { sandbox_id: id });
        await driver.stop(id);
      }
      await compareRefs();
      const reaped = await driver.reap();
      if (reaped.length > 0) log.warn("leftover VM processes ended", { pids: reaped });
    },
  };
}
