import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ImageSource, RegistryCredentials } from "../../../src/domain/index.ts";
import { createImageSource } from "../../../src/daemon/build/source/source.ts";
import { assembleOciLayout, makeTar, writeImage, writeIndex } from "../../support/oci-image.ts";
import { startDockerRegistry } from "../../support/registry.ts";
import type { DockerRegistry } from "../../support/registry.ts";
import { fakeClock, recordingLog, steadyRandom } from "../../support/source-ports.ts";

const run = promisify(execFile);
const platform = { os: "linux", architecture: "amd64" } as const;
let dir: string;
let layout: string;
let image: Awaited<ReturnType<typeof assembleOciLayout>>;
let source: ImageSource;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-images-"));
  layout = join(dir, "layout");
  const file = (path: string, content: Uint8Array | string) =>
    ({ path, type: "file", content }) as const;
  image = await assembleOciLayout(layout, {
    tag: "v1",
    architecture: "amd64",
    config: { Cmd: ["/bin/app"], Env: ["A=b"], ExposedPorts: { "80/tcp": {} }, User: "7" },
    layers: [
      { entries: [{ path: "bin", type: "directory" }, file("bin/app", randomBytes(3_000_000))] },
      { entries: [file("etc", "text")], compression: "none" },
      { entries: [file("x".repeat(150), randomBytes(200_000))], level: 9 },
    ],
  });
  source = createImageSource({ clock: fakeClock(), random: steadyRandom, log: recordingLog() });
});
afterAll(async () => await rm(dir, { recursive: true }));

const skopeo = async (from: string, to: string, ...options: string[]) =>
  await run("skopeo", ["--insecure-policy", "copy", ...options, from, to]);

/** Reads an image whole; every diff id is checked, and the scratch folder afterwards. */
async function pull(reference: string, credentials?: RegistryCredentials) {
  const scratchDir = join(dir, "scratch");
  await mkdir(scratchDir, { recursive: true });
  const resolved = await source.resolve(reference, {
    platform,
    scratchDir,
    ...(credentials === undefined ? {} : { credentials }),
  });
  try {
    for (const [index, layer] of resolved.layers.entries()) {
      const parts: Uint8Array[] = [];
      for await (const bytes of resolved.openLayer(index)) parts.push(bytes);
      const blob = Buffer.concat(parts);
      const tar = layer.compression === "gzip" ? gunzipSync(blob) : blob;
      expect(blob.length).toBe(layer.sizeBytes);
      expect(`sha256:${createHash("sha256").update(tar).digest("hex")}`).toBe(layer.diffId);
    }
  } finally {
    await resolved.close();
    await resolved.close();
  }
  expect(await readdir(scratchDir)).toEqual([]);
  expect(resolved.layers.map(({ diffId }) => diffId)).toEqual(image.diffIds);
  return resolved;
}

describe("the distribution's docker-registry", () => {
  let open: DockerRegistry;
  let locked: DockerRegistry;
  const credentials = { username: "me", password: "pä:ss word" };
  beforeAll(async () => {
    open = await startDockerRegistry();
    locked = await startDockerRegistry(credentials);
    await open.push(`oci:${layout}:v1`, "team/app:1", ["--preserve-digests"]);
    await open.push(`oci:${layout}:v1`, "docker:2", ["--format", "v2s2"]);
    await locked.push(`oci:${layout}:v1`, "app:1", ["--preserve-digests"]);
  });
  afterAll(async () => {
    await open.stop();
    await locked.stop();
  });

  it("serves an image by tag and by digest, found to be plain http by itself", async () => {
    const byTag = await pull(`${open.host}/team/app:1`);
    expect(byTag.digest).toBe(image.digest);
    expect(byTag.config).toMatchObject({
      cmd: ["/bin/app"],
      env: ["A=b"],
      user: "7",
      exposed_ports: ["80/tcp"],
    });
    const byDigest = await pull(`http://${open.host}/team/app@${image.digest}`);
    expect(byDigest.digest).toBe(image.digest);
  });

  it("serves docker's media types", async () => {
    const { layers } = await pull(`${open.host}/docker:2`);
    expect(layers[0]?.mediaType).toBe("application/vnd.docker.image.rootfs.diff.tar.gzip");
  });

  it("wants the right password", async () => {
    expect((await pull(`${locked.host}/app:1`, credentials)).digest).toBe(image.digest);
    const wrong = pull(`${locked.host}/app:1`, { username: "me", password: "no" });
    await expect(wrong).rejects.toMatchObject({ code: "registry_unauthorized" });
    await expect(pull(`${locked.host}/app:1`)).rejects.toMatchObject({
      code: "registry_unauthorized",
    });
  });

  it("has no such image", async () => {
    const missing = pull(`${open.host}/team/none:1`);
    await expect(missing).rejects.toMatchObject({ code: "image_not_found" });
  });
});

describe("local images", () => {
  it("are read from a layout that umoci accepts and skopeo copied", async () => {
    await run("umoci", ["stat", "--image", `${layout}:v1`]);
    expect((await pull(`oci:${layout}:v1`)).digest).toBe(image.digest);
    expect((await pull(`oci:${layout}`)).reference).toBe(`oci:${layout}`);
    await expect(pull(`oci:${layout}:v2`)).rejects.toMatchObject({
      code: "image_not_found",
      meta: { available: ["v1"] },
    });
    await expect(pull(`oci:${dir}/none`)).rejects.toMatchObject({ code: "image_not_found" });
  });

  it("are chosen by platform through nested indexes", async () => {
    const folder = join(dir, "multi");
    const arm = await writeImage(folder, { layers: [], architecture: "arm64" });
    await run("cp", ["-rT", join(layout, "blobs"), join(folder, "blobs")]);
    await writeIndex(folder, [arm.manifest, image.manifest]);
    const inner = await readFile(join(folder, "index.json"));
    const digest = createHash("sha256").update(inner).digest("hex");
    await writeFile(join(folder, "blobs", "sha256", digest), inner);
    const mediaType = "application/vnd.oci.image.index.v1+json";
    await writeIndex(folder, [{ mediaType, digest: `sha256:${digest}`, size: inner.length }]);
    expect((await pull(`oci:${folder}`)).digest).toBe(image.digest);
  });

  it("are read from an oci archive, plain and gzip-compressed", async () => {
    const file = join(dir, "oci.tar");
    await skopeo(`oci:${layout}:v1`, `oci-archive:${file}:v1`, "--preserve-digests");
    expect((await pull(`oci-archive:${file}:v1`)).digest).toBe(image.digest);
    await writeFile(`${file}.gz`, gzipSync(await readFile(file)));
    expect((await pull(`oci-archive:${file}.gz`)).digest).toBe(image.digest);
    await writeFile(`${file}.cut`, (await readFile(`${file}.gz`)).subarray(0, 1_000_000));
    await expect(pull(`oci-archive:${file}.cut`)).rejects.toMatchObject({
      meta: { reason: "invalid_archive" },
    });
  });

  it("have the same digest in every docker archive of theirs", async () => {
    const file = join(dir, "docker.tar");
    await skopeo(`oci:${layout}:v1`, `docker-archive:${file}:app:1`);
    const saved = await pull(`docker-archive:${file}`);
    await rm(`${file}.moved`, { force: true });
    await run("cp", [file, `${file}.moved`]);
    const moved = await pull(`docker-archive:${file}.moved:docker.io/library/app:1`);
    expect(moved.digest).toBe(saved.digest);
    expect(saved.digest).toBe(image.config.digest);
    await expect(pull(`docker-archive:${file}:app:2`)).rejects.toMatchObject({
      code: "image_not_found",
    });
  });

  it("in a docker archive may be several, linked and compressed, but never outside of it", async () => {
    const blob = async (digest: string) =>
      await readFile(join(layout, "blobs", "sha256", digest.slice(7)));
    const at = async (index: number) => await blob(image.layers[index]?.digest ?? "");
    const entry = { Config: "c.json", RepoTags: ["a:1"], Layers: ["l/0.tar", "l/1.tar", "2"] };
    const bad = { Config: "../../etc/passwd", RepoTags: ["b:1"], Layers: [] };
    const out = { Config: "out.json", RepoTags: ["c:1"], Layers: [] };
    const tar = await makeTar([
      { path: "manifest.json", type: "file", content: JSON.stringify([entry, bad, out]) },
      { path: "c.json", type: "file", content: await blob(image.config.digest) },
      { path: "out.json", type: "symlink", target: "../../../../etc/passwd" },
      { path: "l/0.tar", type: "symlink", target: "../real/layer.tar.gz" },
      { path: "real/layer.tar.gz", type: "file", content: await at(0) },
      { path: "hard", type: "file", content: await at(1) },
      { path: "l/1.tar", type: "link", target: "hard" },
      { path: "2", type: "file", content: gunzipSync(await at(2)) },
    ]);
    const file = join(dir, "several.tar");
    await writeFile(file, tar);
    const found = await pull(`docker-archive:${file}:a:1`);
    expect(found.layers.map(({ compression }) => compression)).toEqual(["gzip", "none", "none"]);
    expect((await pull(`docker-archive:${file}:@0`)).digest).toBe(image.config.digest);
    await expect(pull(`docker-archive:${file}`)).rejects.toMatchObject({
      code: "invalid_image_reference",
      meta: { available: ["a:1", "b:1", "c:1"] },
    });
    for (const name of ["b:1", "c:1"]) {
      const outside = pull(`docker-archive:${file}:${name}`);
      await expect(outside).rejects.toMatchObject({ code: "image_not_found" });
    }
  });

  it("that were changed on disk are noticed", async () => {
    const folder = join(dir, "changed");
    await run("cp", ["-r", layout, folder]);
    const path = join(folder, "blobs", "sha256", (image.layers[1]?.digest ?? "").slice(7));
    const bytes = await readFile(path);
    bytes[600] = 65;
    await writeFile(path, bytes);
    await expect(pull(`oci:${folder}`)).rejects.toMatchObject({ code: "image_digest_mismatch" });
  });

  it("assemble to the same digest every time", async () => {
    const entries = [{ path: "a", type: "file", content: "b" } as const];
    const twice = await Promise.all(
      ["one", "two"].map(
        async (name) =>
          await assembleOciLayout(join(dir, name), {
            architecture: "amd64",
            layers: [{ entries }],
          }),
      ),
    );
    expect(twice[0]?.digest).toBe(twice[1]?.digest);
  });
});
