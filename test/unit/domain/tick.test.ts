import { expect, test } from "vitest";
import { untilTick } from "../../../src/domain/index.ts";

test.each([
  { now: 0, ms: 1_000, expected: 1_000 },
  { now: 7_300, ms: 5_000, expected: 4_700 },
  { now: 7_600, ms: 5_000, expected: 5_400 },
  // A timer that fires a fraction of a millisecond early does not run twice for one tick.
  { now: 7_999.6, ms: 1_000, expected: 1_001 },
  { now: 8_000.4, ms: 1_000, expected: 1_000 },
])("$ms ms after $now is the tick in $expected ms", ({ now, ms, expected }) => {
  expect(untilTick({ monotonic: () => now }, ms)).toBe(expected);
});
