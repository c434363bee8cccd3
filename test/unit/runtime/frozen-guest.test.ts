import { describe, expect, test } from "vitest";
import { joinStates } from "../../../src/daemon/runtime/qemu/device-state.ts";
import { readMappings } from "../../../src/daemon/runtime/qemu/guest-memory.ts";

const number = (value: number, bytes: 1 | 4 | 8): Buffer => {
  const out = Buffer.alloc(bytes);
  if (bytes === 8) out.writeBigUInt64BE(BigInt(value));
  else if (bytes === 4) out.writeUInt32BE(value);
  else out.writeUInt8(value);
  return out;
};
const name = (text: string) => Buffer.concat([number(text.length, 1), Buffer.from(text)]);
const head = Buffer.concat([Buffer.from("QEVM"), number(3, 4)]);
const footer = Buffer.concat([number(0x7e, 1), number(2, 4)]);
const end = number(0x10, 8);

/** A state as QEMU writes it of a machine whose memory is in a file, with two pages of firmware. */
const origin = Buffer.concat([
  head,
  Buffer.from("\x07configuration"),
  ...[number(1, 1), number(2, 4), name("ram"), number(0, 4), number(4, 4)],
  ...[number(2 ** 32 + 8_192 + 4, 8), name("ram0"), number(2 ** 32, 8), number(0, 8)],
  ...[name("bios"), number(8_192, 8), number(0xff00, 8)],
  ...[end, footer],
  ...[number(2, 1), number(2, 4)],
  ...[number(0x08, 8), name("bios"), Buffer.alloc(4_096, 0x7e)],
  ...[number(4_096 + 0x22, 8), number(0, 1)],
  ...[end, footer],
  ...[number(3, 1), number(2, 4), end, footer],
]);
const devices = Buffer.from("\x04devices as they were\0");

describe("a state made of two", () => {
  test("has the memory's sections of the first and the devices of the second", () => {
    const first = Buffer.concat([origin, devices]);
    const joined = joinStates(first, Buffer.concat([head, Buffer.from("now")]));
    expect(joined.equals(Buffer.concat([origin, Buffer.from("now\x06\0\0\0\0")]))).toBe(true);
    // What was made of two can be the first of the next.
    const again = joinStates(joined, Buffer.concat([head, Buffer.from("later")]));
    expect(again.equals(Buffer.concat([origin, Buffer.from("later\x06\0\0\0\0")]))).toBe(true);
  });

  test("is refused when one is cut off or of another format", () => {
    const now = Buffer.concat([head, devices]);
    for (const length of [4, 20, 60, 100, 3_000, origin.length - 3]) {
      expect(() => joinStates(origin.subarray(0, length), now), `${length}`).toThrow();
    }
    const other = Buffer.concat([Buffer.from("QEVM"), number(4, 4), devices]);
    expect(() => joinStates(origin, other)).toThrow("differ");
  });
});

describe("the mappings of a guest's memory", () => {
  const maps = [
    "55d0c0000000-55d0c0001000 r--p 00000000 fe:00 77 /usr/bin/qemu",
    "7f0000200000-7f0000400000 rw-p 00200000 fe:00 1234 /data/with blanks/memory",
    "7f0000000000-7f0000200000 rw-p 00000000 fe:00 1234 /data/with blanks/memory (deleted)",
    "7f0001000000-7f0001200000 rw-s 00000000 fe:00 1234 /data/with blanks/memory",
    "7f0002000000-7f0002001000 rw-p 00000000 00:00 0 ",
  ].join("\n");

  test("are those of the file that are its own, in the file's order", () => {
    expect(readMappings(maps, 1234)).toEqual([
      { address: 0x7f00_0000_0000, bytes: 0x20_0000, offset: 0 },
      { address: 0x7f00_0020_0000, bytes: 0x20_0000, offset: 0x20_0000 },
    ]);
    expect(readMappings(maps, 5)).toEqual([]);
  });
});
