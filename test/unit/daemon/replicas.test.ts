/** The replica worker on a node whose catalog takes nothing for a while. */
import { expect, it } from "vitest";
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
import { openMemoryCatalog } from "../../support/snapshot-node.ts";
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
