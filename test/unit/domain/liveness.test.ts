import { expect, test } from "vitest";
import { overrides, suspicionMs } from "../../../src/domain/index.ts";

test("a higher incarnation wins, and of equal ones the worse state", () => {
  const suspect = { state: "suspect", incarnation: 3 } as const;
  expect(overrides({ state: "alive", incarnation: 3 }, suspect)).toBe(false);
  expect(overrides({ state: "alive", incarnation: 4 }, suspect)).toBe(true);
  expect(overrides({ state: "dead", incarnation: 3 }, suspect)).toBe(true);
  expect(overrides({ state: "dead", incarnation: 2 }, suspect)).toBe(false);
});

test("a suspicion lasts 3 to 10 s, and less the more confirm it", () => {
  expect(suspicionMs(4, 1_000, 0)).toBe(3_000);
  expect(suspicionMs(10_000, 1_000, 0)).toBe(10_000);
  expect(suspicionMs(10_000, 1_000, 1)).toBeCloseTo(6_500);
  expect(suspicionMs(10_000, 1_000, 3)).toBe(3_000);
});
