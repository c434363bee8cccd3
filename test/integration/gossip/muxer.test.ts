import { createServer, connect, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { Transport } from "../../../src/gossip/ports.ts";
import { PeerWorld, bytes, text, until } from "../../support/p2p.ts";

const world = new PeerWorld();
const closers: (() => void)[] = [];
afterEach(async () => {
  await world.end();
  for (const close of closers.splice(0)) close();
});

/** Counts what goes each way to a peer. */
async function cable(
  to: Transport,
): Promise<{ address: string; there: () => number; back: () => number }> {
  const port = Number(/tcp\/(\d+)/.exec(to.addresses()[0] ?? "")?.[1]);
  const sums = { there: 0, back: 0 };
  const sockets: Socket[] = [];
  const server = createServer((caller) => {
    const called = connect(port, "127.0.0.1");
    sockets.push(caller, called);
    caller.on("error", () => called.destroy()).on("data", ({ length }) => (sums.there += length));
    called.on("error", () => caller.destroy()).on("data", ({ length }) => (sums.back += length));
    caller.pipe(called).pipe(caller);
  });
  closers.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("it listens on TCP");
  return {
    address: `/ip4/127.0.0.1/tcp/${address.port}`,
    there: () => sums.there,
    back: () => sums.back,
  };
}

test("a small request and its answer are one message each: no window is opened for them", async () => {
  const [one, two] = [await world.peer(), await world.peer()];
  const { address, there, back } = await cable(two);
  const none = new Map<string, string>();
  two.setMembers(new Map([[one.peerId, []]]), none);
  one.setMembers(new Map([[two.peerId, [address]]]), none);
  two.handle("probe", (_from, body) => Promise.resolve(body));
  const ask = () => one.request(two.peerId, "probe", bytes("0123456789"), { timeoutMs: 10_000 });
  // Whatever a new connection has to say is said.
  await until(async () => {
    const before = there() + back();
    await ask();
    await new Promise((resolve) => setTimeout(resolve, 50));
    return there() + back() - before < 150;
  });
  const before = { there: there(), back: back() };
  const count = 500;
  for (let at = 0; at < count; at++) expect(text(await ask())).toBe("0123456789");
  // Head of a frame 9, of yamux 12, of noise 18; a window's frame would be 30 more.
  const least = count * (10 + 9 + 12 + 18);
  for (const sum of [there() - before.there, back() - before.back]) {
    expect(sum).toBeGreaterThanOrEqual(least);
    expect(sum).toBeLessThan(least + count * 15);
  }
});
