import { afterEach, expect, test } from "vitest";
import { PeerWorld, addressBook, bytes, makeMembers, text, until } from "../../support/p2p.ts";

const world = new PeerWorld();
afterEach(() => world.end());
const SOON = { timeoutMs: 10_000 };

test("a stranger may join and nothing else while strangers are admitted", async () => {
  const member = await world.peer({ admitStrangers: () => true });
  const stranger = await world.peer();
  member.setMembers(addressBook([member]), new Map());
  member.handle("join", (_from, body) => Promise.resolve(body));
  member.handle("ask", (_from, body) => Promise.resolve(body));
  await stranger.dial(member.addresses(), SOON);
  expect(text(await stranger.request(member.peerId, "join", bytes("me too"), SOON))).toBe("me too");
  await expect(stranger.request(member.peerId, "ask", bytes(""), SOON)).rejects.toMatchObject({
    code: "not_a_member",
  });
});

test("a stranger is cut off when nobody is to be admitted", async () => {
  const member = await world.peer();
  const stranger = await world.peer();
  member.setMembers(addressBook([member]), new Map());
  await stranger.dial(member.addresses(), { timeoutMs: 3_000 }).catch(() => undefined);
  await expect(
    stranger.request(member.peerId, "join", bytes(""), { timeoutMs: 3_000 }),
  ).rejects.toMatchObject({ code: "peer_unreachable" });
  expect(member.connections()).toEqual([]);
});

test("a removed peer is told so, and may ask to join again", async () => {
  const member = await world.peer();
  const gone = await world.peer();
  member.handle("join", (_from, body) => Promise.resolve(body));
  member.setMembers(addressBook([member]), new Map([[gone.peerId, "removed by an operator"]]));
  await gone.dial(member.addresses(), SOON);
  await expect(gone.request(member.peerId, "ask", bytes(""), SOON)).rejects.toMatchObject({
    code: "node_removed",
    message: "removed by an operator",
  });
  expect(text(await gone.request(member.peerId, "join", bytes("again"), SOON))).toBe("again");
});

test("a member that is removed is cut off, and its messages are not heard", async () => {
  const [one, two, three] = await world.cluster(3);
  if (one === undefined || two === undefined || three === undefined) throw new Error("three");
  const heard: string[] = [];
  one.subscribe("changes", (_from, body) => {
    heard.push(text(body));
    return "accept";
  });
  const book = addressBook([one, two]);
  one.setMembers(book, new Map([[three.peerId, "removed"]]));
  two.setMembers(book, new Map([[three.peerId, "removed"]]));
  await three.publish("changes", bytes("from outside"));
  await until(() => one.connections().length === 1);
  await two.publish("changes", bytes("from inside"));
  await until(() => heard.includes("from inside"));
  expect(heard).toEqual(["from inside"]);
});

test("a stranger that is joining is not cut off because another was admitted", async () => {
  const member = await world.peer({ admitStrangers: () => true });
  const [first, second] = [await world.peer(), await world.peer()];
  member.setMembers(addressBook([member]), new Map());
  let answer: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (answer = resolve));
  let asked = 0;
  member.handle("join", async (_from, body) => {
    asked++;
    await held;
    return body;
  });
  await second.dial(member.addresses(), SOON);
  const joining = second.request(member.peerId, "join", bytes("me too"), SOON);
  const outcome = joining.then(text, (error: unknown) => String(error));
  await until(() => asked === 1);
  makeMembers([member, first]);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  answer();
  expect(await outcome).toBe("me too");
});

test("who was a stranger when it opened a stream may send large requests as a member", async () => {
  const member = await world.peer({ admitStrangers: () => true });
  const joiner = await world.peer();
  const third = await world.peer();
  member.handle("ask", (_from, body) => Promise.resolve(body));
  member.setMembers(addressBook([member, third]), new Map());
  await joiner.dial(member.addresses(), SOON);
  await expect(joiner.request(member.peerId, "ask", bytes(""), SOON)).rejects.toMatchObject({
    code: "not_a_member",
  });
  makeMembers([member, joiner, third]);
  const large = new Uint8Array(100 * 1024);
  expect((await joiner.request(member.peerId, "ask", large, SOON)).length).toBe(large.length);
});

test("no more than sixteen strangers are connected at once", async () => {
  const member = await world.peer({ admitStrangers: () => true });
  member.setMembers(addressBook([member]), new Map());
  const strangers = await Promise.all(Array.from({ length: 20 }, () => world.peer()));
  for (const one of strangers) await one.dial(member.addresses(), SOON).catch(() => undefined);
  await until(() => member.connections().length >= 16);
  expect(member.connections().length).toBe(16);
});

test("a peer with another network key is told so, and so is the one it called", async () => {
  const member = await world.peer({ admitStrangers: () => true });
  const foreign = await world.peer({ presharedKey: "cd".repeat(32) });
  member.setMembers(addressBook([member]), new Map());
  await expect(foreign.dial(member.addresses(), SOON)).rejects.toMatchObject({
    code: "cluster_mismatch",
  });
  expect(foreign.counters()).toMatchObject({ "connection:foreign:outbound": 1 });
  expect(member.counters()).toMatchObject({ "connection:foreign:inbound": 1 });
  expect(member.connections()).toEqual([]);
});
