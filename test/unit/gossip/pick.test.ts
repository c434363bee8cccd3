import { expect, test } from "vitest";
import { seededRandom } from "../../../src/domain/index.ts";
import { pickOne } from "../../../src/gossip/pick.ts";

const next = seededRandom(1);
const random = {
  bytes: (length: number) => Uint8Array.from({ length }, () => Math.floor(next() * 256)),
  uuid: () => "",
};

test.each([1, 5, 256, 257, 1_000])("each of %i peers is picked by chance", (count) => {
  const peers = Array.from({ length: count }, (_, index) => index);
  const picked = new Set(Array.from({ length: count * 20 }, () => pickOne(random, peers)));
  expect(picked.size).toBe(count);
});

test("there is nobody to pick in an empty cluster", () => {
  expect(pickOne(random, [])).toBeUndefined();
});
