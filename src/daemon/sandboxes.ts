/**
 * The sandboxes on this host. A row is durable before the process starts and goes after it ended,
 * so that after a crash a row without a process is removed and a process without a row is ended.
 */
import { join } from "node:path";
import {
  AppError,
  guestSpecOf,
  newSandboxId,
  type Catalog,
  type Clock,
  type DriverSandbox,
  type DriverSnapshot,
  type Log,
  type Random,
  type RunSandboxRequest,
  type RuntimeDriver,
  type SandboxInfo,
  type SandboxRequest,
} from "../domain/index.ts";
import type { EventHub } from "./events.ts";
import type { Facts } from "./records.ts";

export interface SandboxParts {
  readonly catalog: Catalog;
  readonly facts: Facts;
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
  const { catalog, facts, driver, hub, clock, log } = parts;
  const table = catalog.table("sandbox");
  const known = new Map<string, SandboxInfo>();

  /** What other nodes must know before they let a template go. */
  const publishRefs = (templateId: string): void => {
    const users = [...known.values()].filter((info) => info.template_id === templateId);
    const sandboxes = users.map((info) => info.sandbox_id).sort();
    const value = {
      template_id: templateId,
      count: users.length,
      sandboxes: sandboxes.slice(0, 5),
    };
    // No start waits for it: the node's own files are guarded by its own list.
    facts
      .put("refs", templateId, users.length === 0 ? undefined : value, { sync: false })
      .catch((error: unknown) => log.warn("refs are not published", { err: error }));
  };
  const store = async (info: SandboxInfo): Promise<SandboxInfo> => {
    await table.put(info.sandbox_id, info);
    const isNew = !known.has(info.sandbox_id);
    known.set(info.sandbox_id, info);
    if (isNew) publishRefs(info.template_id);
    hub.publish("sandbox", info.sandbox_id, info);
    return info;
  };
  const forget = async (sandboxId: string): Promise<void> => {
    await table.delete(sandboxId);
    const gone = known.get(sandboxId);
    known.delete(sandboxId);
    if (gone !== undefined) publishRefs(gone.template_id);
    hub.publish("sandbox", sandboxId, { sandbox_id: sandboxId, deleted: true });
  };
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
    usedTemplates: () => new Set([...known.values()].map((info) => info.template_id)),
    async run({ request, templateId, effective, snapshot, signal }) {
      const sandboxId = request.sandbox_id ?? newSandboxId(parts.random);
      if (known.has(sandboxId)) {
        throw new AppError("sandbox_already_exists", `sandbox ${sandboxId} already exists`);
      }
      const began = clock.monotonic();
      const starting = await store({
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
      const alive = new Set((await driver.list()).map((found) => found.sandboxId));
      for (const info of [...known.values()]) {
        if (info.status !== "RUNNING" || alive.has(info.sandbox_id)) continue;
        log.warn("sandbox has ended by itself", { sandbox_id: info.sandbox_id });
        await store({ ...info, status: "STOPPED" });
      }
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
      const stale = [...catalog.list("refs", { owner: parts.nodeId })].map(({ id }) => id);
      const used = [...known.values()].map((info) => info.template_id);
      for (const templateId of new Set([...stale, ...used])) publishRefs(templateId);
      const reaped = await driver.reap();
      if (reaped.length > 0) log.warn("leftover VM processes ended", { pids: reaped });
    },
  };
}
