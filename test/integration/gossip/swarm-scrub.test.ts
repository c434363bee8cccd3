import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { ScrubWorker, type ScrubState } from "../../../src/daemon/workers/scrub.ts";
import type { Holding } from "../../../src/domain/index.ts";
import { realClock } from "../../support/real-clock.ts";
import { withFolder } from "../../support/storage.ts";
import { SwarmNet, type SwarmNode } from "../../support/swarm.ts";

const MIB = 1024 * 1024;

function scrubOf(net: SwarmNet, node: SwarmNode, states: ScrubState[] = []): ScrubWorker {
  return new ScrubWorker({
    catalog: net.catalog(),
    facts: {
      nodeId: node.id,
      get: (_kind, id) => net.holdings.get(id)?.get(node.id) as never,
      put: async (_kind, id, value) => net.hold(node.id, id, value as Holding | undefined),
    },
    store: node.store,
    swarm: node.swarm,
    clock: realClock,
    log: node.log,
    rateBps: 1_000 * MIB,
    onState: (state) => states.push(state),
  });
}

async function flip(node: SwarmNode, at: number): Promise<void> {
  const file = await open(node.store.find("rfs-1")?.path ?? "", "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 4]), 0, 1, at);
  await file.close();
}

describe("scrubbing", () => {
  it("finds a flipped bit and mends it with one chunk of another node", () =>
    withFolder(async (root) => {
      const net = new SwarmNet(root);
      const [a, b] = [await net.open("a"), await net.open("b")];
      const bytes = randomBytes(3 * MIB);
      const artifact = await net.seed(a, "rfs-1", bytes);
      await net.seed(b, "rfs-1", bytes);
      const states: ScrubState[] = [];
      const scrub = scrubOf(net, b, states);
      await scrub.round();
      expect(scrub.state).toMatchObject({ rounds: 1, checkedBytes: 3 * MIB, damagedChunks: 0 });
      await flip(b, 2 * MIB + 77);
      await scrub.round();
      expect(states.at(-1)).toMatchObject({ damagedChunks: 1, repairedArtifacts: 1, damaged: [] });
      expect((await readFile(b.store.find("rfs-1")?.path ?? "")).equals(bytes)).toBe(true);
      expect(b.swarm.counters()["received_bytes"]).toBe(65_536);
      await b.store.verify(artifact.digest);
      await net.close();
    }));

  it("takes back what it said of an artifact that nobody can mend", () =>
    withFolder(async (root) => {
      const net = new SwarmNet(root);
      const a = await net.open("a");
      await net.seed(a, "rfs-1", randomBytes(MIB));
      await flip(a, 5);
      const scrub = scrubOf(net, a);
      await scrub.round();
      expect(scrub.state).toMatchObject({ damaged: ["rfs-1"], repairedArtifacts: 0 });
      expect(net.holdings.get("rfs-1")?.get("a")).toBeUndefined();
      await flip(a, 5);
      await scrub.round();
      expect(scrub.state.damaged).toEqual([]);
      await net.close();
    }));
});
