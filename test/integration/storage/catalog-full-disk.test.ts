import { execFileSync } from "node:child_process";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { CatalogHealth } from "../../../src/domain/index.ts";
import { openCatalog } from "../../../src/storage/index.ts";
import {
  realClock,
  recordedLog,
  templateEntry,
  waitFor,
  withFolder,
} from "../../support/storage.ts";

/** Takes all the room that is left. */
async function fill(path: string): Promise<void> {
  const file = await open(path, "w");
  for (const size of [1 << 16, 1 << 12, 1]) {
    const bytes = Buffer.alloc(size, 1);
    try {
      for (;;) await file.write(bytes);
    } catch (error) {
      expect(error).toMatchObject({ code: "ENOSPC" });
    }
  }
  await file.close();
}

it("goes read-only on a full disk, and writes again by itself when there is room", async () => {
  await withFolder(async (parent) => {
    const mount = join(parent, "disk");
    await mkdir(mount);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", mount]);
    try {
      const turns: CatalogHealth[] = [];
      const options = { dir: join(mount, "catalog"), log: recordedLog(), clock: realClock };
      const catalog = await openCatalog({ ...options, onChange: (health) => turns.push(health) });
      await catalog.merge([templateEntry("before", 1)]);
      await catalog.table("setting").put("x", 1);
      await fill(join(mount, "filler"));

      let acknowledged = 0;
      const writing = async () => {
        for (let version = 1; ; version++) {
          await catalog.merge([templateEntry("during", version, "x".repeat(2_000))]);
          acknowledged = version;
        }
      };
      await expect(writing()).rejects.toMatchObject({ code: "catalog_degraded" });
      expect(catalog.health().writable).toBe(false);
      expect(catalog.health().reason).toMatch(/No space left/);
      await expect(catalog.merge([templateEntry("no", 1)])).rejects.toMatchObject({
        code: "catalog_degraded",
      });
      await expect(catalog.table("setting").put("y", 1)).rejects.toMatchObject({
        code: "catalog_degraded",
      });

      // Reads go on, over at least one attempt to open it again that fails.
      await waitFor(() => options.log.lines.some(({ level }) => level === "warn"));
      expect(catalog.get("@cluster", "template", "before")?.version).toBe(1);
      expect(await catalog.table("setting").get("x")).toBe(1);
      expect((await catalog.changes(0, 10)).length).toBeGreaterThan(0);

      await rm(join(mount, "filler"));
      await waitFor(() => catalog.health().writable);
      expect(turns.map(({ writable }) => writable)).toEqual([false, true]);
      await catalog.merge([templateEntry("after", 1)]);
      const hash = catalog.stateHash();
      await catalog.close();

      const again = await openCatalog(options);
      expect(again.stateHash()).toBe(hash);
      expect(again.get("@cluster", "template", "after")?.version).toBe(1);
      const during = again.get("@cluster", "template", "during")?.version ?? 0;
      expect(during).toBeGreaterThanOrEqual(acknowledged);
      await again.close();
    } finally {
      execFileSync("umount", [mount]);
    }
  });
});
