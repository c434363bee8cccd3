import { expect, test } from "vitest";
import { crc32c } from "../../../../src/daemon/build/ext4/crc32c.ts";
import { halfMd4 } from "../../../../src/daemon/build/ext4/half-md4.ts";
import { geometryOf, hasSuperblock, imageBytes } from "../../../../src/daemon/build/ext4/layout.ts";

const MIB = 1024 ** 2;

test("crc32c answers the vectors of RFC 3720", () => {
  const of = (bytes: Uint8Array) => (crc32c(0xffffffff, bytes) ^ 0xffffffff) >>> 0;
  expect(of(Buffer.from("123456789"))).toBe(0xe3069283);
  expect(of(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(of(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(of(Buffer.from(Array.from({ length: 32 }, (_, i) => i)))).toBe(0x46dd794e);
});

test("half MD4 answers what debugfs's dx_hash answers", () => {
  const seed = [0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c];
  const of = (text: string) => halfMd4(Buffer.from(text).toString("latin1"), seed) >>> 0;
  expect(of("a")).toBe(0x0a2fa3a0);
  expect(of("hello")).toBe(0xaf3d0524);
  expect(of("file-number-17")).toBe(0x27fb4494);
  expect(of("x".repeat(40))).toBe(0x3036c57a);
  expect(of("long".repeat(50))).toBe(0x2293eefe);
});

test("the size is data, 256 MiB, 10 % and 1 KiB a file, in steps of 256 MiB from 1 GiB", () => {
  const size = (dataBytes: number, files: number, extraFreeBytes = 0) =>
    imageBytes({ dataBytes, files, extraFreeBytes, usedBytes: dataBytes, inodes: files }) / MIB;
  expect(size(100 * MIB, 10)).toBe(1_024);
  // 4198.4 * 1.1 + 256 + 87.9 MiB, rounded up.
  expect(size(Math.round(4.1 * 1024 * MIB), 90_000)).toBe(5_120);
  expect(size(100 * MIB, 10, 2_048 * MIB)).toBe(2_560);
});

test("many empty files get enough groups for their inodes", () => {
  const bytes = imageBytes({
    ...{ dataBytes: 0, files: 300_000, extraFreeBytes: 0, usedBytes: 0, inodes: 300_011 },
  });
  const geometry = geometryOf(bytes, 300_011);
  expect(geometry.inodesPerGroup).toBeLessThanOrEqual(32_768);
  expect(geometry.inodesPerGroup * geometry.groups).toBeGreaterThan(300_011 * 1.2);
  expect(geometry.inodeTableBlocks * 16).toBe(geometry.inodesPerGroup);
});

test("superblock copies are in groups 0, 1 and the powers of 3, 5 and 7", () => {
  const groups = Array.from({ length: 130 }, (_, group) => group).filter(hasSuperblock);
  expect(groups).toEqual([0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
});
