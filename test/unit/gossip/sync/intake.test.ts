import { describe, expect, test } from "vitest";
import { ReplicaNet, idsOf, replicaEntry, templateEntry } from "../../../support/replicas.ts";

async function member() {
  const net = new ReplicaNet();
  net.setMembers(["a", "b", "c"]);
  const node = await net.open("a", { rounds: false });
  const tell = async (signer: string, body: unknown) => {
    const verdict = net.tell(node, signer, body);
    await net.line.run(10);
    return verdict;
  };
  return { net, node, tell };
}

const replica = (owner: string, version = 1) => {
  const { id, value } = replicaEntry("t", owner, version);
  return { o: owner, k: "replica", i: id, n: version, x: value };
};
const template = (id: string) => {
  const { value } = templateEntry(id, 1);
  return { o: "@cluster", k: "template", i: id, n: 1, x: value };
};
const batch = (...e: object[]) => ({ v: 1, h: "", e });

describe("a batch of a member", () => {
  test("with its own facts and with records is merged and passed on", async () => {
    const { node, tell } = await member();
    expect(await tell("b", batch(replica("b"), template("t")))).toBe("accept");
    expect([idsOf(node, "replica"), idsOf(node, "template")]).toEqual([["t"], ["t"]]);
    expect(node.replication.counts().entries).toEqual({ merged: 2 });
    // What is held already is neither merged again nor refused.
    expect(await tell("b", batch(replica("b"), template("t")))).toBe("accept");
    expect(node.replication.counts().entries).toEqual({ merged: 2 });
  });

  test.each([
    ["another member's fact", replica("c"), "owner"],
    ["a fact in the cluster's name", { ...replica("b"), o: "@cluster" }, "owner"],
    ["a record in its own name", { ...template("x"), o: "b" }, "owner"],
    ["this node's facts", replica("a"), "owner"],
    ["a value that fits no schema", { ...template("x"), x: { template_id: 7 } }, "schema"],
  ])("with %s is not passed on, and the rest of it comes in", async (_what, wrong, reason) => {
    const { node, tell } = await member();
    expect(await tell("b", batch(wrong, template("t")))).toBe("reject");
    expect(idsOf(node, "template")).toEqual(["t"]);
    expect(idsOf(node, "replica")).toEqual([]);
    expect(node.replication.counts().entries).toEqual({ merged: 1, [reason]: 1 });
  });

  test("with a kind that only newer versions know is passed on all the same", async () => {
    const { node, tell } = await member();
    const newer = { o: "b", k: "weather", i: "x", n: 1, x: { sun: true } };
    expect(await tell("b", batch(newer, template("t")))).toBe("accept");
    expect(node.replication.counts().entries).toEqual({ merged: 1, unknown: 1 });
  });

  test.each([
    ["no JSON", "{"],
    ["another version", { ...batch(), v: 2 }],
    ["entries without versions", batch({ o: "b", k: "replica", i: "t" })],
    ["no entries", { v: 1, h: "" }],
  ])("that is malformed (%s) is counted and not passed on", async (_what, body) => {
    const { node, tell } = await member();
    expect(await tell("b", body)).toBe("reject");
    expect(node.replication.counts().entries).toEqual({ schema: 1 });
    expect(await tell("b", batch(template("t")))).toBe("accept");
  });

  test("that keeps sending what is wrong is named in the log once a minute", async () => {
    const { net, node, tell } = await member();
    const warnings = () => node.log.lines.filter(({ level }) => level === "warn");
    for (let turn = 0; turn < 20; turn++) await tell("b", batch(replica("c")));
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]?.fields).toMatchObject({ from: "b", owner: "c", reason: "owner" });
    await net.line.run(60_000);
    await tell("b", batch(replica("c")));
    expect(warnings()).toHaveLength(2);
    expect(node.replication.counts().entries).toEqual({ owner: 21 });
  });
});

test("who is no member is not listened to, and fills no counter", async () => {
  const { node, tell } = await member();
  expect(await tell("stranger", batch(template("t")))).toBe("ignore");
  expect(await tell("stranger", "{")).toBe("ignore");
  expect(idsOf(node, "template")).toEqual([]);
  expect(node.replication.counts().entries).toEqual({});
});

describe("what a peer holds", () => {
  /** Two nodes of which the second has been given an entry past all checks. */
  async function pulled(entry: ReturnType<typeof replicaEntry>) {
    const net = new ReplicaNet();
    net.setMembers(["a", "b", "c"]);
    const a = await net.open("a", { rounds: false });
    const b = await net.open("b", { rounds: false });
    net.deaf.add("pa");
    await b.write(entry);
    await a.syncWith("b");
    return { net, a, b };
  }

  test("of a third member is taken: it need not come from its owner", async () => {
    const { a } = await pulled(replicaEntry("t", "c", 1));
    expect(idsOf(a, "replica")).toEqual(["t"]);
  });

  test("of a node that is no member is not even asked for", async () => {
    const { a } = await pulled(replicaEntry("t", "ghost", 1));
    expect(idsOf(a, "replica")).toEqual([]);
    expect(a.asked("values")).toEqual([]);
  });

  test("in this node's own name is not taken over", async () => {
    const { a } = await pulled(replicaEntry("t", "a", 7));
    expect(idsOf(a, "replica")).toEqual([]);
    expect(a.asked("values")).toEqual([]);
  });
});

test("facts of a removed member go with it, everywhere", async () => {
  const net = new ReplicaNet();
  net.setMembers(["a", "b", "c"]);
  const [a, b, c] = [await net.open("a"), await net.open("b"), await net.open("c")];
  await c.write(replicaEntry("t", "c", 1));
  await net.line.run(10_000);
  expect([a, b].map((node) => idsOf(node, "replica"))).toEqual([["t"], ["t"]]);
  await c.stop();
  net.setMembers(["a", "b"]);
  await net.line.run(100);
  expect([a, b].map((node) => idsOf(node, "replica"))).toEqual([[], []]);
  expect(a.catalog.stateHash()).toBe(b.catalog.stateHash());
});
