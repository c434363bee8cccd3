import { afterEach, expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import type { Transport } from "../../../src/gossip/ports.ts";
import { PeerWorld, addressBook, bytes, makeMembers, text, until } from "../../support/p2p.ts";

const world = new PeerWorld();
afterEach(() => world.end());

const SOON = { timeoutMs: 10_000 };
const echo = (peer: Transport): void => {
  peer.handle("ask", (_from, body) => Promise.resolve(body));
};

const pair = async (): Promise<[Transport, Transport]> => {
  const [one, two] = await world.cluster(2);
  if (one === undefined || two === undefined) throw new Error("two were asked for");
  return [one, two];
};

test("what one member publishes reaches all others, with its signer", async () => {
  const peers = await world.cluster(4);
  const [first] = peers;
  const heard = peers.map((peer) => {
    const list: string[] = [];
    peer.subscribe("changes", (from, body) => {
      list.push(`${from} ${text(body)}`);
      return "accept";
    });
    return list;
  });
  await until(async () => {
    await first?.publish("changes", bytes("a change"));
    return heard.slice(1).every((list) => list.length > 0);
  });
  expect(new Set(heard.slice(1).flat())).toEqual(new Set([`${first?.peerId} a change`]));
  expect(heard[0]).toEqual([]);
  expect(peers[1]?.counters()["changes:accepted"]).toBe(heard[1]?.length);
});

test("where all are connected each hears a message once, with who sent it", async () => {
  const peers = await world.cluster(4);
  const heard = peers.map((peer) => {
    const list: string[] = [];
    peer.subscribe("changes", (from, body) => {
      list.push(`${from} ${text(body)}`);
      return "accept";
    });
    return list;
  });
  // The streams are open once all have heard something.
  await until(async () => {
    await peers[0]?.publish("changes", bytes("first"));
    return heard.slice(1).every((list) => list.length > 0);
  });
  const words = Array.from({ length: 50 }, (_, at) => `change ${at}`);
  for (const word of words) await peers[0]?.publish("changes", bytes(word));
  await until(() => heard.slice(1).every((list) => list.at(-1)?.endsWith(" change 49")));
  const expected = words.map((word) => `${peers[0]?.peerId} ${word}`);
  for (const list of heard.slice(1)) {
    expect(list.filter((one) => one.includes("change"))).toEqual(expected);
  }
});

test("while one member is out of reach a message finds its way to those that are not", async () => {
  const [one, two] = await world.cluster(2);
  const away = await world.peer();
  if (one === undefined || two === undefined) throw new Error("two were asked for");
  const book = new Map([...addressBook([one, two]), [away.peerId, []]]);
  for (const peer of [one, two]) peer.setMembers(book, new Map());
  let count = 0;
  two.subscribe("changes", () => {
    count++;
    return "accept";
  });
  // Gossip is a hint: one that is sent before the other's subscription is known is lost.
  await until(async () => {
    await one.publish("changes", bytes("a change"));
    return count > 0;
  });
});

test("publishing with nobody connected does not throw", async () => {
  const alone = await world.peer();
  makeMembers([alone]);
  await alone.publish("changes", bytes("to nobody"));
  expect(alone.counters()["changes:published"]).toBe(1);
});

test("a handler that throws on a message does not end the node", async () => {
  const [one, two] = await pair();
  let calls = 0;
  two.subscribe("changes", () => {
    calls++;
    throw new Error("not for this handler");
  });
  await until(async () => {
    await one.publish("changes", bytes("first"));
    return calls > 0;
  });
  echo(two);
  expect(text(await one.request(two.peerId, "ask", bytes("alive"), SOON))).toBe("alive");
});

test("many requests both ways at once are each given their own answer", async () => {
  const [one, two] = await pair();
  echo(one);
  echo(two);
  const asked = Array.from({ length: 500 }, (_, at) => String(at));
  const ask = async (from: Transport, to: Transport) =>
    Promise.all(asked.map(async (n) => text(await from.request(to.peerId, "ask", bytes(n), SOON))));
  const [there, back] = await Promise.all([ask(one, two), ask(two, one)]);
  expect(there).toEqual(asked);
  expect(back).toEqual(asked);
});

test("fifty answers of a mebibyte arrive whole", async () => {
  const [one, two] = await pair();
  two.handle("swarm", (_from, body) => Promise.resolve(new Uint8Array(1 << 20).fill(body[0] ?? 0)));
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, at) =>
      one.request(two.peerId, "swarm", new Uint8Array([at]), { timeoutMs: 25_000 }),
    ),
  );
  answers.forEach((answer, at) => {
    expect(answer.length).toBe(1 << 20);
    expect(answer.every((byte) => byte === at)).toBe(true);
  });
});

test("a request to this node itself is served without the network", async () => {
  const alone = await world.peer();
  echo(alone);
  expect(text(await alone.request(alone.peerId, "ask", bytes("me"), SOON))).toBe("me");
});

test("what the handler throws is thrown at the asking side with code and meta", async () => {
  const [one, two] = await pair();
  two.handle("ask", () =>
    Promise.reject(new AppError("fenced", "a later leader is here", { meta: { epoch: 7 } })),
  );
  await expect(one.request(two.peerId, "ask", bytes(""), SOON)).rejects.toMatchObject({
    code: "fenced",
    message: "a later leader is here",
    meta: { epoch: 7 },
  });
});

test("a handler that never answers makes the request time out", async () => {
  const [one, two] = await pair();
  two.handle("ask", () => new Promise(() => undefined));
  await expect(one.request(two.peerId, "ask", bytes(""), { timeoutMs: 200 })).rejects.toMatchObject(
    { code: "peer_unreachable" },
  );
});

test("a request over the frame limit is refused and the stream lives", async () => {
  const [one, two] = await pair();
  echo(two);
  const huge = new Uint8Array(8 * 1024 * 1024 + 1);
  await expect(one.request(two.peerId, "ask", huge, SOON)).rejects.toMatchObject({
    code: "wire_invalid",
  });
  expect(text(await one.request(two.peerId, "ask", bytes("small"), SOON))).toBe("small");
});

test("an answer over the frame limit is refused and the stream lives", async () => {
  const [one, two] = await pair();
  two.handle("ask", (_from, body) =>
    Promise.resolve(body.length === 0 ? new Uint8Array(8 * 1024 * 1024 + 1) : body),
  );
  await expect(one.request(two.peerId, "ask", bytes(""), SOON)).rejects.toMatchObject({
    code: "wire_invalid",
  });
  expect(text(await one.request(two.peerId, "ask", bytes("small"), SOON))).toBe("small");
});

test("a message over the limit is not published", async () => {
  const [one] = await pair();
  await expect(one.publish("changes", new Uint8Array(256 * 1024 + 1))).rejects.toMatchObject({
    code: "wire_invalid",
  });
});

test("a connection that was cut is dialled again and carries requests", async () => {
  const [one, two] = await pair();
  echo(two);
  await one.request(two.peerId, "ask", bytes("before"), SOON);
  let cuts = 0;
  one.onConnection((_peer, connected) => {
    if (!connected) cuts++;
  });
  // A member that no longer knows the other cuts it, as a network does that breaks.
  two.setMembers(addressBook([two]), new Map());
  await until(() => cuts > 0);
  makeMembers([one, two]);
  await until(() => one.connections().includes(two.peerId));
  expect(text(await one.request(two.peerId, "ask", bytes("after"), SOON))).toBe("after");
});

test("a request to a member that is gone ends within its time", async () => {
  const [one, two] = await pair();
  await two.close();
  await expect(
    one.request(two.peerId, "ask", bytes(""), { timeoutMs: 3_000 }),
  ).rejects.toMatchObject({ code: "peer_unreachable" });
});

test("requests that are under way when the other side closes fail at once", async () => {
  const [one, two] = await pair();
  let arrived = 0;
  two.handle("ask", () => {
    arrived++;
    return new Promise(() => undefined);
  });
  const asked = one.request(two.peerId, "ask", bytes(""), { timeoutMs: 60_000 });
  const refused = expect(asked).rejects.toMatchObject({ code: "peer_unreachable" });
  await until(() => arrived === 1);
  const began = performance.now();
  await two.close();
  expect(performance.now() - began).toBeLessThan(2_500);
  await refused;
});

test("an address that is in use is a configuration error that names it", async () => {
  const [address = ""] = (await world.peer()).addresses();
  await expect(world.peer({ listen: [address] })).rejects.toMatchObject({
    code: "config_invalid",
    message: expect.stringContaining(address) as string,
  });
});

test("an address may end with the peer id, for dialling and for members", async () => {
  const [one, two] = [await world.peer(), await world.peer({ admitStrangers: () => true })];
  echo(two);
  const full = two.addresses().map((address) => `${address}/p2p/${two.peerId}`);
  expect(await one.dial(full, SOON)).toBe(two.peerId);
  const three = await world.peer();
  two.setMembers(addressBook([two, three]), new Map());
  three.setMembers(new Map([[two.peerId, full]]), new Map());
  expect(text(await three.request(two.peerId, "ask", bytes("x"), SOON))).toBe("x");
});
