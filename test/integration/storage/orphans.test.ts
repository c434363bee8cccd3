import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createOrphans, type Place } from "../../../src/daemon/disk/orphans.ts";
import { manualClock, recordedLog, withFolder } from "../../support/storage.ts";

const HOUR_MS = 3_600_000;

async function setUp(dataDir: string) {
  for (const folder of ["artifacts/partial/old", "artifacts/partial/open", "templates", "work"]) {
    await mkdir(join(dataDir, folder), { recursive: true });
  }
  await writeFile(join(dataDir, "artifacts/partial/old/rootfs.ext4"), Buffer.alloc(20_000, 1));
  await writeFile(join(dataDir, "templates/stray"), "x");
  // The age counts from the last change of the inode, which nobody can set back.
  await utimes(join(dataDir, "templates/stray"), 1, 1);
  const clock = manualClock(Date.now());
  const known = new Set(["open"]);
  const isKnown = (name: string) => known.has(name);
  const places: Place[] = [
    { folder: "artifacts/partial", isKnown },
    { folder: "templates", isKnown },
    { folder: "snapshots", isKnown },
  ];
  const swept: string[] = [];
  const orphans = createOrphans({
    nodeId: "a",
    dataDir,
    workDir: join(dataDir, "work"),
    places,
    graceMs: HOUR_MS,
    clock,
    log: recordedLog(),
    onSwept: (folder) => swept.push(folder),
  });
  return { clock, known, orphans, swept };
}

it("what nothing knows is told of, kept for its grace, then removed", async () => {
  await withFolder(async (dataDir) => {
    const { clock, orphans, swept } = await setUp(dataDir);
    const found = await orphans.find();
    expect(found.map(({ folder, name }) => `${folder}/${name}`)).toEqual([
      "artifacts/partial/old",
      "templates/stray",
    ]);
    const [partial] = found;
    expect(partial?.bytes).toBeGreaterThanOrEqual(20_000);
    expect(Date.parse(partial?.due_at ?? "")).toBeGreaterThan(clock.time + HOUR_MS - 60_000);
    expect((await orphans.sweep()).every(({ removed }) => !removed)).toBe(true);
    expect(orphans.latest()).toHaveLength(2);

    clock.time += HOUR_MS + 1_000;
    expect((await orphans.sweep()).every(({ removed }) => removed)).toBe(true);
    expect(swept).toEqual(["artifacts/partial", "templates"]);
    expect(await readdir(join(dataDir, "artifacts/partial"))).toEqual(["open"]);
    expect(await readdir(join(dataDir, "templates"))).toEqual([]);
    expect(await readdir(join(dataDir, "work/swept"))).toEqual([]);
    expect(orphans.latest()).toEqual([]);
  });
});

it("what changes or becomes known in the meantime stays", async () => {
  await withFolder(async (dataDir) => {
    const { clock, known, orphans } = await setUp(dataDir);
    await orphans.find();
    known.add("stray");
    clock.time = Date.now() + HOUR_MS;
    // The kernel's times of files lag by up to a tick of its own.
    await new Promise((resolve) => setTimeout(resolve, 50));
    await writeFile(join(dataDir, "artifacts/partial/old/have.bin"), "1");
    expect((await orphans.sweep()).map(({ name, removed }) => [name, removed])).toEqual([
      ["old", false],
    ]);
    expect(await readdir(join(dataDir, "templates"))).toEqual(["stray"]);
  });
});

it("under disk pressure the grace is ten minutes", async () => {
  await withFolder(async (dataDir) => {
    const { clock, orphans } = await setUp(dataDir);
    clock.time += 5 * 60_000;
    expect((await orphans.sweep({ urgent: true })).filter(({ removed }) => removed)).toEqual([]);
    clock.time += 6 * 60_000;
    expect((await orphans.sweep({ urgent: true })).every(({ removed }) => removed)).toBe(true);
  });
});

it("a sandbox's snapshot has its whole grace from the first look on, disk pressure or not", async () => {
  await withFolder(async (dataDir) => {
    for (const name of ["snap-1", "snap-2"])
      await mkdir(join(dataDir, "templates", name), { recursive: true });
    // Made long ago: only its row was lost.
    const clock = { ...manualClock(Date.now() + 100 * HOUR_MS), passed: 0 };
    const known = new Set<string>();
    const place: Place = {
      folder: "templates",
      isKnown: (name) => known.has(name),
      isOnlyCopy: (name) => name.startsWith("snap-"),
    };
    const orphans = createOrphans({
      nodeId: "a",
      dataDir,
      workDir: join(dataDir, "work"),
      places: [place],
      graceMs: HOUR_MS,
      clock: { now: () => clock.time + clock.passed, monotonic: () => clock.passed },
      log: recordedLog(),
    });
    const removed = async (urgent: boolean) =>
      (await orphans.sweep({ urgent })).filter((one) => one.removed).map(({ name }) => name);
    const [first] = await orphans.find();
    expect(Date.parse(first?.due_at ?? "")).toBe(clock.time + HOUR_MS);
    clock.passed = HOUR_MS - 1;
    expect(await removed(true)).toEqual([]);
    // Its record is heard of, and lost again: its grace begins anew.
    known.add("snap-2");
    await orphans.find();
    known.clear();
    // Whatever the wall clock is set to.
    clock.time += 1_000 * HOUR_MS;
    expect(await removed(true)).toEqual([]);
    clock.passed = HOUR_MS;
    expect(await removed(false)).toEqual(["snap-1"]);
    clock.passed = 2 * HOUR_MS;
    expect(await removed(false)).toEqual(["snap-2"]);
  });
});
