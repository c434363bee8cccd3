import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { refusalOf } from "../support/layers.ts";
import { TarBuilder } from "../support/tar-builder.ts";

/** mulberry32: the same archives on every run; a failure names its seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const sparse = { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "900" };
const archive = new TarBuilder()
  .directory("d", { mode: 0o755 })
  .file("d/a", "x".repeat(700))
  .longName(`d/${"n".repeat(150)}`)
  .file("n", "y")
  .pax({ path: "p", size: "3", mtime: "1.5", "SCHILY.xattr.user.a": "b" })
  .file("x", "abc")
  .pax({ "GNU.sparse.map": "1,2,4,1", "GNU.sparse.size": "9" })
  .file("s", "123")
  .pax(sparse)
  .file("s1", `${"1\n0\n3\n".padEnd(512, "\0")}abc`)
  .symlink("l", "d")
  .file("l/b", "1")
  .hardlink("h", "d/a")
  .file("d/.wh.a")
  .file("d/.wh..wh..opq")
  .header({ name: "c", type: "3", major: 1, minor: 3 })
  .build();

/** Checksums made right again, so that a change in a header is read and not only refused. */
function fixChecksums(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString("latin1", at + 257, at + 262) !== "ustar") continue;
    bytes.fill(32, at + 148, at + 156);
    const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
  }
}

function mutate(seed: number): Buffer {
  const random = randomOf(seed);
  let bytes: Buffer = Buffer.from(archive);
  for (let count = 1 + random(3); count > 0; count--) {
    // Half of the changes go to a header's numbers, type and link.
    const block = 512 * random(bytes.length >> 9);
    const at = random(2) === 0 ? random(bytes.length) : block + 100 + random(60);
    const kind = random(8) % 5;
    if (kind === 0) bytes[at] = random(256);
    else if (kind === 1) bytes[at] = "0179 /.\n=,"[random(10)]!.charCodeAt(0);
    else if (kind === 2 && random(3) === 0) bytes = bytes.subarray(0, Math.max(1, at));
    else if (kind === 3) {
      const to = 512 * random(bytes.length >> 9);
      const copy = bytes.subarray(block, block + 512);
      bytes = Buffer.concat([bytes.subarray(0, to), copy, bytes.subarray(to)]);
    } else bytes.copyWithin(at, random(bytes.length), random(bytes.length));
  }
  if (random(4) > 0) fixChecksums(bytes);
  return bytes;
}

it("ends with a tree or a refusal for 600 damaged archives, and nothing else", async () => {
  const outcomes = new Map<unknown, number>();
  for (let seed = 1; seed <= 600; seed++) {
    const blob = mutate(seed);
    const packed = seed % 5 === 0;
    const layer = packed ? gzipSync(blob) : blob;
    const outcome = await refusalOf([
      { blob: layer, compression: packed ? "gzip" : "none", pieceBytes: 1 + (seed % 1500) },
    ]).catch((error: unknown) => {
      throw new Error(`seed ${seed}`, { cause: error });
    });
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  // The mutations must reach deep: many kinds of refusal, and some archives that still read.
  expect(outcomes.size).toBeGreaterThan(10);
  expect(outcomes.get("accepted")).toBeGreaterThan(20);
});

it("ends with a tree or a refusal for random bytes behind a right first header", async () => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = randomOf(seed);
    const noise = Buffer.from(Array.from({ length: 4096 }, () => random(256)));
    expect(await refusalOf([Buffer.concat([archive.subarray(0, 512), noise])])).toBeTypeOf(
      "string",
    );
  }
});
