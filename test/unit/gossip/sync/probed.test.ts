import { expect, test } from "vitest";
import {
  AWHILE,
  ReplicaNet,
  idsOf,
  templateEntry,
  type Replica,
} from "../../../support/replicas.ts";

/** Two nodes that no gossip reaches. */
async function deafPair(options: { rounds: boolean }) {
  const net = new ReplicaNet();
  net.setMembers(["a", "b"]);
  const a = await net.open("a", options);
  const b = await net.open("b", options);
  net.deaf.add("pa").add("pb");
  a.probe(b);
  await net.line.run(3_000);
  for (const node of [a, b]) node.forgetQuestions();
  return { net, a, b };
}

async function probeFor(milliseconds: number, net: ReplicaNet, a: Replica, b: Replica) {
  for (let at = 0; at < milliseconds; at += 1_000) {
    a.probe(b);
    await net.line.run(1_000);
  }
}

test("nodes that hear of each other's state by probes ask nothing while it is the same", async () => {
  const { net, a, b } = await deafPair({ rounds: true });
  await probeFor(AWHILE, net, a, b);
  expect([...a.questions, ...b.questions]).toEqual([]);
  expect(a.replication.peers()).toMatchObject([{ nodeId: "b", inSync: true, divergedSince: 0 }]);
  expect(b.replication.peers()).toMatchObject([{ nodeId: "a", inSync: true, divergedSince: 0 }]);
});

test("a node compares by itself when no probe has told of a state for a while", async () => {
  const { net, a } = await deafPair({ rounds: true });
  await net.line.run(AWHILE);
  expect(a.asked("state").length).toBeGreaterThan(0);
});

test("what a probe shows to be different is pulled, whoever has it", async () => {
  const { net, a, b } = await deafPair({ rounds: false });
  await a.write(templateEntry("t1", 1));
  await b.write(templateEntry("t2", 1));
  await probeFor(4_000, net, a, b);
  expect(idsOf(a, "template")).toEqual(["t1", "t2"]);
  expect(idsOf(b, "template")).toEqual(["t1", "t2"]);
});

test("what a probe shows to be the same is not pulled again later", async () => {
  const { net, a, b } = await deafPair({ rounds: false });
  await a.write(templateEntry("t1", 1), templateEntry("t2", 1));
  await b.write(templateEntry("t1", 1), templateEntry("t2", 1));
  await probeFor(2_000, net, a, b);
  const known = a.catalog.sequence();
  await a.write(templateEntry("t3", 1));
  for (const node of [a, b]) node.forgetQuestions();
  await probeFor(4_000, net, a, b);
  expect(idsOf(b, "template")).toEqual(["t1", "t2", "t3"]);
  expect(b.asked("headers").map(({ since }) => since)).toEqual([known]);
});
