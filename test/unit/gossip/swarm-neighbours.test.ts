import { describe, expect, it } from "vitest";
import { Bitfield, LackingChunks, type Clock } from "../../../src/domain/index.ts";
import type { Holders } from "../../../src/gossip/swarm/holders.ts";
import { Neighbours } from "../../../src/gossip/swarm/neighbours.ts";

const CHUNKS = 8;
const clock = { monotonic: () => 1_000 } as Clock;

function withHolders(names: readonly string[], up: (nodeId: string) => boolean = () => true) {
  const candidates = () =>
    names.map((nodeId) => ({ nodeId, peerId: `peer-${nodeId}`, complete: false }));
  return new Neighbours({ candidates, isUp: up } as unknown as Holders, clock, CHUNKS);
}

const missingAll = () => new LackingChunks(new Bitfield(CHUNKS));
const tell = (neighbours: Neighbours, nodeId: string, have: number[]) => {
  const bits = new Bitfield(CHUNKS);
  for (const index of have) bits.set(index);
  const part = { complete: false, log: nodeId, cursor: 0 };
  neighbours.get(nodeId)?.learn(part, CHUNKS, bits.bytes);
};

describe("the neighbours of a fetch", () => {
  it("are sixteen at most; one that has nothing of what lacks makes room for another", () => {
    const names = Array.from({ length: 20 }, (_, index) => `n${index}`);
    const neighbours = withHolders(names);
    neighbours.meet(missingAll());
    expect([...neighbours]).toHaveLength(16);
    // Nobody has told yet what it has: all stay.
    neighbours.meet(missingAll());
    expect(neighbours.get("n16")).toBeUndefined();
    for (const { nodeId } of neighbours) tell(neighbours, nodeId, nodeId === "n3" ? [] : [1]);
    neighbours.meet(missingAll());
    expect([...neighbours]).toHaveLength(16);
    expect(neighbours.get("n3")).toBeUndefined();
    expect(neighbours.get("n16")).toBeDefined();
  });

  it("have what lacks only when one that is up has told so", () => {
    let up = true;
    const neighbours = withHolders(["a"], () => up);
    const missing = missingAll();
    neighbours.meet(missing);
    expect(neighbours.isAnyWithin(missing)).toBe(false);
    tell(neighbours, "a", [2]);
    expect(neighbours.isAnyWithin(missing)).toBe(true);
    up = false;
    expect(neighbours.isAnyWithin(missing)).toBe(false);
    up = true;
    missing.delete(2);
    expect(neighbours.isAnyWithin(missing)).toBe(false);
  });
});
