/** The replica worker on a node whose catalog takes nothing for a while. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { MadeReplicas } from "../../../src/daemon/workers/made-replicas.ts";
import { createFacts, createRecords } from "../../../src/daemon/records.ts";
import { ReplicasWorker, type ReplicaParts } from "../../../src/daemon/workers/replicas.ts";
import {
  AppError,
  CLUSTER,
  type ArtifactRecord,
  type DriverSnapshot,
  type LocalWrite,
} from "../../../src/domain/index.ts";
import {
  NODE,
  openMemoryCatalog,
  startNode,
  startWithSandbox,
} from "../../support/snapshot-node.ts";
import { manualClock, recordedLog, templateValue, waitFor } from "../../support/storage.ts";

it("waits before it tries again what cannot be written down", async () => {
  const catalog = await openMemoryCatalog();
  const template = { ...templateValue("tpl-1"), artifact_id: "rfs-1", desired_nodes: ["a"] };
  const artifact = { artifact_id: "rfs-1", status: "READY", digest: "sha256:1" } as ArtifactRecord;
  const record = { owner: CLUSTER, version: 1 } as const;
  await catalog.merge([{ ...record, kind: "template", id: "tpl-1", value: template }]);
  const clock = manualClock();
  let attempts = 0;
  const facts = {
    ...createFacts(catalog, clock, "a"),
    put: () => {
      attempts++;
      return Promise.reject(new AppError("catalog_degraded", "the disk is full"));
    },
  };
  const records = createRecords(catalog, { update: () => Promise.reject(new Error("none")) });
  const later: (() => void)[] = [];
  const worker = new ReplicasWorker({
    ...{ catalog, facts, folders: { names: async () => [], remove: async () => undefined } },
    records: {
      ...records,
      get: (kind: "artifact", id: string) =>
        kind === "artifact" ? artifact : records.get(kind, id),
    },
    clock: { ...clock, after: (_ms: number, work: () => void) => void later.push(work) },
    driver: { name: "rootfs" },
    jobLog: { append: () => undefined },
    log: recordedLog(),
    templatesDir: "/templates",
    concurrency: 1,
    inUse: () => false,
  } as unknown as ReplicaParts);
  await worker.start();
  await waitFor(() => later.length > 0);
  // Whatever would go on at once has gone on by now.
  for (let turn = 0; turn < 20; turn++) await new Promise((next) => setImmediate(next));
  expect(later).toHaveLength(1);
  const tried = attempts;
  later.shift()?.();
  await waitFor(() => later.length > 0);
  expect(attempts).toBe(2 * tried);
  await worker.stop();
});

it("removes the files of a replica when that has failed before", async () => {
  const catalog = await openMemoryCatalog();
  let isBroken = true;
  const removed: string[] = [];
  const driver = {
    name: "rootfs",
    removeSnapshot: async ({ dir }: DriverSnapshot) => {
      if (isBroken) throw new Error("EIO: i/o error");
      removed.push(dir);
    },
  };
  const made = new MadeReplicas({
    ...{ catalog, driver, log: recordedLog(), templatesDir: "/templates", inUse: () => false },
    folders: { names: async () => [], remove: async () => undefined },
    facts: { get: () => undefined },
  } as never);
  const publish = async (local: readonly LocalWrite[]) => {
    await catalog.merge([], { local });
  };
  const replica = (generation: number) => {
    const dir = made.folder("tpl-1", generation);
    return { snapshot: { driver: "rootfs", dir } as DriverSnapshot, generation };
  };
  await made.replace("tpl-1", replica(1), publish);
  // The first generation cannot be removed when the second replaces it.
  await made.replace("tpl-1", replica(2), publish);
  await expect(made.remove("tpl-1")).rejects.toThrow("EIO");
  expect(made.has("tpl-1")).toBe(true);
  isBroken = false;
  await made.remove("tpl-1");
  expect(made.has("tpl-1")).toBe(false);
  expect(removed.sort()).toEqual(["/templates/tpl-1.g1", "/templates/tpl-1.g2"]);
  const rows: string[] = [];
  for await (const [key] of catalog.table("driver-snapshot").range()) rows.push(key);
  expect(rows).toEqual([]);
});

describe("a replica that is not wanted any more", () => {
  /** One that is READY, of a template without a sandbox; its record can be dropped. */
  async function ready() {
    const setup = await startWithSandbox();
    onTestFinished(() => rm(setup.dir, { recursive: true, force: true }));
    const { node, catalog } = setup;
    const value = { ...templateValue("tpl-2"), desired_nodes: [NODE], artifact_id: "rfs-1" };
    await node.records.update("template", "tpl-2", () => value);
    const dir = "tpl-2";
    setup.fake.files.add(dir);
    const versions = {
      guest_image_version: "g",
      agent_version: "a",
      kernel_version: "k",
      extra: {},
    };
    const snapshot = {
      templateId: "tpl-2",
      driver: "rootfs",
      dir,
      versions,
      bytes: 0,
      timings: {},
    };
    await node.replicas.adopt(value, snapshot);
    const told: unknown[] = [];
    catalog.subscribe(({ kind, id, value: now }) => {
      if (kind !== "replica" || id !== "tpl-2") return;
      const { status, phase } = (now ?? {}) as { status?: string; phase?: string };
      told.push([status, phase, setup.fake.files.has(dir)]);
    });
    const drop = () =>
      node.records.update("template", "tpl-2", () => ({ ...value, desired_nodes: [] }));
    return { ...setup, told, drop };
  }

  it("tells that it is being cleaned before its files go", async () => {
    const { told, drop } = await ready();
    await drop();
    await waitFor(() => told.length === 2);
    expect(told).toEqual([
      ["FAILED", "CLEANING", true],
      [undefined, undefined, false],
    ]);
  });

  it("stays with its files for a sandbox that began meanwhile", async () => {
    const { node, catalog, fake, told, drop } = await ready();
    const used = new Set<string>();
    Object.assign(node.sandboxes, { usedTemplates: () => used });
    catalog.subscribe(({ kind, value }) => {
      const { phase } = (value ?? {}) as { phase?: string };
      if (kind === "replica" && phase === "CLEANING" && told.length === 1) used.add("tpl-2");
    });
    await drop();
    await waitFor(() => told.length === 2);
    expect(told[1]).toEqual(["READY", "READY", true]);
    used.clear();
    node.replicas.reconcile();
    await waitFor(() => !fake.files.has("tpl-2"));
  });
});

it("a lost catalog takes no sandbox's snapshot with it, only what can be made again", async () => {
  const { dir, node, fake } = await startWithSandbox();
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  await node.worker.stop();
  await node.replicas.stop();
  const templates = join(dir, "templates");
  for (const name of ["snap-1", "tpl-1.g1", "snap-2.new"]) {
    await mkdir(join(templates, name), { recursive: true });
  }
  const again = await startNode(await openMemoryCatalog(), fake, dir);
  expect((await readdir(templates)).sort()).toEqual(["snap-1", "snap-2.new"]);
  const warned = again.log.lines.filter(({ level }) => level === "warn");
  expect(warned).toContainEqual(
    expect.objectContaining({ fields: { dir: join(templates, "snap-1") } }),
  );
  await again.worker.stop();
  await again.replicas.stop();
});
