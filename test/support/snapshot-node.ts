/** One node: sandboxes, refs and snapshot operations over a memory catalog and a fake driver. */
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { submitCommit } from "../../src/daemon/commits.ts";
import { createSpace } from "../../src/daemon/disk/space.ts";
import { realFolders } from "../../src/daemon/effects/folders.ts";
import { createEventHub } from "../../src/daemon/events.ts";
import { createJobLog } from "../../src/daemon/job-log.ts";
import { KeyedQueue, createFacts, createRecords } from "../../src/daemon/records.ts";
import { openRuntimeRefs } from "../../src/daemon/runtime-refs.ts";
import { readManifest } from "../../src/daemon/runtime/file-manifest.ts";
import { createSandboxes } from "../../src/daemon/sandboxes.ts";
import { createSnapshotQueries } from "../../src/daemon/snapshot-queries.ts";
import { createSnapshots } from "../../src/daemon/snapshots.ts";
import { ReplicasWorker } from "../../src/daemon/workers/replicas.ts";
import { SnapshotsWorker } from "../../src/daemon/workers/snapshots.ts";
import {
  AppError,
  STORAGE_THRESHOLDS,
  storageFrom,
  CLUSTER,
  type CallContext,
  type CommitTemplateRequest,
  type DriverSandbox,
  type DriverSnapshot,
  type Entry,
  type NodeFact,
  type RecordKind,
  type RuntimeDriver,
} from "../../src/domain/index.ts";
import { openArtifactStore, openCatalog, type OpenedCatalog } from "../../src/storage/index.ts";
import { realClock } from "./real-clock.ts";
import { memoryDatabase, recordedLog, templateValue } from "./storage.ts";

export const CONTEXT: CallContext = { requestId: "request", actor: "test" };
export const NODE = "a";

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason));

/** VM processes as they would be found again after a restart of the daemon. */
export class FakeDriver {
  readonly sandboxes = new Map<string, DriverSandbox>();
  readonly files = new Set<string>();
  /** What the next snapshot or rollback waits for, before and after its work. */
  before: () => Promise<void> = () => Promise.resolve();
  after: () => Promise<void> = () => Promise.resolve();
  flattening: () => Promise<void> = () => Promise.resolve();
  exporting: () => Promise<void> = () => Promise.resolve();
  /** Why its guests do not flush their file systems when they are to. */
  unsynced: string | undefined;
  calls = 0;
  /** Folders of replicas, by how they were made. */
  readonly imports: string[] = [];
  readonly boots: string[] = [];
  /** Which driver the daemon has chosen at its start. */
  name: RuntimeDriver["name"] = "rootfs";
  #life = 0;

  /** Nothing that is under way comes to an end any more. */
  die(): void {
    this.#life++;
  }

  /** As a driver does: it stops waiting when it is told to. */
  async #within(step: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const life = this.#life;
    signal?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const end = (settle: () => void) => {
        if (this.#life === life) settle();
      };
      signal?.addEventListener("abort", () => end(() => reject(asError(signal.reason))));
      step().then(
        () => end(resolve),
        (error: unknown) => end(() => reject(asError(error))),
      );
    });
  }

  asDriver(): RuntimeDriver {
    const versions = { guest_image_version: "g", agent_version: "a", kernel_version: "k" };
    const made = (templateId: string, snapshotId: string, dir: string): DriverSnapshot => ({
      templateId,
      snapshotId,
      driver: this.name,
      dir,
      versions: { ...versions, extra: {} },
      bytes: 4_096,
      timings: { pause_ms: 1 },
    });
    const driver: Partial<RuntimeDriver> = {
      name: this.name,
      versions: () => Promise.resolve({ ...versions, extra: {} }),
      list: () => Promise.resolve([...this.sandboxes.values()]),
      reap: () => Promise.resolve([]),
      hasSnapshot: ({ dir }) => Promise.resolve(this.files.has(dir)),
      removeSnapshot: ({ dir }) => {
        this.files.delete(dir);
        return Promise.resolve();
      },
      restore: ({ sandboxId, snapshot }) => {
        const { templateId, snapshotId } = snapshot;
        if (snapshot.dir === "broken") return Promise.reject(new Error("it does not start"));
        const started = {
          sandboxId,
          templateId,
          ...(snapshotId === undefined ? {} : { snapshotId }),
          ports: {},
          timings: {},
        };
        this.sandboxes.set(sandboxId, started);
        return Promise.resolve(started);
      },
      stop: (sandboxId) => {
        this.sandboxes.delete(sandboxId);
        return Promise.resolve();
      },
      snapshotSandbox: async ({ sandboxId, snapshotId, dir, sync }, options) => {
        this.calls++;
        await this.#within(this.before, options?.signal);
        this.files.add(dir);
        await this.#within(this.after, options?.signal);
        const taken = made(this.sandboxes.get(sandboxId)?.templateId ?? "", snapshotId, dir);
        if (sync !== true) return taken;
        options?.onStep?.(this.unsynced ?? "the guest flushed");
        return this.unsynced === undefined ? taken : { ...taken, unsynced: this.unsynced };
      },
      probe: () => Promise.resolve({ available: true, detail: "fake" }),
      flattenSnapshot: async ({ snapshot, to }, options) => {
        await this.#within(this.flattening, options?.signal);
        await writeFile(to, Buffer.alloc(150_000, "disk"));
        return { snapshot, rootfs: await readManifest(to) };
      },
      exportSnapshot: async ({ dir }, options) => {
        await this.#within(this.exporting, options?.signal);
        const path = `${dir}.memory`;
        await mkdir(dirname(path), { recursive: true });
        await writeFile(path, Buffer.alloc(70_000, "memory"));
        const file = { name: "memory", path, ...(await readManifest(path)) };
        return { description: { format: 1 }, files: [file] };
      },
      importSnapshot: ({ templateId, snapshotId, dir }) => {
        this.imports.push(dir);
        this.files.add(dir);
        const { snapshotId: _none, ...own } = made(templateId, "", dir);
        return Promise.resolve(snapshotId === undefined ? own : { ...own, snapshotId });
      },
      makeSnapshot: ({ templateId, dir }) => {
        this.boots.push(dir);
        this.files.add(dir);
        const { snapshotId: _none, ...own } = made(templateId, "", dir);
        return Promise.resolve(own);
      },
      rollback: async ({ sandboxId, snapshot }, options) => {
        this.calls++;
        await this.#within(this.before, options?.signal);
        const sandbox = this.sandboxes.get(sandboxId);
        if (sandbox === undefined) throw new Error("it does not run");
        const snapshotId = snapshot.snapshotId ?? "";
        const started: DriverSandbox = { ...sandbox, snapshotId, timings: { running_ms: 1 } };
        this.sandboxes.set(sandboxId, started);
        await this.#within(this.after, options?.signal);
        return started;
      },
    };
    return driver as RuntimeDriver;
  }
}

export const openMemoryCatalog = (): Promise<OpenedCatalog> =>
  openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: () => Promise.resolve(memoryDatabase()),
  });

/** Records of a node that is alone: the next version of what is in its catalog. */
export function loneRegisters(catalog: OpenedCatalog) {
  let tail: Promise<unknown> = Promise.resolve();
  const step = async (
    kind: RecordKind,
    id: string,
    change: (current: unknown) => unknown,
  ): Promise<unknown> => {
    const current = catalog.get(CLUSTER, kind, id);
    const next = change(current?.value);
    if (next === undefined) return current;
    const version = (current?.version ?? 0) + 1;
    const value = next === null ? {} : { value: next };
    const entry = { owner: CLUSTER, kind, id, version, ...value } as Entry;
    await catalog.merge([entry]);
    return entry;
  };
  return {
    update: (kind: RecordKind, id: string, change: (current: unknown) => unknown) => {
      const result = tail.then(() => step(kind, id, change));
      tail = result.catch(() => undefined);
      return result;
    },
  };
}

/** The daemon's part that is at work, over what a former one left in `catalog` and `driver`. */
export async function startNode(catalog: OpenedCatalog, fake: FakeDriver, dir: string) {
  const clock = realClock;
  const log = recordedLog();
  const random = {
    bytes: (length: number) => crypto.getRandomValues(new Uint8Array(length)),
    uuid: () => crypto.randomUUID(),
  };
  const hub = createEventHub(clock, random);
  const records = createRecords(catalog, loneRegisters(catalog) as never);
  const facts = createFacts(catalog, clock, NODE);
  const driver = fake.asDriver();
  const refs = await openRuntimeRefs({ catalog, records, facts, clock, log, nodeIp: "10.0.0.1" });
  const sandboxes = createSandboxes({
    catalog,
    refs,
    driver,
    hub,
    clock,
    random,
    log,
    nodeId: NODE,
    dir: join(dir, "sandboxes"),
    poolSize: 0,
    isolateGuests: false,
    onStarted: () => undefined,
  });
  const jobLog = createJobLog(catalog, hub, clock, log);
  const node = {
    node_id: NODE,
    healthy: true,
    storage: { mode: "healthy", usage_pct: 10 },
  } as NodeFact;
  const others: NodeFact[] = [];
  const nodes = {
    self: NODE,
    all: () => [node, ...others],
    get: (id: string) => [node, ...others].find(({ node_id }) => node_id === id),
    isMember: (id: string) => [node, ...others].some(({ node_id }) => node_id === id),
    wasRemoved: () => false,
    onChange: () => () => undefined,
  };
  const templatesDir = join(dir, "templates");
  const disk = { totalBytes: 100 * 1024 ** 3, usedBytes: 10 * 1024 ** 3 };
  const space = createSpace({
    nodeId: NODE,
    meter: {
      thresholds: STORAGE_THRESHOLDS,
      latest: () => undefined,
      measure: () =>
        Promise.resolve(
          storageFrom(
            {
              total_bytes: disk.totalBytes,
              used_bytes: disk.usedBytes,
              volume_count: 0,
              snapshot_count: 0,
            },
            clock.now() / 1_000,
          ),
        ),
    },
    log,
  });
  const workDir = join(dir, "work");
  const store = await openArtifactStore({ dir: join(dir, "artifacts"), workDir, log });
  const swarm = {
    fetch: async ({ artifact_id: id }: { artifact_id: string }) => {
      if (store.find(id) === undefined) throw new AppError("fetch_failed", `nobody holds ${id}`);
    },
  };
  const replicas = new ReplicasWorker({
    catalog,
    records,
    facts,
    store,
    swarm,
    isHeldElsewhere: () => false,
    space,
    driver,
    folders: realFolders,
    jobLog,
    clock,
    log,
    nodeIp: "10.0.0.1",
    templatesDir,
    concurrency: 1,
    isolateGuests: false,
    inUse: (id: string) => sandboxes.usedTemplates().has(id),
  });
  const worker = new SnapshotsWorker({
    catalog,
    records,
    facts,
    nodes,
    sandboxes,
    replicas,
    refs,
    folders: realFolders,
    jobLog,
    clock,
    random,
    log,
    store,
    space,
    driver,
    files: new KeyedQueue(),
    workDir,
    templatesDir,
    release: async (id) => {
      await store.remove(id);
      await facts.put("holding", id, undefined);
      await records.update("artifact", id, (current) => (current ? null : undefined));
    },
  });
  const clusterRefs = { find: () => Promise.resolve({ refs: [], count: 0, unanswered: [] }) };
  const commit = (request: CommitTemplateRequest) =>
    submitCommit(
      { records, nodes, sandboxes, clusterRefs, clock, random, jobDeadlineMs: 60_000 },
      request,
      CONTEXT,
    );
  const snapshots = createSnapshots({
    catalog,
    records,
    nodes,
    sandboxes,
    clusterRefs,
    deletions: {
      remove: async (id) => {
        await records.update("template", id, (current) => {
          if (current === undefined) throw new AppError("template_not_found");
          return null;
        });
        return { template_id: id };
      },
    },
    clock,
    random,
  });
  const queries = createSnapshotQueries({ catalog, records, nodes });
  await sandboxes.recover();
  await replicas.start();
  worker.start();
  const made = {
    records,
    facts,
    refs,
    sandboxes,
    replicas,
    worker,
    snapshots,
    queries,
    store,
    jobLog,
  };
  return { node, others, nodes, disk, ...made, commit, log };
}

/** A template that is READY, a sandbox on it, and a node at work. */
export async function startWithSandbox(sandboxId = "sb-1") {
  const dir = await mkdtemp(join(tmpdir(), "templatecenter-snapshots-"));
  const catalog = await openMemoryCatalog();
  const fake = new FakeDriver();
  const value = { ...templateValue("tpl-1"), artifact_id: "rfs-1" };
  await catalog.merge([{ owner: CLUSTER, kind: "template", id: "tpl-1", version: 1, value }]);
  const node = await startNode(catalog, fake, dir);
  const snapshot: DriverSnapshot = {
    templateId: "tpl-1",
    driver: "rootfs",
    dir: "template",
    versions: { guest_image_version: "g", agent_version: "a", kernel_version: "k", extra: {} },
    bytes: 0,
    timings: {},
  };
  await node.sandboxes.run({
    request: { template_id: "tpl-1", sandbox_id: sandboxId },
    templateId: "tpl-1",
    effective: { template_id: "tpl-1", labels: { is: "spec" } },
    snapshot,
  });
  return { dir, catalog, fake, node };
}
