import { join } from "node:path";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { openCatalog } from "../../../src/storage/index.ts";
import { levelDatabase } from "../../../src/storage/database.ts";
import { SPACES, spaceRange } from "../../../src/storage/spaces.ts";
import { realClock, recordedLog, templateEntry, withFolder } from "../../support/storage.ts";
import { startTypeScript } from "../../support/ts-process.ts";

const open = (dir: string) => openCatalog({ dir, log: recordedLog(), clock: realClock });

/** Lets the writer run until it has acknowledged `lines` writes, and kills it. */
async function writeUntilKilled(dir: string, from: number, lines: number): Promise<string[]> {
  const child = startTypeScript("integration/storage/catalog-writer.ts", [dir, String(from)]);
  let text = "";
  let errors = "";
  child.stderr?.on("data", (data: Buffer) => (errors += data.toString()));
  child.stdout?.on("data", (data: Buffer) => {
    text += data.toString();
    if (text.split("\n").length > lines) child.kill("SIGKILL");
  });
  const [, signal] = (await once(child, "close")) as [number | null, string | null];
  if (signal !== "SIGKILL") throw new Error(`the writer ended by itself: ${errors}`);
  return text.split("\n").slice(1, -1);
}

async function countRows(dir: string, space: "01" | "02"): Promise<number> {
  const database = await levelDatabase(dir);
  await database.open();
  let count = 0;
  for await (const page of database.pages(spaceRange(space))) count += page.length;
  await database.close();
  return count;
}

describe("the catalog after kill -9", () => {
  it("has every acknowledged write, and rows that agree, at ten moments", async () => {
    await withFolder(async (parent) => {
      const dir = join(parent, "catalog");
      const newest = new Map<string, number>();
      const keys = new Set<string>();
      let from = 0;
      for (let turn = 0; turn < 10; turn++) {
        const lines = 1 + Math.floor(Math.random() * 400);
        for (const line of await writeUntilKilled(dir, from, lines)) {
          const [id = "", version = "", key = ""] = line.split(" ");
          newest.set(id, Math.max(newest.get(id) ?? 0, Number(version)));
          keys.add(key);
          from = Math.max(from, Number(version));
        }
        // Before anything mends them: index rows and rows came in the same batches.
        expect(await countRows(dir, SPACES.change)).toBe(await countRows(dir, SPACES.entry));
        const catalog = await open(dir);
        for (const [id, version] of newest) {
          const held = catalog.get("@cluster", "template", id)?.version ?? 0;
          expect(held, `${id} in turn ${turn}`).toBeGreaterThanOrEqual(version);
          from = Math.max(from, held);
        }
        const stored = new Set<string>();
        for await (const [key] of catalog.table("job-log").range()) stored.add(key);
        expect([...keys].filter((key) => !stored.has(key))).toEqual([]);
        const changes = await catalog.changes(0, 10_000);
        expect(changes).toHaveLength(catalog.stats().entries);
        expect(catalog.stats().quarantined).toBe(0);
        await catalog.close();
      }
      expect(keys.size).toBeGreaterThan(10);
    });
  }, 120_000);

  it("says which process holds the lock, and opens when that one is gone", async () => {
    await withFolder(async (parent) => {
      const dir = join(parent, "catalog");
      const child = startTypeScript("integration/storage/catalog-writer.ts", [dir]);
      await once(child.stdout!, "data");
      const error: unknown = await open(dir).catch((reason: unknown) => reason);
      child.kill("SIGKILL");
      await once(child, "close");
      expect(error).toMatchObject({ code: "catalog_locked", meta: { holder: { pid: child.pid } } });
      expect((error as Error).message).toContain("catalog-writer.ts");
      await (await open(dir)).close();
    });
  });

  it("keeps its own lock when it is opened twice in one process", async () => {
    await withFolder(async (parent) => {
      const dir = join(parent, "catalog");
      const catalog = await open(dir);
      await expect(open(dir)).rejects.toMatchObject({ code: "catalog_locked" });
      const child = startTypeScript("integration/storage/catalog-writer.ts", [dir]);
      let errors = "";
      child.stderr?.on("data", (data: Buffer) => (errors += data.toString()));
      expect((await once(child, "close"))[0]).toBe(1);
      expect(errors).toContain(`held by process ${process.pid}`);
      await catalog.merge([templateEntry("tpl-1", 1)]);
      await catalog.close();
    });
  });
});
