import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { BakeInputs, RootfsBuilder, RootfsBuildProgress } from "../../src/domain/index.ts";
import { assertDiskSpace, neededBytes } from "../../src/daemon/build/disk-space.ts";
import { createRootfsBuilder } from "../../src/daemon/build/rootfs-builder.ts";
import { imageOf } from "../support/resolved-image.ts";
import { makeCertificate } from "../support/certificates.ts";
import { realClock } from "../support/real-clock.ts";
import { sha256 } from "../support/layers.ts";
import { tarHeader, TarBuilder } from "../support/tar-builder.ts";

const root = join(import.meta.dirname, "../..");
const dir = mkdtempSync(join(tmpdir(), "tc-rootfs-"));
const output = join(dir, "out.ext4");
let threaded: RootfsBuilder;
const here = createRootfsBuilder({ clock: realClock, threadEntry: null });

beforeAll(() => {
  // A thread cannot load TypeScript on Node 20, so this test compiles the sources it runs.
  const cache = join(root, "node_modules/.cache");
  mkdirSync(cache, { recursive: true });
  compiled = mkdtempSync(join(cache, "rootfs-thread-"));
  const config = join(compiled, "tsconfig.json");
  const compilerOptions = { noEmit: false, noCheck: true, rootDir: join(root, "src") };
  const files = [join(root, "src/daemon/build/rootfs-thread.ts")];
  const settings = { extends: join(root, "tsconfig.json"), compilerOptions, files, include: [] };
  writeFileSync(config, JSON.stringify(settings));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const dist = join(compiled, "dist");
  execFileSync(process.execPath, [tsc, "-p", config, "--outDir", dist], { stdio: "pipe" });
  const threadEntry = pathToFileURL(join(dist, "daemon/build/rootfs-thread.js"));
  threaded = createRootfsBuilder({ clock: realClock, threadEntry });
});
let compiled = "";
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
  rmSync(compiled, { recursive: true, force: true });
});
afterEach(() => {
  rmSync(output, { force: true });
});

const tarball = new TarBuilder()
  .directory("etc/ssl/certs")
  .file("data", Buffer.alloc(5_000_000, "some data "))
  .build();
const upper = new TarBuilder().file("more", "1").file(".wh.nothing").build();
const layers = [
  { blob: gzipSync(tarball), compression: "gzip" as const, diffId: sha256(tarball) },
  { blob: upper, diffId: sha256(upper) },
];
const bake: BakeInputs = {
  caPem: Buffer.from(makeCertificate("cube egress root")),
  envd: Buffer.from("agent"),
};
const build = (builder: RootfsBuilder, image = imageOf(layers).image, more = {}) =>
  builder.build(image, output, { sync: false, bake, ...more });

describe("the root filesystem builder", () => {
  it("makes the same bytes in a thread and without, with a clean filesystem", async () => {
    const one = await build(threaded);
    execFileSync("e2fsck", ["-fn", output], { stdio: "pipe" });
    const first = join(dir, "first.ext4");
    renameSync(output, first);
    const two = await build(here);
    expect(two.digest).toBe(one.digest);
    execFileSync("cmp", [first, output], { stdio: "pipe" });
    rmSync(first);
    expect(one.bake).toMatchObject({ ca_baked: true, ca_seeded: true, envd_installed: true });
    expect(one.manifest.sizeBytes).toBe(one.sizeBytes);
    expect(Object.keys(one.timings)).toContain("unpacking_ms");
  });

  it("gives another filesystem identity when what is baked or the image's digest differs", async () => {
    const uuid = async (digest: string, inputs: BakeInputs) => {
      await build(here, imageOf(layers, digest).image, { bake: inputs });
      const text = execFileSync("dumpe2fs", ["-h", output], { encoding: "utf8", stdio: "pipe" });
      rmSync(output);
      return /UUID: +(\S+)/.exec(text)?.[1];
    };
    const [a, b] = [sha256(Buffer.from("a")), sha256(Buffer.from("b"))];
    const all = [await uuid(a, {}), await uuid(b, {}), await uuid(a, bake), await uuid(a, {})];
    expect(new Set(all).size).toBe(3);
    expect(all[3]).toBe(all[0]);
  });

  it("reports the phases in order, bytes and layers up to the totals", async () => {
    const seen: RootfsBuildProgress[] = [];
    const onProgress = (progress: RootfsBuildProgress) => seen.push(progress);
    const { image } = imageOf(layers);
    await build(threaded, image, { onProgress });
    const phases = seen.map((progress) => progress.phase);
    expect([...new Set(phases)]).toEqual(["PULLING", "UNPACKING", "BUILDING_EXT4"]);
    const total = image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    expect(seen.at(-1)).toMatchObject({
      downloadedBytes: total,
      totalBytes: total,
      completedLayers: 2,
      totalLayers: 2,
      writtenBytes: 5_000_001,
    });
  });

  it("opens the layers strictly in order (spec row 48)", async () => {
    const { image, opened } = imageOf([...layers, ...layers]);
    await build(threaded, image);
    expect(opened).toEqual([0, 1, 2, 3]);
  });

  it("names the reason of a refusal across the thread and leaves nothing behind", async () => {
    const hostile = imageOf([...layers, { blob: new TarBuilder().file("../evil").build() }]).image;
    for (const builder of [threaded, here]) {
      await expect(build(builder, hostile)).rejects.toMatchObject({
        name: "AppError",
        code: "image_refused",
        meta: { reason: "path_traversal", layer: 2, path: "../evil" },
      });
      expect(existsSync(output)).toBe(false);
    }
  });

  it("refuses a bad certificate before it makes anything", async () => {
    const bad = { bake: { caPem: Buffer.from("none") } };
    await expect(build(threaded, undefined, bad)).rejects.toMatchObject({ code: "ca_invalid" });
    expect(existsSync(output)).toBe(false);
  });

  it("passes on the very error of a source that fails half-way", async () => {
    const failure = new Error("the line is dead");
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield tarball.subarray(0, 1_000_000);
      throw failure;
    }
    for (const builder of [threaded, here]) {
      await expect(build(builder, imageOf([{ blob: broken }]).image)).rejects.toBe(failure);
      expect(existsSync(output)).toBe(false);
    }
  });

  it("ends at once when it is cancelled, even while a source gives nothing", async () => {
    for (const builder of [threaded, here]) {
      const stop = new AbortController();
      const reason = new Error("cancelled");
      async function* stuck(): AsyncGenerator<Uint8Array> {
        yield tarball.subarray(0, 1_000_000);
        stop.abort(reason);
        yield tarball.subarray(1_000_000, 1_000_001);
        await realClock.sleep(60_000, { signal: stop.signal });
      }
      const { image } = imageOf([{ blob: stuck }]);
      await expect(build(builder, image, { signal: stop.signal })).rejects.toThrow();
      expect(readdirSync(dir)).not.toContain("out.ext4");
    }
  });

  it("fails by name when the thread runs out of memory, and the process lives on", async () => {
    const crash = join(dir, "crash.mjs");
    writeFileSync(crash, "const a = []; for (;;) a.push(new Array(1e5).fill({}));");
    const builder = createRootfsBuilder({ clock: realClock, threadEntry: pathToFileURL(crash) });
    await expect(build(builder)).rejects.toMatchObject({
      code: "image_too_large",
      meta: { reason: "out_of_memory" },
    });
    writeFileSync(join(dir, "throw.mjs"), "throw new TypeError('a bug');");
    const buggy = pathToFileURL(join(dir, "throw.mjs"));
    const other = createRootfsBuilder({ clock: realClock, threadEntry: buggy });
    await expect(build(other)).rejects.toMatchObject({ code: "internal" });
  });

  it("does not touch a file that is already there", async () => {
    writeFileSync(output, "precious");
    await expect(build(threaded)).rejects.toThrow();
    expect(readFileSync(output, "utf8")).toBe("precious");
  });

  it("holds its memory while a layer of more than 2 GB goes through", async () => {
    const piece = Buffer.alloc(1 << 20, "incompressible it is not, but never stored ");
    const sizeBytes = 2200 * piece.length;
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield tarHeader({ name: "big", size: sizeBytes });
      for (let at = 0; at < sizeBytes; at += piece.length) yield piece;
      yield Buffer.alloc(1024);
    }
    const before = process.memoryUsage().rss;
    let peak = 0;
    const watch = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().rss);
    }, 20);
    try {
      const { image } = imageOf([{ blob: endless, sizeBytes }]);
      const result = await build(threaded, image, { bake: {} });
      expect(result.dataBytes).toBe(sizeBytes);
    } finally {
      clearInterval(watch);
    }
    // The test runner itself takes most of the 350 MB a daemon may; this is what a build adds.
    expect(peak - before).toBeLessThan(230_000_000);
  }, 60_000);
});

describe("the disk space check", () => {
  it("asks for four times the compressed bytes and names needed and available", async () => {
    const { image } = imageOf([{ blob: Buffer.alloc(100), sizeBytes: 1000 }, { blob: upper }]);
    expect(neededBytes(image)).toBe((1000 + upper.length) * 4);
    await expect(assertDiskSpace(dir, image)).resolves.toBeUndefined();
    await expect(assertDiskSpace(dir, 2 ** 52)).rejects.toMatchObject({
      code: "disk_space_low",
      meta: { needed: 2 ** 52 },
    });
  });

  it("is skipped where free space cannot be told (spec row 54)", async () => {
    await expect(assertDiskSpace(join(dir, "nowhere"), 2 ** 52)).resolves.toBeUndefined();
  });
});
