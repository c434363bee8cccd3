import { describe, expect, test } from "vitest";
import {
  ReplicaNet,
  idsOf,
  replicaEntry,
  templateEntry,
  tombstone,
  type Replica,
} from "../../../support/replicas.ts";

/** Hours of the test: a tombstone's age is one. */
const HOUR = 600_000;
const purge = { ageMs: HOUR, roundMs: HOUR / 20 };
const RECORD = templateEntry("t", 1);
const FACT = replicaEntry("t", "a", 1);

const tombstones = async (node: Replica) =>
  (await node.catalog.tombstones(Infinity, 100)).map(({ kind }) => kind).sort();

/** Three members that hold the tombstone of a record and of a fact of `a`. */
async function deleted(away?: "c") {
  const net = new ReplicaNet();
  net.setMembers(["a", "b", "c"]);
  const open = (name: string) => net.open(name, { purge });
  const [a, b, c] = [await open("a"), await open("b"), await open("c")];
  await a.write(RECORD, FACT);
  await net.line.run(20_000);
  if (away !== undefined) await c.stop();
  await a.write(tombstone(RECORD), tombstone(FACT));
  await net.line.run(20_000);
  return { net, a, b, c };
}

describe("a tombstone", () => {
  test("stays for its age, and goes everywhere soon after", async () => {
    const { net, ...nodes } = await deleted();
    await net.line.run(HOUR - 60_000);
    for (const node of Object.values(nodes)) {
      expect(await tombstones(node)).toEqual(["replica", "template"]);
    }
    const hash = nodes.a.catalog.stateHash();
    await net.line.run(HOUR / 2);
    for (const node of Object.values(nodes)) {
      expect(await tombstones(node)).toEqual([]);
      expect(node.catalog.stateHash()).toBe(hash);
      expect(node.replication.counts().purged).toBe(2);
    }
  });

  test("waits for a member that is away, which then brings nothing back", async () => {
    const { net, a, b, c } = await deleted("c");
    await net.line.run(3 * HOUR);
    for (const node of [a, b]) expect(await tombstones(node)).toHaveLength(2);
    const back = await net.open("c", { database: c.database, purge });
    expect(idsOf(back, "template")).toEqual(["t"]);
    await net.line.run(HOUR / 10);
    for (const node of [a, b, back]) {
      expect([...idsOf(node, "template"), ...idsOf(node, "replica")]).toEqual([]);
    }
    await net.line.run(2 * HOUR);
    for (const node of [a, b, back]) {
      expect(await tombstones(node)).toEqual([]);
      expect([...idsOf(node, "template"), ...idsOf(node, "replica")]).toEqual([]);
    }
  });

  test("does not wait for a member that was removed", async () => {
    const { net, a, b } = await deleted("c");
    await net.line.run(2 * HOUR);
    expect(await tombstones(a)).toHaveLength(2);
    net.setMembers(["a", "b"]);
    await net.line.run(HOUR / 2);
    for (const node of [a, b]) expect(await tombstones(node)).toEqual([]);
  });

  test("waits for a member that came while the others were asked", async () => {
    const { net, a, b } = await deleted();
    const handlers = net.hosts.get("pb")!.handlers;
    const answer = handlers.get("feed")!;
    handlers.set("feed", async (from, body) => {
      // As many as before, and one of them not asked.
      if (Buffer.from(body).includes('"settled"')) net.setMembers(["a", "b", "d"]);
      return answer(from, body);
    });
    await net.line.run(2 * HOUR);
    expect(await tombstones(a)).toEqual(["replica", "template"]);
    expect(a.replication.counts().purged).toBe(0);
    expect(idsOf(b, "template")).toEqual([]);
  });

  test("is as old after a restart as before it", async () => {
    const { net, a } = await deleted();
    await net.line.run(0.7 * HOUR);
    await a.stop();
    const again = await net.open("a", { database: a.database, purge });
    await net.line.run(0.2 * HOUR);
    expect(await tombstones(again)).toHaveLength(2);
    await net.line.run(0.4 * HOUR);
    expect(await tombstones(again)).toEqual([]);
  });

  test("that is gone is not asked back from a node that has it still", async () => {
    const { net, a, b } = await deleted();
    await a.catalog.purge([tombstone(RECORD), tombstone(FACT)]);
    await net.line.run(30_000);
    expect(a.catalog.stateHash()).toBe(b.catalog.stateHash());
    for (const { inSync } of a.replication.peers()) expect(inSync).toBe(true);
    expect(await tombstones(b)).toHaveLength(2);
  });
});

test("an entry of the same name, made after its tombstone, is not taken for it", async () => {
  const { net, a, b, c } = await deleted();
  await net.line.run(HOUR / 2);
  await a.write({ ...RECORD, version: 3 });
  await net.line.run(2 * HOUR);
  for (const node of [a, b, c]) {
    expect(idsOf(node, "template")).toEqual(["t"]);
    expect(await tombstones(node)).toEqual([]);
  }
});
