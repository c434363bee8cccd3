import { describe, expect, test } from "vitest";
import {
  AppError,
  STORAGE_THRESHOLDS,
  STORAGE_TTL_SECONDS,
  storageFrom,
  unknownStorage,
  type NodeFact,
  type NodeStorage,
} from "../../../src/domain/index.ts";
import type { DiskMeter } from "../../../src/daemon/disk/meter.ts";
import { createSpace, snapshotBytes } from "../../../src/daemon/disk/space.ts";
import { createStorageView } from "../../../src/daemon/disk/view.ts";
import { silentLog } from "../../support/ui-site.ts";

const NOW = 1_000_000;
const MIB = 1024 ** 2;
const disk = (used_bytes: number, total_bytes: number, seconds = NOW): NodeStorage =>
  storageFrom({ total_bytes, used_bytes, volume_count: 0, snapshot_count: 0 }, seconds);

describe("row 112: the storage of all nodes", () => {
  const view = (facts: Record<string, NodeStorage>, answers: Record<string, NodeStorage>) => {
    const asked: string[] = [];
    const clock = { seconds: NOW };
    const made = createStorageView({
      nodes: {
        all: () =>
          Object.entries(facts).map(
            ([node_id, storage]) => ({ node_id, node_ip: "", healthy: true, storage }) as NodeFact,
          ),
      },
      asks: {
        async measure(nodeId) {
          asked.push(nodeId);
          const answer = answers[nodeId];
          if (answer === undefined) throw new AppError("peer_unreachable", "no answer");
          return { ...answer, last_updated_at: clock.seconds };
        },
      },
      clock: { now: () => clock.seconds * 1_000 },
    });
    return { ...made, asked, clock };
  };

  test("given unknown inside its time, then asked once; healthy inside its time, then not", async () => {
    const facts = { b: disk(10, 100), a: unknownStorage("io error", NOW) };
    const one = view(facts, { a: disk(20, 100), b: disk(90, 100) });
    expect(one.list().items.map(({ node_id, mode }) => [node_id, mode])).toEqual([
      ["a", "unknown"],
      ["b", "healthy"],
    ]);
    const [a, b] = (await one.refresh({ force: false })).items;
    expect(one.asked).toEqual(["a"]);
    expect(a).toMatchObject({ mode: "healthy", usage_pct: 20, writable: true });
    expect(b).toMatchObject({ usage_pct: 10 });
    await one.refresh({ force: false });
    expect(one.asked).toEqual(["a"]);
    one.clock.seconds += STORAGE_TTL_SECONDS + 1;
    const later = await one.refresh({ force: false });
    expect(one.asked.sort()).toEqual(["a", "a", "b"]);
    expect(later.items[1]).toMatchObject({ mode: "reject", writable: false });
  });

  test("refresh asks all; data and the first error come together; a silent node is unknown", async () => {
    const one = view({ a: disk(10, 100), b: disk(10, 100) }, { a: disk(30, 100) });
    const { items, error } = await one.refresh({ force: true });
    expect(one.asked).toEqual(["a", "b"]);
    expect(items.map(({ mode }) => mode)).toEqual(["healthy", "unknown"]);
    expect(items[1]).toMatchObject({ usage_pct: 10, last_error: "no answer", writable: false });
    expect(error).toBe("b: no answer");
    // Unknown from now on: tried again although it was heard of a moment ago.
    await one.refresh({ force: false });
    expect(one.asked).toEqual(["a", "b", "b"]);
  });

  test("two that ask at once share one answer, and a newer fact wins over it", async () => {
    const facts: Record<string, NodeStorage> = { a: unknownStorage("x", NOW) };
    const one = view(facts, { a: disk(30, 100) });
    await Promise.all([one.refresh({ force: true }), one.refresh({ force: true })]);
    expect(one.asked).toEqual(["a"]);
    facts["a"] = disk(50, 100, NOW + 1);
    expect(one.list().items[0]).toMatchObject({ usage_pct: 50 });
  });
});

describe("room for big writes", () => {
  const GIB = 1024 ** 3;
  const spaceOf = (first: NodeStorage) => {
    const state = { storage: first };
    const meter: DiskMeter = {
      thresholds: STORAGE_THRESHOLDS,
      latest: () => state.storage,
      measure: async () => state.storage,
    };
    const refused: string[] = [];
    const onRefused = (what: string) => refused.push(what);
    const space = createSpace({ nodeId: "a", meter, log: silentLog, onRefused });
    return { space, state, refused };
  };
  const LOW = { code: "disk_space_low" };

  test("what one holds the next can't have, until it is written or released", async () => {
    const { space, state, refused } = spaceOf(disk(0, GIB));
    const room = await space.hold(600 * MIB, "build");
    await expect(space.hold(600 * MIB, "fetch")).rejects.toMatchObject(LOW);
    expect(refused).toEqual(["fetch"]);
    (await space.hold(300 * MIB, "fetch")).release();
    // Written bytes are seen as no longer free; they count once.
    room.wrote(500 * MIB);
    state.storage = disk(500 * MIB, GIB);
    const second = await space.hold(400 * MIB, "fetch");
    second.release();
    second.release();
    room.release();
    await expect(space.hold(500 * MIB, "fetch")).resolves.toBeDefined();
  });

  test("a little stays free, and the error has what is needed and what is there", async () => {
    const { space } = spaceOf(disk(0, 100 * MIB));
    await expect(space.hold(100 * MIB, "build")).rejects.toMatchObject({
      ...LOW,
      meta: { needed: 100 * MIB, available: 99 * MIB },
    });
  });

  test("room is made first where it is short", async () => {
    const { space, state } = spaceOf(disk(80 * MIB, 100 * MIB));
    const asked: number[] = [];
    space.onShort(async (bytes) => {
      asked.push(bytes);
      state.storage = disk(40 * MIB, 100 * MIB);
    });
    await expect(space.hold(50 * MIB, "build")).resolves.toBeDefined();
    expect(asked).toEqual([31 * MIB]);
  });

  test("delete_only takes nothing, unless making room brings it below reject", async () => {
    const { space, state } = spaceOf(disk(96, 100));
    await expect(space.hold(1, "fetch")).rejects.toMatchObject({ code: "storage_not_writable" });
    space.onShort(async (bytes) => {
      expect(bytes).toBe(11);
      state.storage = disk(80, 100);
    });
    await expect(space.hold(1, "fetch")).resolves.toBeDefined();
  });

  test("row 54: where free space can't be told, builds go on and snapshots do not", async () => {
    const { space } = spaceOf(unknownStorage("io error", NOW));
    await expect(space.hold(GIB, "build")).resolves.toBeDefined();
    await expect(space.assertWritable()).rejects.toMatchObject({ code: "storage_not_writable" });
  });

  test("a guest's snapshot needs room for all of its memory", () => {
    expect(snapshotBytes({ memoryMib: 256 })).toBeGreaterThan(256 * MIB);
  });
});
