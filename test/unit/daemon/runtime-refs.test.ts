import { beforeEach, expect, it } from "vitest";
import { createFacts, createRecords } from "../../../src/daemon/records.ts";
import { openRuntimeRefs, type RuntimeRefs } from "../../../src/daemon/runtime-refs.ts";
import { CLUSTER, type TemplateRecord } from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateEntry,
  waitFor,
} from "../../support/storage.ts";

const SNAP = "snap-1";
let catalog: OpenedCatalog;
let refs: RuntimeRefs;
let full = false;
let clock = manualClock();

/** The node starts again over the same disk. */
async function start(): Promise<RuntimeRefs> {
  const registers = { update: () => Promise.reject(new Error("no record is written here")) };
  return openRuntimeRefs({
    catalog: {
      ...catalog,
      get: catalog.get.bind(catalog),
      list: catalog.list.bind(catalog),
      table: catalog.table.bind(catalog),
      subscribe: catalog.subscribe.bind(catalog),
      merge: (entries, options) =>
        full ? Promise.reject(new Error("disk full")) : catalog.merge(entries, options),
    },
    records: createRecords(catalog, registers),
    facts: createFacts(catalog, clock, "a"),
    clock,
    log: recordedLog(),
    nodeIp: "10.0.0.1",
  });
}

beforeEach(async () => {
  full = false;
  clock = manualClock();
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  await catalog.merge([templateEntry(SNAP, 1)]);
  refs = await start();
});

const acquire = (sandbox_id: string, snapshot_id = SNAP) =>
  refs.acquire({ snapshot_id, sandbox_id }, "driver");
const told = () => catalog.get("a", "refs", SNAP)?.value;

it("keeps refs over a restart and tells the others how many there are", async () => {
  await acquire("sb-1");
  await acquire("sb-2");
  await waitFor(() => told()?.count === 2);
  expect(told()?.sandboxes).toEqual(["sb-1", "sb-2"]);
  refs = await start();
  expect(refs.active({ snapshotId: SNAP }).map((ref) => ref.sandbox_id)).toEqual(["sb-1", "sb-2"]);
  expect(await refs.releaseBySandbox("sb-1", "sandbox destroyed")).toBe(1);
  expect(await refs.releaseBySandbox("sb-1", "sandbox destroyed")).toBe(0);
  await waitFor(() => told()?.count === 1);
  await refs.releaseBySandbox("sb-2", "sandbox destroyed");
  await waitFor(() => told()?.count === 0);
});

it("tells when it was last used, over a restart too, until it is gone", async () => {
  clock.time += 60_000;
  await acquire("sb-1");
  clock.time += 60_000;
  await refs.releaseBySandbox("sb-1", "sandbox destroyed");
  const released = new Date(clock.time).toISOString();
  await waitFor(() => told()?.count === 0);
  expect(told()?.last_used_at).toBe(released);
  clock.time += 60_000;
  refs = await start();
  // Whoever uses another one does not touch it.
  await catalog.merge([templateEntry("snap-2", 1)]);
  await acquire("sb-2", "snap-2");
  await waitFor(() => catalog.get("a", "refs", "snap-2")?.value?.count === 1);
  expect(told()).toMatchObject({ count: 0, last_used_at: released });
  await catalog.merge([{ owner: CLUSTER, kind: "template", id: SNAP, version: 2 }]);
  await waitFor(() => told() === undefined);
});

it("gives no ref of what is not there, is being deleted or is fenced", async () => {
  await expect(acquire("sb-1", "snap-none")).rejects.toMatchObject({ code: "snapshot_not_found" });
  const { value } = templateEntry(SNAP, 2);
  const deleting = { ...(value as TemplateRecord), status: "DELETING" as const };
  await catalog.merge([
    { owner: CLUSTER, kind: "template", id: SNAP, version: 2, value: deleting },
  ]);
  await expect(acquire("sb-1")).rejects.toMatchObject({ code: "snapshot_deleting" });
});

it("a fence sees every ref that was given, refuses from then on, and outlives a restart", async () => {
  const taking = acquire("sb-1");
  const held = await refs.fence(SNAP);
  expect(held.map((ref) => ref.sandbox_id)).toEqual(["sb-1"]);
  await taking;
  await expect(acquire("sb-2")).rejects.toMatchObject({ code: "snapshot_deleting" });
  refs = await start();
  await expect(acquire("sb-2")).rejects.toMatchObject({ code: "snapshot_deleting" });
  await refs.unfence(SNAP);
  await acquire("sb-2");
  refs = await start();
  expect(refs.count(SNAP)).toBe(2);
});

it("a fence of a record's version ends with what follows that record", async () => {
  const record = (version: number, status: TemplateRecord["status"]) =>
    catalog.merge([
      {
        ...templateEntry(SNAP, version),
        value: { ...(templateEntry(SNAP, version).value as TemplateRecord), status },
      },
    ]);
  // This node may hear of the record later than of the fence.
  await refs.fence(SNAP, 5);
  await expect(acquire("sb-1")).rejects.toMatchObject({ code: "snapshot_deleting" });
  await record(5, "DELETING");
  await refs.unfence(SNAP, 4);
  refs = await start();
  await expect(acquire("sb-1")).rejects.toMatchObject({ code: "snapshot_deleting" });
  await record(6, "READY");
  await acquire("sb-1");
  await waitFor(async () => (await settings()).length === 0);
});

const settings = async () => {
  const keys: string[] = [];
  for await (const [key] of catalog.table("setting").range({ prefix: "ref-fence/" }))
    keys.push(key);
  return keys;
};

it("row 108: given a list error, then refs stay active and say why", async () => {
  await acquire("sb-1");
  await refs.fail("cannot list", "driver");
  expect(refs.active()).toMatchObject([{ status: "ACTIVE", last_error: "cannot list" }]);
  await refs.refresh([{ snapshot_id: SNAP, sandbox_id: "sb-1" }], "driver");
  expect(refs.active()).toMatchObject([{ status: "ACTIVE", last_error: "" }]);
  await refs.refresh([], "runtime");
  expect(refs.count(SNAP)).toBe(1);
  await refs.refresh([], "driver");
  expect(refs.count(SNAP)).toBe(0);
});

it("a ref that could not be written is not held, and one that could not be released is", async () => {
  await acquire("sb-1");
  full = true;
  await expect(acquire("sb-2")).rejects.toThrow("disk full");
  await expect(refs.releaseBySandbox("sb-1", "sandbox destroyed")).rejects.toThrow("disk full");
  expect(refs.active().map((ref) => ref.sandbox_id)).toEqual(["sb-1"]);
});

it("generations rise over restarts until the sandbox is gone", async () => {
  await refs.acquire({ snapshot_id: SNAP, sandbox_id: "sb-1", sandbox_gen: 5 }, "driver");
  await refs.acquire({ snapshot_id: SNAP, sandbox_id: "sb-1", sandbox_gen: 3 }, "driver");
  refs = await start();
  expect(refs.nextGeneration("sb-1")).toBe(6);
  await refs.releaseBySandbox("sb-1", "sandbox destroyed");
  expect(refs.nextGeneration("sb-1")).toBe(1);
});
