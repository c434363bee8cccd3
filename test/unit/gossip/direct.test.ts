import type { Stream } from "@libp2p/interface";
import { expect, test } from "vitest";
import type { Clock } from "../../../src/domain/index.ts";
import { DirectStreams, type Message } from "../../../src/gossip/libp2p/direct.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));
const change = (text: string): Message => ({
  topic: "changes",
  body: new TextEncoder().encode(text),
});

/** A clock that is moved by hand. */
function handClock() {
  let nowMs = 0;
  let timers: { atMs: number; callback: () => void }[] = [];
  const clock: Clock = {
    now: () => nowMs,
    monotonic: () => nowMs,
    sleep: () => Promise.resolve(),
    after(ms, callback) {
      timers.push({ atMs: nowMs + ms, callback });
      return { cancel: () => undefined };
    },
  };
  const move = (ms: number) => {
    nowMs += ms;
    const due = timers.filter(({ atMs }) => atMs <= nowMs);
    timers = timers.filter(({ atMs }) => atMs > nowMs);
    for (const { callback } of due) callback();
  };
  return { clock, move };
}

/** Streams that note what is sent on them; opening one waits until it is let through. */
function setUp() {
  const { clock, move } = handClock();
  const sent: string[] = [];
  const unsent: string[] = [];
  const openings: { peer: string; resolve: () => void; reject: () => void }[] = [];
  const streamTo = (peer: string) =>
    ({
      status: "open",
      addEventListener: () => undefined,
      abort: () => undefined,
      send(bytes: Uint8Array) {
        // Without the head of the frame.
        sent.push(`${peer} ${new TextDecoder().decode(bytes.subarray(9))}`);
        return true;
      },
    }) as unknown as Stream;
  const direct = new DirectStreams({
    clock,
    open: (peer) =>
      new Promise((resolve, reject) =>
        openings.push({
          peer,
          resolve: () => resolve(streamTo(peer)),
          reject: () => reject(new Error("not known there")),
        }),
      ),
    onUnsent: ({ body }) => void unsent.push(new TextDecoder().decode(body)),
  });
  const connect = (...peers: string[]) => peers.forEach((peer) => direct.onPeer(peer, true));
  const openAll = async () => {
    for (const { resolve } of openings.splice(0)) resolve();
    await settle();
  };
  return { direct, sent, unsent, openings, openAll, connect, move };
}

test("a message goes once to each; what waits for streams that are being opened goes then", async () => {
  const { direct, sent, openAll, connect, openings } = setUp();
  connect("a", "b");
  expect(direct.publish(change("one"), ["a", "b"])).toBe(true);
  expect(direct.publish(change("two"), ["a", "b"])).toBe(true);
  expect(openings).toHaveLength(2);
  expect(sent).toEqual([]);
  await openAll();
  direct.publish(change("three"), ["a", "b"]);
  await settle();
  const text = sent.join(" ");
  for (const word of ["one", "two", "three"]) expect(text.split(word)).toHaveLength(3);
  expect(openings).toHaveLength(0);
});

test("nobody is sent anything while one member is not connected", async () => {
  const { direct, openings, connect } = setUp();
  connect("a");
  expect(direct.publish(change("one"), ["a", "b"])).toBe(false);
  connect("b");
  expect(direct.publish(change("one"), ["a", "b"])).toBe(true);
  direct.onPeer("b", false);
  expect(direct.publish(change("two"), ["a", "b"])).toBe(false);
  expect(openings).toHaveLength(2);
});

test("a peer that does not take the stream gets it another way, and is tried again later", async () => {
  const { direct, unsent, openings, openAll, connect, move, sent } = setUp();
  connect("a");
  expect(direct.publish(change("one"), ["a"])).toBe(true);
  openings.splice(0)[0]?.reject();
  await settle();
  expect(unsent).toEqual(["one"]);
  expect(direct.publish(change("two"), ["a"])).toBe(false);
  move(5_000);
  expect(direct.publish(change("three"), ["a"])).toBe(true);
  await openAll();
  expect(sent).toEqual(["a three"]);
});

test("a peer that has been silent for long is not relied on until it is heard of", () => {
  const { direct, connect, move } = setUp();
  connect("a");
  move(30_001);
  expect(direct.publish(change("one"), ["a"])).toBe(false);
  direct.heard("a");
  expect(direct.publish(change("two"), ["a"])).toBe(true);
  // What comes from a connection that has ended in the meantime does not count.
  direct.onPeer("a", false);
  direct.heard("a");
  expect(direct.publish(change("three"), ["a"])).toBe(false);
});

test("in a large cluster a peer may be silent for as long as its turn to be asked takes", async () => {
  const { direct, connect, move } = setUp();
  const peers = Array.from({ length: 60 }, (_, index) => `p${index}`);
  connect(...peers);
  move(60_000);
  expect(direct.publish(change("one"), ["p0", "p1"])).toBe(false);
  expect(direct.publish(change("two"), peers)).toBe(true);
  move(61_000);
  expect(direct.publish(change("three"), peers)).toBe(false);
});
