import { describe, expect, it } from "vitest";
import { openCatalog } from "../../../src/storage/index.ts";
import { defineCodec } from "../../../src/storage/codec.ts";
import {
  manualClock,
  memoryDatabase,
  progressEntry,
  recordedLog,
  templateEntry,
  waitFor,
} from "../../support/storage.ts";

function openOver(database = memoryDatabase(), log = recordedLog(), clock = manualClock()) {
  return openCatalog({ dir: "unused", log, clock, openDatabase: async () => database });
}

describe("record codec", () => {
  const codec = defineCodec(
    "thing",
    (value) => {
      const thing = value as { name?: unknown };
      if (typeof thing.name !== "string") throw new TypeError("no name");
      return { name: thing.name };
    },
    [(v1) => ({ title: v1 }), (v2) => ({ name: (v2 as { title: string }).title })],
  );

  it("reads every older version through the chain of migrations", () => {
    expect(codec.encode({ name: "a" })).toBe('3:{"name":"a"}');
    for (const text of ['1:"a"', '2:{"title":"a"}', '3:{"name":"a"}']) {
      expect(codec.decode(text)).toEqual({ name: "a" });
    }
  });

  it("refuses what is newer, torn or of another shape", () => {
    expect(() => codec.decode('4:{"name":"a"}')).toThrow(/newest known/);
    for (const text of ["", "x", '0:"a"', '3:{"name":7}', '3:{"na', '{"name":"a"}']) {
      expect(() => codec.decode(text), text).toThrow(/does not read back/);
    }
    expect(() => codec.encode({ name: 7 } as never)).toThrow(/does not fit/);
  });
});

describe("catalog", () => {
  it("refuses a catalog that a newer version wrote", async () => {
    const database = memoryDatabase();
    await database.batch([{ type: "put", key: "00!schema", value: "1:2" }], { sync: true });
    await expect(openOver(database)).rejects.toMatchObject({ code: "catalog_too_new" });
  });

  it("sets aside rows that do not read, keeps their bytes, and opens", async () => {
    const database = memoryDatabase();
    const first = await openOver(database);
    await first.merge([templateEntry("good", 1), templateEntry("bad", 1)]);
    await first.table("setting").put("broken", 1);
    const key = "01!template\0bad\0@cluster";
    const put = (at: string, value: string) => ({ type: "put", key: at, value }) as const;
    await database.batch([put(key, "1:{torn"), put("15!broken", "?")], { sync: true });

    const log = recordedLog();
    const catalog = await openOver(database, log);
    expect(catalog.get("@cluster", "template", "good")).toBeDefined();
    expect(catalog.get("@cluster", "template", "bad")).toBeUndefined();
    expect(await catalog.table("setting").get("broken")).toBeUndefined();
    expect(catalog.stats().quarantined).toBe(2);
    expect(log.lines).toHaveLength(2);
    expect((await catalog.changes(0, 10)).map(({ entry }) => entry.id)).toEqual(["good"]);
    const aside = await database.get(`03!${String(1_700_000_000_000).padStart(16, "0")}\0${key}`);
    expect(aside).toContain(Buffer.from("1:{torn").toString("base64"));
    // A lost entry's sequence is not given to another change.
    await catalog.merge([templateEntry("new", 1)]);
    expect((await catalog.changes(2, 10)).map(({ entry }) => entry.id)).toEqual(["new"]);
    expect((await openOver(database)).stats().quarantined).toBe(2);
  });

  it("makes the change feed again when its rows do not agree with the entries", async () => {
    const database = memoryDatabase();
    await (await openOver(database)).merge([templateEntry("a", 1), templateEntry("b", 1)]);
    const keys: string[] = [];
    for await (const page of database.pages({ gte: "02!", lt: "02~" })) {
      keys.push(...page.map(([key]) => key));
    }
    await database.batch(
      [
        { type: "del", key: keys[0]! },
        { type: "put", key: "02!0000000000000900", value: '1:["template","z","@cluster"]' },
      ],
      { sync: true },
    );
    const catalog = await openOver(database);
    expect((await catalog.changes(0, 10)).map(({ entry }) => entry.id)).toEqual(["a", "b"]);
  });

  it("loses at a crash only what was written without a flush", async () => {
    const database = memoryDatabase();
    const catalog = await openOver(database);
    await catalog.merge([templateEntry("kept", 1)]);
    await catalog.merge([progressEntry("flushed", 1)], { sync: false });
    // The same again, now wanted on the disk: there is nothing new to write but the flush.
    await catalog.merge([progressEntry("flushed", 1)]);
    await catalog.merge([progressEntry("lost", 1)], { sync: false });
    const last = catalog.stats().sequence;
    await database.crash();
    const again = await openOver(database);
    expect(again.get("@cluster", "template", "kept")).toBeDefined();
    expect(again.get("a", "job-progress", "flushed")).toBeDefined();
    expect(again.get("a", "job-progress", "lost")).toBeUndefined();
    await again.merge([templateEntry("next", 1)]);
    expect(again.stats().sequence).toBeGreaterThan(last);
  });

  it("retries with growing pauses, and brings disk and memory together again", async () => {
    const [database, log, clock] = [memoryDatabase(), recordedLog(), manualClock()];
    const catalog = await openOver(database, log, clock);
    await catalog.merge([templateEntry("a", 1)]);
    await catalog.merge([progressEntry("unflushed", 1)], { sync: false });
    database.fail = new Error("no space");
    const failed = catalog.merge([templateEntry("b", 1)]);
    await expect(failed).rejects.toMatchObject({ code: "catalog_degraded" });
    const pauses: number[] = [];
    for (let i = 0; i < 8; i++) {
      pauses.push(clock.fire());
      await waitFor(() => clock.timers.length === 1);
    }
    expect(pauses).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    // The disk lost what was not flushed, and one more write came through than was acknowledged.
    database.fail = undefined;
    await database.crash();
    await database.open();
    const row = (await database.get("01!template\0a\0@cluster"))!;
    const newer = row.replace('"version":1', '"version":2');
    await database.batch([{ type: "put", key: "01!template\0a\0@cluster", value: newer }], {
      sync: true,
    });
    const told: string[] = [];
    catalog.subscribe(({ id, version }) => told.push(`${id} ${version}`));
    clock.fire();
    await waitFor(() => catalog.health().writable);
    expect(catalog.get("@cluster", "template", "a")?.version).toBe(2);
    expect(told).toEqual(["a 2"]);
    await database.crash();
    expect((await openOver(database)).get("a", "job-progress", "unflushed")?.version).toBe(1);
  });
});
