import { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import {
  agentVersion,
  canSync,
  restoreMessage,
  syncMessage,
} from "../../../src/daemon/runtime/guest-agent.ts";
import { SYNC_TIMEOUT_MS, syncGuest } from "../../../src/daemon/runtime/qemu/guest-sync.ts";
import { realClock } from "../../support/real-clock.ts";

const random = { bytes: (length: number) => new Uint8Array(length).fill(7), uuid: () => "" };
/** Time passes when the test says so. */
function stillClock() {
  const due: { readonly ms: number; readonly call: () => void }[] = [];
  const after = (ms: number, call: () => void) => {
    due.push({ ms, call });
    return { cancel: () => undefined };
  };
  return { clock: { ...realClock, after }, pass: () => due.forEach(({ call }) => call()), due };
}

/** A guest whose agent answers a message with the pieces that `says` gives. */
function guest(says: (message: Buffer) => readonly (Buffer | string)[], port = "guest on") {
  const agent = new Duplex({
    read: () => undefined,
    write(message: Buffer, _encoding, done) {
      for (const piece of says(message)) agent.push(piece);
      done();
    },
  });
  const tree = `dev: virtserialport\n name = "templatecenter.agent"\n port 1, ${port}, host on\n`;
  const qmp = { execute: () => Promise.resolve({}), monitor: () => Promise.resolve(tree) };
  const { signal } = new AbortController();
  const about = { qmp, vmDir: "none", agentVersion: agentVersion(), agent, random, signal };
  return about;
}
const answer = (message: Buffer) => message.subarray(16, 20);

describe("a guest that is asked to flush", () => {
  test("has done so when its agent gives the word back, whatever comes before it", async () => {
    const on = guest((message) => ["k", answer(message).subarray(0, 1), answer(message), "r"]);
    expect(await syncGuest({ ...on, clock: realClock })).toBe("");
    const inPieces = guest((message) => [...answer(message)].map((byte) => Buffer.from([byte])));
    expect(await syncGuest({ ...inPieces, clock: realClock })).toBe("");
  });

  test("is waited for no longer than that", async () => {
    const { clock, pass, due } = stillClock();
    const on = guest(() => ["k", Buffer.from([0x81, 0x82, 0x83, 0x84])]);
    const asked = syncGuest({ ...on, clock });
    await expect.poll(() => due.map(({ ms }) => ms)).toEqual([SYNC_TIMEOUT_MS]);
    pass();
    expect(await asked).toBe("the guest did not flush within 20 s");
  });

  test("is not asked when its agent is too old, is gone, or cannot be reached", async () => {
    const on = { ...guest(() => []), clock: realClock };
    expect(await syncGuest({ ...on, agentVersion: "1.0.0+dda2426e" })).toMatch(/1\.0\.0.* cannot/);
    expect(await syncGuest({ ...on, agentVersion: "" })).toMatch(/cannot flush/);
    const gone = { ...guest(() => [], "guest off"), clock: realClock };
    expect(await syncGuest(gone)).toBe("the guest's agent does not run");
    const nobody = { ...guest(() => []), agent: undefined, clock: realClock };
    expect(await syncGuest(nobody)).toMatch(/^the guest's agent was not reached/);
    const ended = guest(() => {
      ended.agent.destroy();
      return [];
    });
    expect(await syncGuest({ ...ended, clock: realClock })).toMatch(/has ended/);
  });

  test("is waited for no more when that is not wanted any more", async () => {
    const abort = new AbortController();
    const on = guest(() => {
      abort.abort(new Error("no longer wanted"));
      return [];
    });
    const asked = syncGuest({ ...on, clock: realClock, signal: abort.signal });
    await expect(asked).rejects.toThrow("no longer wanted");
  });
});

describe("the message that asks for it", () => {
  test("is as long as the other, and refused by an agent that does not know it", () => {
    const { message } = syncMessage(new Uint8Array(4));
    expect(message.length).toBe(restoreMessage(0, new Uint8Array(64)).length);
    // Neither a time nor a number of bits.
    expect(message.readBigInt64LE(8)).toBe(-1n);
    expect(message.readInt32LE(16)).toBeLessThan(0);
  });

  test("is answered by no byte of another word", () => {
    for (const token of [new Uint8Array(4), Buffer.from("krkr")]) {
      expect([...syncMessage(token).answer].every((byte) => byte >= 0x80)).toBe(true);
    }
  });

  test("is known from version 1.1 on", () => {
    const versions = ["1.1.0+a", "1.10.2+a", "2.0.0", "1.0.9+a", "0.9.0", "none", "reference-1"];
    expect(versions.map(canSync)).toEqual([true, true, true, false, false, false, false]);
  });
});
