import { expect, test } from "vitest";
import type { Entry } from "../../../../src/domain/index.ts";
import {
  AWHILE,
  ReplicaNet,
  bulky,
  idsOf,
  replicaEntry,
  templateEntry,
  templates,
  type Replica,
} from "../../../support/replicas.ts";
import { progressEntry } from "../../../support/storage.ts";

/** Members that have compared at the start, and have nothing to say any more. */
async function cluster(size: number, options: { rounds?: boolean } = {}) {
  const net = new ReplicaNet();
  const names = Array.from({ length: size }, (_, index) => `n${index}`);
  net.setMembers(names);
  const nodes: Replica[] = [];
  for (const name of names) nodes.push(await net.open(name, options));
  await net.line.run(AWHILE);
  for (const node of nodes) node.forgetQuestions();
  return { net, nodes: nodes as [Replica, Replica, Replica, ...Replica[]] };
}

const sizes = ({ batches }: Replica) => batches.map(({ e }) => e.length);

test("what is written in one moment goes in one message, to all, with the state after it", async () => {
  const { net, nodes } = await cluster(4, { rounds: false });
  const [writer] = nodes;
  for (const id of ["a", "b"]) void writer.write(templateEntry(id, 1));
  await writer.write(replicaEntry("a", "n0", 1));
  await net.line.run(10);
  expect(sizes(writer)).toEqual([3]);
  expect(writer.batches[0]?.h).toBe(writer.catalog.stateHash());
  for (const node of nodes) {
    expect(idsOf(node, "template")).toEqual(["a", "b"]);
    expect(node.catalog.stateHash()).toBe(writer.catalog.stateHash());
  }
});

test("what came from others is not published again, by pulling neither", async () => {
  const { net, nodes } = await cluster(3);
  const [writer, deaf, third] = nodes;
  net.deaf.add("pn1");
  await writer.write(...templates(3));
  await net.line.run(AWHILE);
  expect(idsOf(deaf, "template")).toHaveLength(3);
  expect([...deaf.batches, ...third.batches]).toEqual([]);
});

test("only the newest of several writes of an entry goes", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer, other] = nodes;
  for (const version of [1, 2, 3]) await writer.write(templateEntry("a", version, `${version}`));
  await net.line.run(10);
  expect(writer.batches[0]?.e.map(({ n }) => n)).toEqual([3]);
  expect(other.catalog.get("@cluster", "template", "a")?.version).toBe(3);
});

test("a node that lost the batch notices by the echo a second later, and pulls", async () => {
  const { net, nodes } = await cluster(3, { rounds: false });
  const [writer, deaf, third] = nodes;
  net.deaf.add("pn1");
  await writer.write(templateEntry("a", 1));
  await net.line.run(100);
  net.deaf.delete("pn1");
  await net.line.run(800);
  expect(idsOf(deaf, "template")).toEqual([]);
  await net.line.run(1_500);
  expect(sizes(writer)).toEqual([1, 0]);
  expect(idsOf(deaf, "template")).toEqual(["a"]);
  expect(third.asked("headers")).toEqual([]);
  // Said once: whoever does not hear that either compares in its own time.
  await net.line.run(AWHILE);
  expect(sizes(writer)).toEqual([1, 0]);
});

test("writes that go on are echoed once, after the last", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer] = nodes;
  for (let turn = 1; turn <= 5; turn++) {
    await writer.write(templateEntry("a", turn));
    await net.line.run(400);
  }
  await net.line.run(5_000);
  expect(sizes(writer)).toEqual([1, 1, 1, 1, 1, 0]);
});

test("what is written again soon anyway has no echo", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer, other] = nodes;
  const value = {
    ...{ node_id: "n0", incarnation: 1, beat: 1, term_ms: 8_000 },
    ...{ ended: false, since: "" },
  };
  const session: Entry<"session"> = {
    ...{ owner: "@cluster", kind: "session", id: "n0", version: 1 },
    value,
  };
  await writer.write(session);
  await net.line.run(5_000);
  expect(other.catalog.get("@cluster", "session", "n0")?.version).toBe(1);
  expect(sizes(writer)).toEqual([1]);
});

test("progress goes four times a second at most, and its last word arrives", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer, other] = nodes;
  const mine = (version: number) => ({ ...progressEntry("j", version), owner: "n0" });
  for (let version = 1; version <= 100; version++) {
    await writer.write(mine(version));
    await net.line.run(10);
  }
  await net.line.run(500);
  expect(writer.batches.length).toBeGreaterThanOrEqual(4);
  expect(writer.batches.length).toBeLessThanOrEqual(6);
  expect(other.catalog.get("n0", "job-progress", "j")?.version).toBe(100);
  // The end of it is not held back.
  await writer.write({ owner: "n0", kind: "job-progress", id: "j", version: 101 });
  await net.line.run(20);
  expect(other.catalog.get("n0", "job-progress", "j")?.value).toBeUndefined();
});

test("more than a message carries goes in several, and what none carries is pulled", async () => {
  const { net, nodes } = await cluster(3, { rounds: false });
  const [writer, ...others] = nodes;
  const ids = Array.from({ length: 10 }, (_, at) => `t${at}`);
  await writer.write(bulky("huge", 200 * 1024), ...ids.map((id) => bulky(id, 40 * 1024)));
  await net.line.run(200);
  expect(sizes(writer)).toEqual([3, 3, 3, 1]);
  const limit = 128 * 1024;
  for (const { e } of writer.batches) expect(JSON.stringify(e).length).toBeLessThan(limit + 1_000);
  await net.line.run(3_000);
  for (const node of others) expect(node.catalog.stateHash()).toBe(writer.catalog.stateHash());
});

test("one that no message carries, alone, is told of by the echo", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer, other] = nodes;
  await writer.write(bulky("huge", 200 * 1024));
  await net.line.run(3_000);
  expect(sizes(writer)).toEqual([0]);
  expect(idsOf(other, "template")).toEqual(["huge"]);
});

test("nothing is published after the end", async () => {
  const { net, nodes } = await cluster(2, { rounds: false });
  const [writer] = nodes;
  await writer.write(templateEntry("a", 1));
  await writer.replication.stop();
  await net.line.run(5_000);
  expect(writer.batches).toEqual([]);
});
