import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import type { TestLayer } from "../../support/layers.ts";
import { applyLayers, refusalOf, sha256 } from "../../support/layers.ts";
import { decodeZstd } from "../../../src/daemon/build/layers/zstd-wasm.ts";
import { listTree } from "../../support/memory-tree.ts";
import { piecesOf } from "../../support/layers.ts";
import { TarBuilder } from "../../support/tar-builder.ts";
import { isAppError } from "../../../src/domain/index.ts";

const zstd = (bytes: Buffer, ...options: string[]): Buffer =>
  execFileSync("zstd", ["-q", "-c", ...options], { input: bytes, maxBuffer: 1e9 });

const layer = new TarBuilder()
  .file("a", "hello")
  .file("random", randomBytes(300_000))
  .file("zeros", Buffer.alloc(1_000_000))
  .build();
const names = async (test: TestLayer) =>
  listTree(await applyLayers([test])).map((line) => line.split("=")[0]);
const all = ["a", "random", "zeros"];

describe("gzip layers", () => {
  it("come out whole, in pieces of any size, with their diff id checked", async () => {
    const blob = gzipSync(layer);
    for (const pieceBytes of [997, 65_536, blob.length]) {
      const diffId = sha256(layer);
      expect(await names({ blob, compression: "gzip", diffId, pieceBytes })).toEqual(all);
    }
  });

  it("may have several members, split anywhere", async () => {
    const first = gzipSync(layer.subarray(0, 100_000));
    const blob = Buffer.concat([first, gzipSync(layer.subarray(100_000))]);
    for (const pieceBytes of [first.length, 1000, blob.length]) {
      const test = { blob, compression: "gzip", diffId: sha256(layer), pieceBytes } as const;
      expect(await names(test)).toEqual(all);
    }
  });

  it("are told by their bytes, whatever the media type says", async () => {
    expect(await names({ blob: gzipSync(layer), compression: "none" })).toEqual(all);
    expect(await names({ blob: gzipSync(layer), compression: "zstd" })).toEqual(all);
  });

  const packed = gzipSync(layer);
  const damaged = Buffer.from(packed);
  damaged.fill(0x55, 5000, 5100);
  const flipped = Buffer.from(packed);
  flipped[flipped.length - 5]! ^= 1;
  it.each<[string, TestLayer]>([
    ["truncated_gzip", { blob: packed.subarray(0, packed.length - 5) }],
    ["truncated_gzip", { blob: packed.subarray(0, 1000) }],
    ["truncated_gzip", { blob: Buffer.alloc(0) }],
    ["bad_gzip", { blob: flipped }],
    ["bad_gzip", { blob: layer }],
    ["not_a_tar", { blob: gzipSync(Buffer.from("no tar at all".repeat(100))) }],
  ])("are refused with %s", async (reason, test) => {
    expect(await refusalOf([{ compression: "gzip", ...test }])).toBe(reason);
  });

  it("are refused when damaged, by whichever check comes to it first", async () => {
    const refusal = await refusalOf([{ compression: "gzip", blob: damaged }]);
    expect(["bad_gzip", "bad_checksum"]).toContain(refusal);
  });

  it.each([
    ["garbage", Buffer.from("garbage after the end")],
    ["zeros", Buffer.alloc(100)],
    ["a zero and garbage", Buffer.from("\0garbage")],
  ])("are refused when %s follows", async (_, tail) => {
    for (const pieceBytes of [packed.length, packed.length + 50, 1024]) {
      const blob = Buffer.concat([packed, tail]);
      const reason = await refusalOf([{ blob, compression: "gzip", pieceBytes }]);
      expect(["bad_gzip", "compressed_trailing_data"]).toContain(reason);
    }
  });
});

describe("zstd layers", () => {
  it("come out whole, several frames and a skippable one included", async () => {
    const skippable = Buffer.from("502a4d1803000000abcdef", "hex");
    const halves = [layer.subarray(0, 70_000), layer.subarray(70_000)].map((half) => zstd(half));
    const blob = Buffer.concat([skippable, ...halves]);
    for (const pieceBytes of [1, 1000, blob.length]) {
      const test = { blob, compression: "zstd", diffId: sha256(layer), pieceBytes } as const;
      expect(await names(test)).toEqual(all);
    }
  });

  it("come out whole at the highest level with the longest window", async () => {
    const big = new TarBuilder().file("big", Buffer.alloc(20_000_000, "pattern")).build();
    const blob = zstd(big, "--ultra", "-20");
    expect(await names({ blob, compression: "zstd", diffId: sha256(big) })).toEqual(["big"]);
  });

  const packed = zstd(layer);
  const damaged = Buffer.from(packed);
  damaged[damaged.length - 1]! ^= 1;
  it.each<[string, TestLayer]>([
    ["truncated_zstd", { blob: packed.subarray(0, packed.length - 5) }],
    ["truncated_zstd", { blob: packed.subarray(0, 1000) }],
    ["bad_zstd", { blob: damaged }],
    ["bad_zstd", { blob: Buffer.concat([packed, Buffer.from("garbage after it")]) }],
  ])("are refused with %s", async (reason, test) => {
    expect(await refusalOf([{ compression: "zstd", ...test }])).toBe(reason);
  });

  it("end in a refusal and not in a hang when any one byte is wrong", async () => {
    const small = zstd(layer.subarray(0, 20_000));
    for (let at = 4; at < small.length; at += 997) {
      const wrong = Buffer.from(small);
      wrong[at]! ^= 0x41;
      try {
        for await (const bytes of decodeZstd(piecesOf(wrong, 500))) expect(bytes).toBeDefined();
      } catch (error) {
        expect(isAppError(error, "image_refused")).toBe(true);
      }
    }
  });
});

describe("limits and digests", () => {
  it("refuses a layer that expands past the limit", async () => {
    const test = { blob: gzipSync(layer), compression: "gzip" } as const;
    expect(await refusalOf([test], { expandedBytes: layer.length })).toBe("accepted");
    expect(await refusalOf([test], { expandedBytes: layer.length - 1 })).toBe("decompression_bomb");
  });

  it("counts the expanded bytes of all layers together", async () => {
    const limits = { expandedBytes: layer.length * 2 - 1 };
    expect(await refusalOf([layer, layer], limits)).toBe("decompression_bomb");
  });

  it("refuses a ratio that only a bomb has", async () => {
    const zeros = zstd(new TarBuilder().file("z", Buffer.alloc(8_000_000)).build());
    const test = { blob: zeros, compression: "zstd" } as const;
    expect(await refusalOf([test])).toBe("accepted");
    expect(await refusalOf([test], { ratioFloorBytes: 1_000_000 })).toBe("decompression_bomb");
  });

  it("raises image_digest_mismatch when the content is not the config's", async () => {
    const diffId = `sha256:${"0".repeat(64)}`;
    const test = { blob: gzipSync(layer), compression: "gzip", diffId } as const;
    expect(await refusalOf([test])).toBe("image_digest_mismatch");
  });

  it("passes an error of the source through as it is", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield gzipSync(layer).subarray(0, 100);
      throw new Error("the line is dead");
    }
    const { decompress } = await import("../../../src/daemon/build/layers/decompress.ts");
    const drain = async () => {
      for await (const bytes of decompress(broken(), "gzip")) expect(bytes).toBeDefined();
    };
    await expect(drain()).rejects.toThrow("the line is dead");
  });
});
