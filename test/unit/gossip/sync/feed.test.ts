import { describe, expect, test } from "vitest";
import type { Question } from "../../../../src/gossip/sync/messages.ts";
import { encode } from "../../../../src/gossip/sync/messages.ts";
import {
  AWHILE,
  ReplicaNet,
  bulky,
  idsOf,
  replicaEntry,
  templateEntry,
  templates,
  tombstone,
  type Replica,
} from "../../../support/replicas.ts";

const since = (node: Replica) => node.asked("headers").map((question) => question.since);
const sameState = (nodes: readonly Replica[]) =>
  new Set(nodes.map(({ catalog }) => catalog.stateHash())).size === 1;

/** Two nodes that compare when they are told to. */
async function pair() {
  const net = new ReplicaNet();
  net.setMembers(["a", "b"]);
  const a = await net.open("a", { rounds: false });
  const b = await net.open("b", { rounds: false });
  await net.line.run(100);
  net.deaf.add("pa").add("pb");
  for (const node of [a, b]) node.forgetQuestions();
  return { net, a, b };
}

describe("a first comparison", () => {
  test("brings everything, in pages of headers and of values", async () => {
    const { net, a } = await pair();
    await a.write(...templates(4_500));
    await net.line.run(3_000);
    const late = await net.open("late", { rounds: false });
    await late.syncWith("a");
    expect(sameState([a, late])).toBe(true);
    expect(late.asked("headers").length).toBeGreaterThanOrEqual(3);
    expect(since(late)[0]).toBe(0);
    const values = late.asked("values").map(({ keys }) => keys.length);
    expect(Math.max(...values)).toBe(500);
    expect(values.reduce((sum, count) => sum + count, 0)).toBe(4_500);
    expect(late.replication.counts()).toMatchObject({ entries: { merged: 4_500 } });
  });

  test("asks again for values that did not fit an answer", async () => {
    const { net, a } = await pair();
    const ids = Array.from({ length: 12 }, (_, at) => `t${at}`);
    await a.write(...ids.map((id) => bulky(id, 300 * 1024)));
    await net.line.run(3_000);
    const late = await net.open("late", { rounds: false });
    await late.syncWith("a");
    expect(sameState([a, late])).toBe(true);
    // Three of them fit a mebibyte.
    expect(late.asked("values").map(({ keys }) => keys.length)).toEqual([12, 9, 6, 3]);
  });
});

describe("a later comparison", () => {
  test("of equal catalogs costs one question", async () => {
    const { a, b } = await pair();
    await a.write(...templates(3));
    await b.syncWith("a");
    b.forgetQuestions();
    await b.syncWith("a");
    expect(b.questions.map(({ question }) => question.q)).toEqual(["state"]);
    expect(b.replication.peers()[0]).toMatchObject({ inSync: true, divergedSince: 0 });
  });

  test("asks for what came since the last, also after a restart", async () => {
    const { net, a, b } = await pair();
    await a.write(...templates(50));
    await b.syncWith("a");
    const done = a.catalog.sequence();
    await b.stop();
    await a.write(...templates(3, 50));
    const again = await net.open("b", { database: b.database, rounds: false });
    await again.syncWith("a");
    expect(since(again)).toEqual([done]);
    expect(again.asked("values").map(({ keys }) => keys.length)).toEqual([3]);
    expect(sameState([a, again])).toBe(true);
  });

  test("begins anew with a peer whose catalog is another one", async () => {
    const { net, a, b } = await pair();
    await a.write(...templates(50));
    await b.syncWith("a");
    await a.stop();
    const other = await net.open("a", { rounds: false });
    await other.write(...templates(5, 100));
    b.forgetQuestions();
    await b.syncWith("a");
    expect(since(b)[0]).toBe(0);
    expect(idsOf(b, "template")).toHaveLength(55);
    // And was told that it lacks the fifty.
    await net.line.run(5_000);
    expect(sameState([other, b])).toBe(true);
  });

  test("goes on after the last page that is held, when a page was lost", async () => {
    const { net, a, b } = await pair();
    await a.write(...templates(5_000));
    const ask = handlerOf(net, "a");
    let pages = 0;
    net.hosts.get("pa")!.handlers.set("feed", async (from, body) => {
      if (questionOf(body).q === "headers" && ++pages === 3) throw new Error("cut");
      return ask(from, body);
    });
    await expect(b.syncWith("a")).rejects.toThrow("cut");
    expect(idsOf(b, "template")).toHaveLength(4_000);
    b.forgetQuestions();
    await b.syncWith("a");
    expect(since(b)[0]).toBeGreaterThanOrEqual(4_000);
    expect(sameState([a, b])).toBe(true);
    expect(b.replication.counts().comparisons).toMatchObject({ failed: 1 });
  });
});

const questionOf = (body: Uint8Array) => JSON.parse(Buffer.from(body).toString()) as Question;

function handlerOf(net: ReplicaNet, name: string) {
  const handler = net.hosts.get(`p${name}`)?.handlers.get("feed");
  if (handler === undefined) throw new Error(`${name} answers nothing`);
  return handler;
}

/** What `name` answers to one kind of question is made up by the test. */
function pretend(net: ReplicaNet, name: string, kind: Question["q"], answer: () => object): void {
  const handler = handlerOf(net, name);
  net.hosts
    .get(`p${name}`)!
    .handlers.set("feed", async (from, body) =>
      questionOf(body).q === kind ? encode(answer()) : handler(from, body),
    );
}

describe("a peer that answers nonsense", () => {
  test("with a feed that does not move on ends the comparison", async () => {
    const { net, a, b } = await pair();
    await a.write(templateEntry("x", 1));
    pretend(net, "a", "headers", () => ({ headers: [], seq: 0, more: true }));
    await expect(b.syncWith("a")).rejects.toMatchObject({ code: "wire_invalid" });
  });

  test("with entries that nobody asked for gets none of them in", async () => {
    const { net, a, b } = await pair();
    await a.write(templateEntry("x", 1));
    const { value } = templateEntry("y", 9);
    const e = [{ o: "@cluster", k: "template", i: "y", n: 9, x: value }];
    pretend(net, "a", "values", () => ({ e }));
    await b.syncWith("a");
    expect(idsOf(b, "template")).toEqual([]);
    expect(b.asked("values")).toHaveLength(1);
  });

  test("with values that do not fit their schema is counted, and the others come in", async () => {
    const { net, a, b } = await pair();
    await a.write(templateEntry("x", 1), templateEntry("y", 1));
    const good = { o: "@cluster", k: "template", i: "y", n: 1, x: templateEntry("y", 1).value };
    const e = [{ ...good, i: "x", x: { template_id: 7 } }, good];
    pretend(net, "a", "values", () => ({ e }));
    await b.syncWith("a");
    expect(idsOf(b, "template")).toEqual(["y"]);
    expect(b.replication.counts().entries).toEqual({ merged: 1, schema: 1 });
  });
});

describe("a difference that pulling does not close", () => {
  /** `b` refuses facts of a node that it does not know as a member, and `a` does. */
  async function stuck() {
    const net = new ReplicaNet();
    net.setMembers(["a", "b"]);
    const a = await net.open("a");
    const b = await net.open("b");
    await net.line.run(AWHILE);
    await a.catalog.merge([replicaEntry("t", "ghost", 1)]);
    await net.line.run(AWHILE);
    for (const node of [a, b]) node.forgetQuestions();
    return { net, a, b };
  }

  test("is looked at as a whole ever more rarely, and compared less often", async () => {
    const { net, a, b } = await stuck();
    const minutes = 20;
    await net.line.run(minutes * 60_000);
    const whole = since(b).filter((at) => at === 0).length;
    expect(whole).toBeLessThanOrEqual(8);
    for (const node of [a, b]) {
      const times = node.questions.filter(({ question }) => question.q === "state");
      // Two states a comparison, one in 16 s; in step with each other's pokes, no faster.
      expect(times.length).toBeLessThanOrEqual((2 * minutes * 60) / 16 + 4);
      expect(times.length).toBeGreaterThan(minutes);
    }
  });

  test("is reported with what differs, and with since when", async () => {
    const { net, a, b } = await stuck();
    await net.line.run(120_000);
    const [report] = b.replication.divergence();
    expect(report).toMatchObject({ node_id: "a", count: 1 });
    const entry = { owner: "ghost", kind: "replica", id: "t", here: 0, there: 1 };
    expect(report?.entries).toEqual([entry]);
    expect(b.replication.peers()[0]?.inSync).toBe(false);
    expect(a.replication.divergence()[0]?.entries).toEqual([{ ...entry, here: 1, there: 0 }]);
    expect(b.replication.counts().comparisons["differs"]).toBeGreaterThan(5);
  });

  test("is over at once when the cause is", async () => {
    const { net, a, b } = await stuck();
    await net.line.run(10 * 60_000);
    net.setMembers(["a", "b", "ghost"]);
    await net.line.run(40_000);
    expect(idsOf(b, "replica")).toEqual(["t"]);
    expect(b.replication.divergence()).toEqual([]);
    // The next change is as quick as ever.
    b.forgetQuestions();
    net.deaf.add("pb");
    await a.write(templateEntry("x", 1));
    await net.line.run(5_500);
    expect(idsOf(b, "template")).toEqual(["x"]);
  });
});

describe("a node that comes late", () => {
  test("has everything within seconds, deletions too, and publishes none of it", async () => {
    const net = new ReplicaNet();
    net.setMembers(["a", "b", "c"]);
    const nodes = [await net.open("a"), await net.open("b"), await net.open("c")] as const;
    const all = templates(200);
    await nodes[0].write(...all);
    await nodes[1].write(replicaEntry("t00001", "b", 1));
    await net.line.run(AWHILE);
    await nodes[2].write(...all.slice(0, 50).map(tombstone));
    await net.line.run(AWHILE);
    const late = await net.open("late");
    await net.line.run(5_000);
    expect(idsOf(late, "template")).toHaveLength(150);
    expect(sameState([...nodes, late])).toBe(true);
    expect(late.batches).toEqual([]);
    for (const { inSync } of late.replication.peers()) expect(inSync).toBe(true);
  });

  test("after having been away brings nothing back that was deleted meanwhile", async () => {
    const net = new ReplicaNet();
    net.setMembers(["a", "b", "c"]);
    const [a, b, c] = [await net.open("a"), await net.open("b"), await net.open("c")];
    const entry = templateEntry("x", 1);
    await a.write(entry, templateEntry("y", 1));
    await net.line.run(AWHILE);
    await c.stop();
    await b.write(tombstone(entry));
    await net.line.run(AWHILE);
    const back = await net.open("c", { database: c.database });
    expect(idsOf(back, "template")).toEqual(["x", "y"]);
    await net.line.run(AWHILE);
    for (const node of [a, b, back]) expect(idsOf(node, "template")).toEqual(["y"]);
  });
});
