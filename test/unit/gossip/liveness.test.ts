import { expect, test } from "vitest";
import { createLiveness } from "../../../src/gossip/liveness.ts";
import { hostParts, Net } from "../../support/fake-net-membership.ts";

async function cluster(size: number) {
  const net = new Net();
  const nodes = Array.from({ length: size }, (_, index) => `n${index}`);
  const hosts = nodes.map((node) => {
    const parts = hostParts(net, node, nodes);
    return { parts, liveness: createLiveness(parts) };
  });
  for (const { liveness } of hosts) liveness.start();
  await net.line.run(8_000);
  const states = (node: string) =>
    hosts.filter((host) => host.parts.members.self !== node).map((h) => h.liveness.stateOf(node));
  return { net, hosts, states };
}

test.each([4, 40])("a dead node of %i is found dead by all, and comes back", async (size) => {
  const { net, states } = await cluster(size);
  expect(new Set(states("n1"))).toEqual(new Set(["alive"]));
  net.down.add("pn1");
  await net.line.run(18_000);
  expect(new Set(states("n1"))).toEqual(new Set(["dead"]));
  net.down.delete("pn1");
  await net.line.run(15_000);
  expect(new Set(states("n1"))).toEqual(new Set(["alive"]));
});

/** Messages that a node sends in a second when nothing happens. */
async function idleCost(size: number): Promise<number> {
  const { net } = await cluster(size);
  const before = net.messages;
  await net.line.run(20_000);
  return (net.messages - before) / size / 20;
}

test("idle costs a node one probe and one ack a second, among 10 as among 100", async () => {
  const few = await idleCost(10);
  expect(few).toBeGreaterThan(1.8);
  expect(few).toBeLessThan(2.2);
  expect((await idleCost(100)) / few).toBeCloseTo(1, 1);
});

test("a dead member costs the others no more, among 10 as among 100", async () => {
  for (const size of [10, 100]) {
    const { net, hosts } = await cluster(size);
    net.down.add("pn1");
    hosts[1]?.liveness.stop();
    await net.line.run(40_000);
    const before = net.messages;
    await net.line.run(20_000);
    // A probe and its ack, and now and then one of the dead with its helpers.
    expect((net.messages - before) / size / 20).toBeLessThan(4.5);
  }
});

test("a link lost in one direction makes nobody dead", async () => {
  const { net, states } = await cluster(5);
  net.cut.add("pn0>pn1");
  await net.line.run(40_000);
  expect(new Set(states("n1"))).toEqual(new Set(["alive"]));
});

test("a node that slept 30 s declares nobody dead on waking", async () => {
  const { net, hosts } = await cluster(5);
  const sleeper = hosts[0]!;
  const dead: string[] = [];
  sleeper.liveness.onChange((node, state) => {
    if (state === "dead") dead.push(node);
  });
  sleeper.parts.clock.frozen = true;
  await net.line.run(30_000);
  sleeper.parts.clock.thaw();
  await net.line.run(10_000);
  expect(dead).toEqual([]);
});

test("a cut between 3 and 2 is seen by both sides, and heals", async () => {
  const { net, hosts } = await cluster(5);
  for (const a of ["pn0", "pn1", "pn2"])
    for (const b of ["pn3", "pn4"]) {
      net.cut.add(`${a}>${b}`);
      net.cut.add(`${b}>${a}`);
    }
  const up = (index: number) =>
    [0, 1, 2, 3, 4].filter((other) => hosts[index]!.liveness.isUp(`n${other}`));
  await net.line.run(30_000);
  expect([up(0), up(4)]).toEqual([
    [0, 1, 2],
    [3, 4],
  ]);
  net.cut.clear();
  await net.line.run(40_000);
  expect([up(0), up(4)]).toEqual([
    [0, 1, 2, 3, 4],
    [0, 1, 2, 3, 4],
  ]);
});
