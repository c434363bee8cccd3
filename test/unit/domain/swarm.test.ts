import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  Bitfield,
  FreshPool,
  backOffMs,
  LackingChunks,
  pickRarest,
  requestChunks,
  seededRandom,
  windowChunks,
} from "../../../src/domain/index.ts";

describe("a bitfield", () => {
  it("is the set of the indexes put in and not taken out, and says how many", () => {
    const step = fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 36 }));
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const field = new Bitfield(37);
        const set = new Set<number>();
        for (const [put, index] of steps) {
          expect(put ? field.set(index) : field.clear(index)).toBe(put !== set.has(index));
          if (put) set.add(index);
          else set.delete(index);
        }
        const copy = new Bitfield(37, field.bytes);
        for (const one of [field, copy]) {
          expect(one.count).toBe(set.size);
          for (let i = 0; i < 37; i++) expect(one.has(i)).toBe(set.has(i));
        }
      }),
    );
  });

  it("takes no bits outside of its length, wherever they come from", () => {
    const field = new Bitfield(10, new Uint8Array([0xff, 0xff]));
    expect([field.count, field.isFull, field.set(10), field.set(-1)]).toEqual([
      10,
      true,
      false,
      false,
    ]);
    expect(() => new Bitfield(10, new Uint8Array(1))).toThrow(RangeError);
  });
});

describe("choosing chunks", () => {
  it("takes the rarest that are wanted, and different ones for another seed", () => {
    const choose = (seed: number) =>
      pickRarest({
        lacking: new LackingChunks(new Bitfield(200)),
        limit: 10,
        isWanted: (index) => index % 2 === 0,
        availability: (index) => (index >= 100 ? 1 : 2),
        random: seededRandom(seed),
      });
    for (const index of choose(1)) expect(index % 2 === 0 && index >= 100).toBe(true);
    expect(choose(1)).toEqual(choose(1));
    expect(new Set([...choose(1), ...choose(2)]).size).toBeGreaterThan(10);
    expect(choose(3)).toHaveLength(10);
  });

  it("takes each of the lacking chunks, none that came meanwhile, in the order of rarity", () => {
    const have = new Bitfield(50);
    have.set(7);
    const lacking = new LackingChunks(have);
    for (const index of [49, 0, 20, 20, 7]) lacking.delete(index);
    const chosen = pickRarest({
      lacking,
      limit: 100,
      isWanted: () => true,
      availability: (index) => index,
      random: seededRandom(5),
    });
    const gone = new Set([0, 7, 20, 49]);
    expect(chosen).toEqual(Array.from({ length: 50 }, (_, i) => i).filter((i) => !gone.has(i)));
    expect(lacking.size).toBe(46);
  });

  it("hands out each fresh chunk once, and no hole or excluded one", () => {
    const holes = new Bitfield(100);
    for (let i = 0; i < 10; i++) holes.set(i);
    const exclude = new Bitfield(100);
    exclude.set(50);
    const pool = new FreshPool(holes, seededRandom(1));
    const given: number[] = [];
    for (let some = pool.take(7, exclude); some.length > 0; some = pool.take(7, exclude)) {
      given.push(...some);
    }
    expect(given.sort((a, b) => a - b)).toEqual(
      Array.from({ length: 90 }, (_, i) => i + 10).filter((index) => index !== 50),
    );
    expect(pool.take(5, new Bitfield(100))).toEqual([50]);
    expect(pool.size).toBe(0);
  });
});

describe("how much is asked for at once", () => {
  it("is half a second of what a peer delivers, within bounds", () => {
    expect(windowChunks(undefined, 65_536)).toBe(4);
    expect(windowChunks(0, 65_536)).toBe(2);
    expect(windowChunks(8 * 2 ** 20, 65_536)).toBe(64);
    expect(windowChunks(2 ** 40, 65_536)).toBe(256);
    expect([2, 9, 64, 256].map(requestChunks)).toEqual([1, 3, 16, 16]);
  });

  it("waits longer after each failure, to a bound", () => {
    expect([1, 2, 3, 20, 2_000].map((n) => backOffMs(n, () => 1))).toEqual([
      500, 1_000, 2_000, 30_000, 30_000,
    ]);
    expect(backOffMs(1, () => 0)).toBe(250);
  });
});
