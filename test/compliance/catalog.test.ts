/** One suite for the catalog, run over LevelDB and over the database in memory. */
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AppError, type Entry } from "../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../src/storage/index.ts";
import {
  manualClock,
  memoryDatabase,
  progressEntry,
  recordedLog,
  replicaEntry,
  templateEntry,
  withFolder,
} from "../support/storage.ts";

describe.each(["level", "memory"])("the catalog over %s", (store) => {
  let catalog: OpenedCatalog;
  let reopen: () => Promise<void>;
  let done: () => void;
  let folder: Promise<void>;

  beforeEach(async () => {
    const finished = new Promise<void>((resolve) => (done = resolve));
    await new Promise<void>((ready, failed) => {
      folder = withFolder(async (dir) => {
        const database = memoryDatabase();
        const open = () =>
          openCatalog({
            dir: join(dir, "catalog"),
            log: recordedLog(),
            clock: manualClock(),
            ...(store === "memory" ? { openDatabase: async () => database } : {}),
          });
        catalog = await open();
        reopen = async () => {
          await catalog.close();
          catalog = await open();
        };
        ready();
        await finished;
        await catalog.close();
      });
      folder.catch(failed);
    });
  });
  afterEach(async () => {
    done();
    await folder;
  });

  const ids = (entries: Iterable<Entry>) => [...entries].map(({ id, owner }) => `${id} ${owner}`);
  const feed = async (since: number, limit = 100) =>
    (await catalog.changes(since, limit)).map(({ sequence, entry }) => ({
      sequence,
      what: `${entry.id} ${entry.version}`,
    }));

  it("reads what was merged, before and after it was opened again", async () => {
    const entry = templateEntry("tpl-1", 1, "hello");
    expect(await catalog.merge([entry])).toEqual([entry]);
    expect(catalog.get("@cluster", "template", "tpl-1")).toEqual(entry);
    const hash = catalog.stateHash();
    await reopen();
    expect(catalog.get("@cluster", "template", "tpl-1")).toEqual(entry);
    expect(catalog.stateHash()).toBe(hash);
  });

  it("applies the higher version only, and answers what it applied", async () => {
    await catalog.merge([templateEntry("tpl-1", 5, "five")]);
    expect(await catalog.merge([templateEntry("tpl-1", 4), templateEntry("tpl-1", 5)])).toEqual([]);
    expect(catalog.get("@cluster", "template", "tpl-1")?.value?.request.annotations).toEqual({
      note: "five",
    });
  });

  it("serialises merges of one key that are made at once", async () => {
    const versions = [3, 1, 5, 2, 4];
    const applied = await Promise.all(
      versions.map((version) => catalog.merge([templateEntry("tpl-1", version)])),
    );
    expect(applied.map((entries) => entries.length)).toEqual([1, 0, 1, 0, 0]);
    expect(catalog.get("@cluster", "template", "tpl-1")?.version).toBe(5);
    expect(await feed(0)).toMatchObject([{ what: "tpl-1 5" }]);
  });

  it("lists live entries by id, then owner, and by each alone", async () => {
    await catalog.merge([
      replicaEntry("t2", "b", 1),
      replicaEntry("t1", "b", 1),
      replicaEntry("t2", "a", 1),
      replicaEntry("t10", "a", 1),
    ]);
    await catalog.merge([{ owner: "b", kind: "replica", id: "t1", version: 2 }]);
    expect(ids(catalog.list("replica"))).toEqual(["t10 a", "t2 a", "t2 b"]);
    expect(ids(catalog.list("replica", { id: "t2" }))).toEqual(["t2 a", "t2 b"]);
    expect(ids(catalog.list("replica", { owner: "a" }))).toEqual(["t10 a", "t2 a"]);
    expect(ids(catalog.list("template"))).toEqual([]);
    expect(catalog.get("b", "replica", "t1")).toEqual({
      owner: "b",
      kind: "replica",
      id: "t1",
      version: 2,
    });
    expect(catalog.health()).toEqual({ writable: true, reason: "", entries: 3 });
  });

  it("keeps the latest change of each entry only, across openings", async () => {
    await catalog.merge([templateEntry("a", 1), templateEntry("b", 1)]);
    await catalog.merge([templateEntry("a", 2)]);
    await catalog.merge([templateEntry("c", 1)]);
    const all = await feed(0);
    expect(all.map(({ what }) => what)).toEqual(["b 1", "a 2", "c 1"]);
    expect(await feed(all[0]!.sequence, 1)).toEqual([all[1]]);
    await reopen();
    expect(await feed(0)).toEqual(all);
    await catalog.merge([templateEntry("b", 2)]);
    const later = await feed(all[2]!.sequence);
    expect(later.map(({ what }) => what)).toEqual(["b 2"]);
  });

  it("tells subscribers in order after the write, and not after they left", async () => {
    const seen: string[] = [];
    const leave = catalog.subscribe((entry) => {
      seen.push(`${entry.id} ${entry.version}`);
      expect(catalog.get(entry.owner, entry.kind, entry.id)?.version).toBe(entry.version);
    });
    catalog.subscribe(() => {
      throw new Error("a bad listener");
    });
    await catalog.merge([templateEntry("b", 1), templateEntry("a", 1)]);
    await catalog.merge([templateEntry("b", 2)]);
    leave();
    await catalog.merge([templateEntry("b", 3)]);
    expect(seen).toEqual(["b 1", "a 1", "b 2"]);
  });

  it("is not changed by a caller that changes what it handed in", async () => {
    const entry = templateEntry("tpl-1", 1);
    const extra = { deep: ["kept"] };
    const value = { ...entry.value!, extra };
    const merging = catalog.merge([{ ...entry, value }]);
    extra.deep.push("late");
    await merging;
    const held = catalog.get("@cluster", "template", "tpl-1");
    expect(held?.value).toMatchObject({ extra: { deep: ["kept"] } });
  });

  it("refuses a value that does not fit its schema and names that cannot be stored", async () => {
    const bad = { ...templateEntry("tpl-1", 1), value: { template_id: 7 } } as unknown as Entry;
    await expect(catalog.merge([bad])).rejects.toMatchObject({ code: "internal" });
    for (const id of ["", "a\0b", "\ud800", "x".repeat(513)]) {
      await expect(catalog.merge([templateEntry(id, 1)])).rejects.toBeInstanceOf(AppError);
    }
    for (const version of [0, -1, 1.5, Number.NaN]) {
      await expect(catalog.merge([templateEntry("tpl-1", version)])).rejects.toMatchObject({
        code: "invalid_request",
      });
    }
    expect(catalog.stats().entries).toBe(0);
  });

  it("walks local tables by prefix, cursor, limit and direction", async () => {
    const table = catalog.table("job-log");
    for (const key of ["a/1", "a/2", "a/3", "b/1"]) await table.put(key, { key });
    await catalog.table("setting").put("a/9", 1);
    const keys = async (options?: Parameters<typeof table.range>[0]) => {
      const found: string[] = [];
      for await (const [key] of table.range(options)) found.push(key);
      return found;
    };
    expect(await keys()).toEqual(["a/1", "a/2", "a/3", "b/1"]);
    expect(await keys({ prefix: "a/" })).toEqual(["a/1", "a/2", "a/3"]);
    expect(await keys({ prefix: "a/", after: "a/1", limit: 1 })).toEqual(["a/2"]);
    expect(await keys({ prefix: "a/", reverse: true, limit: 2 })).toEqual(["a/3", "a/2"]);
    expect(await keys({ prefix: "a/", reverse: true, after: "a/3" })).toEqual(["a/2", "a/1"]);
    expect(await keys({ prefix: "b/", after: "a/2" })).toEqual(["b/1"]);
    expect(await keys({ limit: 0 })).toEqual([]);
    await table.delete("a/2");
    await reopen();
    expect(await catalog.table("job-log").get("a/2")).toBeUndefined();
    expect(await catalog.table("job-log").get("a/3")).toEqual({ key: "a/3" });
  });

  it("writes local rows with the entries they belong to", async () => {
    await catalog.merge([templateEntry("tpl-1", 1)], {
      local: [{ table: "sandbox", key: "sb-1", value: { pid: 1 } }],
    });
    await catalog.merge([], { local: [{ table: "sandbox", key: "sb-1" }] });
    expect(await catalog.table("sandbox").get("sb-1")).toBeUndefined();
  });

  it("groups merges that are made at once into few batches", async () => {
    const before = catalog.stats().batches;
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => catalog.merge([progressEntry(`job-${i}`, 1)])),
    );
    expect(catalog.stats().batches - before).toBeLessThanOrEqual(2);
    expect(catalog.stats()).toMatchObject({ entries: 200, writes: 200 });
  });

  it("finishes what was submitted when it is closed, and refuses what comes later", async () => {
    const merging = catalog.merge([templateEntry("tpl-1", 1)]);
    const closing = catalog.close();
    await expect(merging).resolves.toHaveLength(1);
    await closing;
    await catalog.close();
    await expect(catalog.merge([templateEntry("tpl-2", 1)])).rejects.toMatchObject({
      code: "catalog_unavailable",
    });
    await expect(catalog.table("setting").get("x")).rejects.toMatchObject({
      code: "catalog_unavailable",
    });
    expect(catalog.health().writable).toBe(false);
  });
});
