import { describe, expect, it } from "vitest";
import { LIMITS } from "../../../src/domain/index.ts";
import { createAudit, createIdempotencyStore, openCatalog } from "../../../src/storage/index.ts";
import { manualClock, memoryDatabase, recordedLog } from "../../support/storage.ts";

async function setUp() {
  const clock = manualClock();
  const database = memoryDatabase();
  const open = () =>
    openCatalog({ dir: "unused", log: recordedLog(), clock, openDatabase: async () => database });
  return { clock, database, open, catalog: await open() };
}

describe("idempotency store", () => {
  it("replays the answer of the same request, and refuses another one", async () => {
    const { catalog, clock } = await setUp();
    const store = createIdempotencyStore(catalog, clock);
    expect(await store.begin("key\n1", "h")).toEqual({ state: "new" });
    await expect(store.begin("key\n1", "h")).rejects.toMatchObject({
      code: "idempotency_in_progress",
    });
    await expect(store.begin("key\n1", "other")).rejects.toMatchObject({
      code: "idempotency_mismatch",
    });
    await store.finish("key\n1", { status: 202 });
    const replay = { state: "replay", answer: { status: 202 } };
    expect(await store.begin("key\n1", "h")).toEqual(replay);
    expect(await store.begin("key\n1", "h")).toEqual(replay);
    await expect(store.begin("key\n1", "other")).rejects.toMatchObject({
      code: "idempotency_mismatch",
    });
  });

  it("lets one of two equal requests through, also when they come at once", async () => {
    const { catalog, clock } = await setUp();
    const store = createIdempotencyStore(catalog, clock);
    const both = await Promise.allSettled([store.begin("k", "h"), store.begin("k", "h")]);
    expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
  });

  it("releases keys that were abandoned, and those of a process that ended", async () => {
    const { catalog, clock, open } = await setUp();
    const store = createIdempotencyStore(catalog, clock);
    await store.begin("k", "h");
    store.abandon("k");
    expect(await store.begin("k", "h")).toEqual({ state: "new" });
    const next = createIdempotencyStore(await open(), clock);
    expect(await next.begin("k", "h")).toEqual({ state: "new" });
  });

  it("forgets answers after their time", async () => {
    const { catalog, clock } = await setUp();
    const store = createIdempotencyStore(catalog, clock);
    await store.begin("old", "h");
    await store.finish("old", 1);
    clock.time += LIMITS.idempotencyTtlMs;
    await store.begin("young", "h");
    await store.finish("young", undefined);
    expect(await store.begin("old", "other")).toEqual({ state: "new" });
    expect(await store.sweep()).toBe(1);
    expect(await store.begin("young", "h")).toEqual({ state: "replay", answer: null });
  });
});

describe("audit log", () => {
  const input = (subject: string) => ({
    actor: "socket",
    request_id: "r",
    action: "template.delete",
    subject,
    result: "ok",
  });

  it("chains rows that are appended at once, and goes on after it was opened again", async () => {
    const { catalog, clock, open } = await setUp();
    const audit = createAudit(catalog.table("audit"), clock);
    await Promise.all(["a", "b", "c"].map((subject) => audit.append(input(subject))));
    const again = createAudit((await open()).table("audit"), clock);
    const last = await again.append({ ...input("d"), details: { z: 1, a: 2 } });
    expect(last.sequence).toBe(4);
    expect((await again.list({ after: 1, limit: 2 })).map((row) => row.subject)).toEqual([
      "b",
      "c",
    ]);
    expect(await again.verify()).toEqual({ intact: true, rows: 4, head: last.hash });
  });

  it("shows a row that was changed or taken out", async () => {
    const { catalog, clock } = await setUp();
    const table = catalog.table("audit");
    const audit = createAudit(table, clock);
    for (const subject of ["a", "b", "c"]) await audit.append(input(subject));
    const [, second] = await audit.list();
    await table.put("0000000000000002", { ...second, subject: "x" });
    expect(await audit.verify()).toMatchObject({ intact: false, sequence: 2 });
    await table.delete("0000000000000002");
    expect(await audit.verify()).toMatchObject({ intact: false, sequence: 2 });
  });

  it("goes on with the chain after writes that failed", async () => {
    const { catalog, clock, database } = await setUp();
    const audit = createAudit(catalog.table("audit"), clock);
    await audit.append(input("a"));
    database.fail = new Error("no space");
    const failed = await Promise.allSettled([audit.append(input("b")), audit.append(input("c"))]);
    expect(failed.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    database.fail = undefined;
    clock.fire();
    while (!catalog.health().writable) await new Promise((resolve) => setImmediate(resolve));
    await audit.append(input("d"));
    expect(await audit.verify()).toMatchObject({ intact: true, rows: 2 });
  });
});
