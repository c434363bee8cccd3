import { describe, expect, test } from "vitest";
import {
  STORAGE_TTL_SECONDS,
  assertGrowable,
  assertWritable,
  needsRefresh,
  storageFrom,
  storageMode,
  unknownStorage,
  usagePercent,
  type NodeStorage,
} from "../../../src/domain/index.ts";

const NOW = 1_000_000;
const at = (usedOf100: number): NodeStorage =>
  storageFrom({ total_bytes: 100, used_bytes: usedOf100, volume_count: 1, snapshot_count: 1 }, NOW);
const refused = (work: () => void): unknown => {
  try {
    work();
    return undefined;
  } catch (error) {
    return error;
  }
};

describe("row 110: the status from what was measured", () => {
  test("given 250 of 1000 then 25 %; 1500 of 1000 then 100 %; of nothing 0 %", () => {
    expect(usagePercent(250, 1_000)).toBe(25);
    expect(usagePercent(1_500, 1_000)).toBe(100);
    expect(usagePercent(5, 0)).toBe(0);
  });
  test.each(["total_bytes", "used_bytes", "volume_count", "snapshot_count"])(
    "given %s is missing, then an error that names it",
    (name) => {
      const all = { total_bytes: 10, used_bytes: 5, volume_count: 1, snapshot_count: 1 };
      expect(() => storageFrom({ ...all, [name]: undefined }, NOW)).toThrow(name);
      expect(storageFrom(all, NOW)).toMatchObject({ usage_pct: 50, free_bytes: 5 });
    },
  );
});

describe("row 111: modes and what they let through", () => {
  test("each begins at its threshold", () => {
    expect([69, 70, 72, 84, 85, 86, 94, 95, 96].map((pct) => storageMode(pct))).toEqual([
      "healthy",
      ...["warn", "warn", "warn"],
      ...["reject", "reject", "reject"],
      ...["delete_only", "delete_only"],
    ]);
    expect(storageMode(50, { warn: 10, reject: 40, deleteOnly: 60 })).toBe("reject");
  });
  test("given 72, 86 and 96 %, then snapshots are taken at the first only", () => {
    expect(refused(() => assertWritable("a", at(72)))).toBeUndefined();
    for (const [pct, mode] of [
      [86, "reject"],
      [96, "delete_only"],
    ] as const) {
      const error = refused(() => assertWritable("a", at(pct)));
      expect(error).toMatchObject({
        code: "storage_not_writable",
        meta: { node_id: "a", storage_mode: mode },
      });
      expect(String(error)).toMatch(new RegExp(`node a .* ${mode} \\(${pct} % full\\)`));
    }
  });
  test("a disk that can't be looked at takes no snapshot, and the error says why", () => {
    const error = refused(() => assertWritable("a", unknownStorage("io error", NOW, at(10))));
    expect(String(error)).toMatch(/unknown \(io error\)/);
    expect(refused(() => assertWritable("a", undefined))).toMatchObject({
      code: "storage_not_writable",
    });
  });
  test("builds and downloads are refused only where nothing but deletions is taken", () => {
    expect(refused(() => assertGrowable("a", at(86)))).toBeUndefined();
    expect(refused(() => assertGrowable("a", unknownStorage("x", NOW)))).toBeUndefined();
    expect(refused(() => assertGrowable("a", at(96)))).toMatchObject({
      code: "storage_not_writable",
    });
  });
});

test("row 112: what is old or unknown is asked for again", () => {
  expect(needsRefresh(at(10), NOW + STORAGE_TTL_SECONDS)).toBe(false);
  expect(needsRefresh(at(10), NOW + STORAGE_TTL_SECONDS + 1)).toBe(true);
  expect(needsRefresh(unknownStorage("x", NOW), NOW)).toBe(true);
  expect(needsRefresh(undefined, NOW)).toBe(true);
});
