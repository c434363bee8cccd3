/** One failure detector among stubs: each rule of what it believes, says and takes back. */
import { expect, test } from "vitest";
import type { LivenessClaim, LivenessState } from "../../../src/domain/index.ts";
import { createLiveness } from "../../../src/gossip/liveness.ts";
import { hostParts, memorySettings, Net } from "../../support/fake-net-membership.ts";

interface Message {
  readonly incarnation?: number;
  readonly target?: string;
  readonly claims: readonly LivenessClaim[];
}

const encode = (body: object) => new TextEncoder().encode(JSON.stringify({ v: 1, ...body }));
const decode = (body: Uint8Array) => JSON.parse(new TextDecoder().decode(body)) as Message;

/** `n0` runs the real detector; `n1` and the others answer every probe and record what they get. */
async function detector(size: number) {
  const net = new Net();
  const nodes = Array.from({ length: size }, (_, index) => `n${index}`);
  const catalog = memorySettings();
  const probed: { node: string; message: Message }[] = [];
  const news: LivenessClaim[] = [];
  const stubs = new Map(
    nodes.slice(1).map((node) => {
      const { transport } = hostParts(net, node, nodes);
      transport.handle("probe", async (_, body) => {
        probed.push({ node, message: decode(body) });
        return encode({ ok: true, incarnation: 0, claims: [] });
      });
      transport.subscribe("liveness", (from, body) => {
        if (from === "pn0") news.push(...decode(body).claims);
        return "accept";
      });
      return [node, transport] as const;
    }),
  );
  const states: [string, LivenessState, number][] = [];
  const make = () => {
    const parts = hostParts(net, "n0", nodes, undefined, catalog);
    const liveness = createLiveness(parts);
    liveness.onChange((node, state) => states.push([node, state, net.line.at]));
    liveness.start();
    return { parts, liveness };
  };
  /** What `from` says to everybody; `origin` is who said it first. */
  const say = async (
    from: string,
    node: string,
    state: LivenessState,
    incarnation: number,
    origin = from,
  ) => {
    await stubs
      .get(from)
      ?.publish("liveness", encode({ claims: [{ node, state, incarnation, origin }] }));
    await net.line.run(10);
  };
  /** The incarnation with which n0 answers a probe. */
  const incarnation = async () => {
    const body = encode({ incarnation: 0, claims: [] });
    const answer = stubs.get("n1")?.request("pn0", "probe", body, { timeoutMs: 500 });
    await net.line.run(20);
    return decode((await answer) ?? new Uint8Array()).incarnation ?? -1;
  };
  const cut = (node: string) => {
    net.cut.add(`pn0>p${node}`);
    net.cut.add(`p${node}>pn0`);
  };
  const host = make();
  return { net, probed, news, states, make, say, incarnation, cut, ...host };
}

/** A member that n0 has just probed, and does not probe again before all others had their turn. */
async function probedFirst({ net, probed }: Awaited<ReturnType<typeof detector>>) {
  await net.line.run(1_500);
  return probed[0]!.node;
}

test("an accused node refutes with a higher incarnation, and says so to all at once", async () => {
  const { net, say, incarnation, news } = await detector(4);
  await net.line.run(100);
  const before = await incarnation();
  await say("n1", "n0", "suspect", before + 4);
  const after = await incarnation();
  expect(after).toBe(before + 5);
  expect(news).toContainEqual({ node: "n0", state: "alive", incarnation: after, origin: "n0" });
  // What it has refuted already, or nobody said of this incarnation, needs no answer.
  await say("n2", "n0", "dead", before);
  await say("n2", "n0", "alive", after);
  expect(await incarnation()).toBe(after);
});

test("a refutation outlives a restart: the next life begins above it", async () => {
  const { net, say, incarnation, liveness, make } = await detector(4);
  await net.line.run(100);
  await say("n1", "n0", "dead", 41);
  expect(await incarnation()).toBe(42);
  liveness.stop();
  make();
  await net.line.run(100);
  expect(await incarnation()).toBe(43);
});

test("only a higher incarnation takes a suspicion back; then nobody is declared dead", async () => {
  const world = await detector(40);
  const { net, say, states, liveness } = world;
  const suspect = await probedFirst(world);
  world.cut(suspect);
  const witness = suspect === "n1" ? "n2" : "n1";
  await say(witness, suspect, "suspect", 0);
  expect(liveness.stateOf(suspect)).toBe("suspect");
  await say(witness, suspect, "alive", 0, suspect);
  expect(liveness.stateOf(suspect)).toBe("suspect");
  await say(witness, suspect, "alive", 1, suspect);
  expect(liveness.stateOf(suspect)).toBe("alive");
  await net.line.run(12_000);
  expect(states.filter(([node, state]) => node === suspect && state === "dead")).toEqual([]);
});

test("a dead node comes back by a higher incarnation alone, heard from others", async () => {
  const world = await detector(40);
  const { say, liveness } = world;
  const gone = await probedFirst(world);
  world.cut(gone);
  const witness = gone === "n1" ? "n2" : "n1";
  await say(witness, gone, "dead", 3);
  expect(liveness.stateOf(gone)).toBe("dead");
  await say(witness, gone, "alive", 3, gone);
  expect(liveness.stateOf(gone)).toBe("dead");
  await say(witness, gone, "alive", 4, gone);
  expect(liveness.stateOf(gone)).toBe("alive");
});

test.each([
  { accusers: 1, times: 1, seconds: 6.45 },
  { accusers: 1, times: 5, seconds: 6.45 },
  { accusers: 2, times: 1, seconds: 4.73 },
  { accusers: 4, times: 1, seconds: 3 },
])(
  "a suspicion that $accusers of 40 say, each $times times, lasts $seconds s",
  async ({ accusers, times, seconds }) => {
    const world = await detector(40);
    const { net, say, states } = world;
    const suspect = await probedFirst(world);
    world.cut(suspect);
    const others = ["n1", "n2", "n3", "n4", "n5"].filter((node) => node !== suspect);
    for (const from of others.slice(0, accusers)) {
      for (let time = 0; time < times; time++) await say(from, suspect, "suspect", 0);
    }
    await net.line.run(12_000);
    const at = (state: LivenessState) =>
      states.find(([node, now]) => node === suspect && now === state)?.[2] ?? Number.NaN;
    expect((at("dead") - at("suspect")) / 1_000).toBeCloseTo(seconds, 1);
  },
);

test("a node that slept gives who it suspected before the whole time again", async () => {
  const world = await detector(40);
  const { net, say, states, liveness, parts } = world;
  const suspect = await probedFirst(world);
  world.cut(suspect);
  const witness = suspect === "n1" ? "n2" : "n1";
  await say(witness, suspect, "suspect", 0);
  parts.clock.frozen = true;
  await net.line.run(60_000);
  parts.clock.thaw();
  await net.line.run(2_000);
  expect(liveness.stateOf(suspect)).toBe("suspect");
  await say(witness, suspect, "alive", 1, suspect);
  await net.line.run(12_000);
  expect(states.filter(([, state]) => state === "dead")).toEqual([]);
});

test("a node that slept in the middle of a probe accuses nobody for it", async () => {
  const world = await detector(5);
  const { net, probed, states, news, parts } = world;
  await net.line.run(9_000);
  world.cut("n1");
  const before = probed.length;
  const isAsked = () => probed.slice(before).some(({ message }) => message.target === "n1");
  for (let ms = 0; ms < 10_000 && !isAsked(); ms++) await net.line.run(1);
  expect(isAsked()).toBe(true);
  // Its helpers were asked, and what they answer gets lost while it sleeps.
  parts.clock.frozen = true;
  net.down.add("pn0");
  await net.line.run(30_000);
  net.down.delete("pn0");
  net.cut.clear();
  parts.clock.thaw();
  await net.line.run(10_000);
  expect(states).toEqual([]);
  expect(news).toEqual([]);
});

test("helpers save a node whose link to this one is cut: it is not even suspected", async () => {
  const world = await detector(5);
  const { net, probed, states } = world;
  await net.line.run(9_000);
  world.cut("n1");
  await net.line.run(30_000);
  expect(probed.filter(({ message }) => message.target === "n1").length).toBeGreaterThan(6);
  expect(states).toEqual([]);
});
