import { describe, expect, test } from "vitest";
import { restoreMessage } from "../../../src/daemon/runtime/guest-agent.ts";
import { guestArchive } from "../../../src/daemon/runtime/guest-init.ts";
import { shapeOf, vmArguments } from "../../../src/daemon/runtime/qemu/command.ts";
import { readConsole } from "../../../src/daemon/runtime/qemu/console.ts";
import { readForwards } from "../../../src/daemon/runtime/qemu/machine.ts";
import type { GuestSpec } from "../../../src/domain/index.ts";
import { PassThrough } from "node:stream";

const guest: GuestSpec = {
  command: ["/bin/server"],
  args: ["--name", "it's"],
  env: ["A=1"],
  workingDir: "/srv",
  cpuMillis: 1_500,
  memoryMib: 256,
  exposedPorts: [80],
};

describe("a guest", () => {
  test("gets whole processors and enough memory to unpack its kernel", () => {
    expect(shapeOf(guest)).toEqual({ cpus: 2, memoryMib: 256 });
    expect(shapeOf({ ...guest, cpuMillis: 0, memoryMib: 1 })).toEqual({ cpus: 1, memoryMib: 128 });
  });

  test("is given the same archive for the same specification", () => {
    expect(guestArchive(guest).equals(guestArchive({ ...guest }))).toBe(true);
    expect(guestArchive(guest).length % 4).toBe(0);
  });

  test("is told seconds, nanoseconds and 512 bits of entropy", () => {
    const entropy = Buffer.alloc(64, 7);
    const message = restoreMessage(1_700_000_000_250, entropy);
    expect(message.readBigInt64LE(0)).toBe(1_700_000_000n);
    expect(message.readBigInt64LE(8)).toBe(250_000_000n);
    expect([message.readInt32LE(16), message.readInt32LE(20)]).toEqual([512, 64]);
    expect(message.subarray(24).equals(entropy)).toBe(true);
    expect(() => restoreMessage(0, Buffer.alloc(8))).toThrow(RangeError);
  });

  test("gets no option of QEMU by a comma in a folder's name", () => {
    const args = vmArguments({
      name: "x",
      accelerator: "tcg",
      shape: shapeOf(guest),
      memory: { path: "/data,share=on/memory", share: false },
      diskPath: "/data,x/disk",
      below: [
        { path: "/data,x/tpl", format: "qcow2" },
        { path: "/data,x/root", format: "raw" },
      ],
      guestPorts: [80, 443],
      isolated: true,
      start: "incoming",
    });
    const memory = JSON.parse(args[args.indexOf("-object") + 1] ?? "") as Record<string, unknown>;
    expect(memory).toMatchObject({ "mem-path": "/data,share=on/memory", share: false });
    expect(args.filter((arg) => arg.includes("/data,"))).toHaveLength(2);
    expect(args).toContain(
      "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:443",
    );
  });
});

test("the host port of each guest port is read from QEMU's own list", () => {
  const list = [
    "Hub -1 (net):",
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ",
    "  TCP[ESTABLISHED]   15       10.0.2.15 41000         1.2.3.4    80     0     0",
    "  TCP[HOST_FORWARD]  12       127.0.0.1 32987       10.0.2.15    80     0     0",
    "  TCP[HOST_FORWARD]  13       127.0.0.1 32988       10.0.2.15  8080     0     0",
  ].join("\r\n");
  expect(readForwards(list)).toEqual({
    "80": { host: "127.0.0.1", port: 32_987 },
    "8080": { host: "127.0.0.1", port: 32_988 },
  });
});

test("a console gives whole lines without control codes, and keeps the last forty", async () => {
  const stream = new PassThrough();
  const lines: string[] = [];
  const console = readConsole(stream, (line) => lines.push(line));
  stream.write("\u001b[2J\u001b[1mfir");
  stream.write("st\u001b[0m\r\n\r\n");
  for (let line = 0; line < 50; line++) stream.write(`line ${line}\n`);
  stream.end("x".repeat(5_000));
  await expect.poll(() => lines.length).toBe(54);
  expect(lines[0]).toBe("first");
  expect(lines.slice(-3).map(({ length }) => length)).toEqual([2_048, 2_048, 904]);
  expect(console.tail()).toHaveLength(40);
  expect(console.tail()[0]).toBe("line 13");
});
