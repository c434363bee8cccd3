import { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { Qmp } from "../../../src/daemon/runtime/qemu/qmp.ts";
import { realClock } from "../../support/real-clock.ts";

type Command = { execute: string; arguments: Record<string, unknown>; id: number };

/** The other end of a control channel: hears whole commands, says whatever bytes. */
function fakeQemu() {
  const commands: Command[] = [];
  const channel = new Duplex({
    read() {
      // Pushed from outside.
    },
    write(bytes: Buffer, _encoding, done) {
      for (const line of bytes.toString().trim().split("\n")) {
        commands.push(JSON.parse(line) as Command);
      }
      done();
    },
  });
  const say = (message: unknown) => channel.push(`${JSON.stringify(message)}\r\n`);
  return { commands, channel, say, qmp: new Qmp(channel, realClock) };
}

describe("the QMP client", () => {
  test("gives each answer to its command, whatever their order", async () => {
    const { qmp, commands, say } = fakeQemu();
    const first = qmp.execute("query-status");
    const second = qmp.execute("stop", { now: true });
    await expect.poll(() => commands.length).toBe(2);
    expect(commands[1]).toEqual({ execute: "stop", arguments: { now: true }, id: 2 });
    say({ return: "second", id: 2 });
    say({ return: { running: true }, id: 1 });
    expect(await first).toEqual({ running: true });
    expect(await second).toBe("second");
  });

  test("reads messages that come in pieces and several at once", async () => {
    const { qmp, channel } = fakeQemu();
    const answer = qmp.execute("a");
    const event = qmp.waitFor(({ event }) => event === "RESUME");
    const text =
      '{"QMP": {"version": {}}}\r\n{"event": "STOP"}\r\n' +
      '{"event": "RESUME", "data": {"é": 1}, ' +
      '"timestamp": {"seconds": 12, "microseconds": 500}}\r\n{"return": "ü", "id": 1}\r\n';
    for (const byte of Buffer.from(text)) channel.push(Buffer.from([byte]));
    expect(await event).toEqual({ event: "RESUME", data: { é: 1 }, at: 12_000.5 });
    expect(await answer).toBe("ü");
  });

  test("fails a refused command with QEMU's own words", async () => {
    const { qmp, say } = fakeQemu();
    const refused = qmp.execute("cont");
    say({ error: { class: "GenericError", desc: "the guest is gone" }, id: 1 });
    await expect(refused).rejects.toMatchObject({
      code: "driver_unavailable",
      message: "QEMU refused cont",
      cause: { message: "the guest is gone" },
    });
  });

  test("fails everything that waits when the channel ends, and what comes later", async () => {
    const { qmp, channel } = fakeQemu();
    const waits = [qmp.execute("a"), qmp.waitFor(() => true)];
    channel.push(null);
    for (const wait of waits) await expect(wait).rejects.toMatchObject({ message: /has ended/ });
    await expect(qmp.execute("b")).rejects.toMatchObject({ message: /has ended/ });
  });

  test("ends the channel on what is not QMP", async () => {
    const { qmp, channel } = fakeQemu();
    const waits = qmp.execute("a");
    channel.push("hello\r\n");
    await expect(waits).rejects.toMatchObject({ message: /has ended/ });
    expect(channel.destroyed).toBe(true);
  });

  test("waits no longer than it was told", async () => {
    const { qmp } = fakeQemu();
    const keepAlive = setInterval(() => undefined, 1_000);
    await expect(qmp.execute("a", {}, { timeoutMs: 10 })).rejects.toMatchObject({
      message: "QEMU did not answer a within 10 ms",
    });
    clearInterval(keepAlive);
  });

  test("stops waiting when its caller does", async () => {
    const { qmp, say } = fakeQemu();
    const abort = new AbortController();
    const waits = qmp.execute("a", {}, { signal: abort.signal });
    abort.abort(new Error("no longer wanted"));
    await expect(waits).rejects.toThrow("no longer wanted");
    say({ return: "late", id: 1 });
    const next = qmp.execute("b");
    say({ return: "next", id: 2 });
    expect(await next).toBe("next");
  });
});
