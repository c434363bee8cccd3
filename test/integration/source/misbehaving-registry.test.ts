import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Platform, ResolvedImage } from "../../../src/domain/index.ts";
import { createImageSource } from "../../../src/daemon/build/source/source.ts";
import type { SourceOptions } from "../../../src/daemon/build/source/source.ts";
import { putImage, sendBlob, startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { fakeClock, recordingLog, steadyRandom } from "../../support/source-ports.ts";

const platform: Platform = { os: "linux", architecture: "amd64" };
const secret = "s3cret-Pa55";
let registry: FakeRegistry;
let scratchDir: string;
let clock: ReturnType<typeof fakeClock>;
let log: ReturnType<typeof recordingLog>;
let opened: ResolvedImage[];

beforeEach(async () => {
  registry = await startFakeRegistry();
  scratchDir = await mkdtemp(join(tmpdir(), "tc-source-"));
  clock = fakeClock();
  log = recordingLog();
  opened = [];
});
afterEach(async () => {
  for (const image of opened) await image.close();
  expect(await readdir(scratchDir)).toEqual([]);
  expect(log.lines.join("\n")).not.toContain(secret);
  await registry.stop();
  await rm(scratchDir, { recursive: true });
});

async function resolve(
  options: SourceOptions & { login?: boolean; reference?: string; signal?: AbortSignal } = {},
): Promise<ResolvedImage> {
  const source = createImageSource({ clock, random: steadyRandom, log, options });
  const image = await source.resolve(options.reference ?? `http://${registry.host}/a/b`, {
    platform,
    scratchDir,
    ...(options.login ? { credentials: { username: "me", password: secret } } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
  });
  opened.push(image);
  return image;
}

async function read(image: ResolvedImage, index: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const bytes of image.openLayer(index)) parts.push(bytes);
  return Buffer.concat(parts);
}

const layersOf = (count: number, bytes = 300_000) =>
  Array.from({ length: count }, () => randomBytes(bytes));
const blobAt = (digest: string | undefined) => registry.blobs.get(digest ?? "") as Buffer;
const isBlob = (path: string, digest: string | undefined) => path.endsWith(`/blobs/${digest}`);

describe("a blob that is cut", () => {
  it("goes on from where it ended, as often as needed, and is verified as a whole", async () => {
    const { layers } = putImage(registry, layersOf(1));
    const blob = blobAt(layers[0]);
    let cuts = 0;
    registry.misbehave = (request, response, path) => {
      if (!isBlob(path, layers[0]) || cuts === 3) return false;
      cuts += 1;
      const start = Number(/=(\d+)/.exec(request.headers.range ?? "")?.[1] ?? "0");
      const head = { "content-length": blob.length - start };
      const range = { "content-range": `bytes ${start}-${blob.length - 1}/${blob.length}` };
      response.writeHead(start > 0 ? 206 : 200, { ...head, ...(start > 0 && range) });
      response.write(blob.subarray(start, start + 70_000), () => response.destroy());
      return true;
    };
    const image = await resolve();
    expect(blob.equals(await read(image, 0))).toBe(true);
    const ranges = registry.seen.flatMap(({ range }) => range ?? []);
    expect(ranges).toHaveLength(3);
    expect(clock.sleeps).toHaveLength(3);
  });

  it("is read from its start, and not handed out twice, when the server ignores the range", async () => {
    const { layers } = putImage(registry, layersOf(1));
    const blob = blobAt(layers[0]);
    let requests = 0;
    registry.misbehave = (_request, response, path) => {
      if (!isBlob(path, layers[0])) return false;
      requests += 1;
      response.writeHead(200, { "content-length": blob.length });
      if (requests === 1) response.write(blob.subarray(0, 90_000), () => response.destroy());
      else response.end(blob);
      return true;
    };
    expect(blob.equals(await read(await resolve(), 0))).toBe(true);
    expect(requests).toBe(2);
  });

  it("is asked for as a whole when the answer is another range, or 416", async () => {
    const { layers } = putImage(registry, layersOf(1));
    const blob = blobAt(layers[0]);
    const statuses = [0, 206, 0, 416];
    registry.misbehave = (request, response, path) => {
      if (!isBlob(path, layers[0])) return false;
      const status = request.headers.range ? (statuses.length > 2 ? 206 : 416) : 0;
      if (status === 416) response.writeHead(416).end();
      else if (status === 206) {
        statuses.length = 2;
        response.writeHead(206, { "content-range": `bytes 0-9/${blob.length}` }).end("0123456789");
      } else if (registry.seen.filter((seen) => isBlob(seen.path, layers[0])).length === 1) {
        response.writeHead(200, { "content-length": blob.length });
        response.write(blob.subarray(0, 90_000), () => response.destroy());
      } else response.end(blob);
      return true;
    };
    expect(blob.equals(await read(await resolve(), 0))).toBe(true);
    statuses.length = 1;
    registry.seen.length = 0;
    expect(blob.equals(await read(await resolve(), 0))).toBe(true);
  });

  it("fails registry_unavailable when it never gets further", async () => {
    const { layers } = putImage(registry, layersOf(1));
    registry.misbehave = (_request, response, path) =>
      isBlob(path, layers[0]) ? (response.destroy(), true) : false;
    await expect(read(await resolve(), 0)).rejects.toMatchObject({ code: "registry_unavailable" });
    expect(clock.sleeps).toHaveLength(5);
  });

  it("fails by its idle limit when the server falls silent", async () => {
    const { layers } = putImage(registry, layersOf(1));
    registry.misbehave = (_request, response, path) => {
      if (!isBlob(path, layers[0])) return false;
      response.writeHead(200).write("x");
      return true;
    };
    const image = await resolve({ timeouts: { idleMs: 50 } });
    await expect(read(image, 0)).rejects.toMatchObject({ code: "registry_unavailable" });
  });
});

describe("content that is not what was announced", () => {
  it("ends in image_digest_mismatch for other bytes of the same size", async () => {
    const { layers } = putImage(registry, layersOf(1));
    const blob = Buffer.from(blobAt(layers[0]));
    blob[1000] = (blob[1000] ?? 0) ^ 1;
    registry.blobs.set(layers[0] ?? "", blob);
    await expect(read(await resolve(), 0)).rejects.toMatchObject({ code: "image_digest_mismatch" });
  });

  it("is refused by its length before any of it is read", async () => {
    const { layers } = putImage(registry, layersOf(1));
    registry.blobs.set(layers[0] ?? "", Buffer.alloc(10));
    await expect(read(await resolve(), 0)).rejects.toMatchObject({
      code: "image_digest_mismatch",
      meta: { actual_bytes: 10 },
    });
    expect(clock.sleeps).toEqual([]);
  });

  it("is refused at the first byte too many of an endless body", async () => {
    const { layers } = putImage(registry, layersOf(1, 1000));
    let isClosed = false;
    registry.misbehave = (_request, response, path) => {
      if (!isBlob(path, layers[0])) return false;
      const pour = () => {
        while (!isClosed && response.write(Buffer.alloc(65_536)));
      };
      response.on("drain", pour).on("close", () => (isClosed = true));
      pour();
      return true;
    };
    await expect(read(await resolve(), 0)).rejects.toMatchObject({ code: "image_digest_mismatch" });
    await expect.poll(() => isClosed).toBe(true);
  });

  it("is noticed in the manifest, by digest and by header, and in its size", async () => {
    const { digest, manifest } = putImage(registry, layersOf(1));
    const type = "application/vnd.oci.image.manifest.v1+json";
    registry.manifests.set(digest, { bytes: Buffer.concat([manifest, Buffer.from(" ")]), type });
    const byDigest = resolve({ reference: `http://${registry.host}/a/b@${digest}` });
    await expect(byDigest).rejects.toMatchObject({ code: "image_digest_mismatch" });
    registry.misbehave = (_request, response, path) => {
      if (!path.includes("/manifests/")) return false;
      response.setHeader("docker-content-digest", `sha256:${"0".repeat(64)}`);
      response.end(manifest);
      return true;
    };
    await expect(resolve()).rejects.toMatchObject({ code: "image_digest_mismatch" });
    registry.misbehave = (_request, response, path) =>
      path.includes("/manifests/") ? (response.end(Buffer.alloc(5_000_000)), true) : false;
    await expect(resolve()).rejects.toMatchObject({ meta: { reason: "document_too_large" } });
  });
});

describe("a registry that is busy or broken", () => {
  it("is asked again after the time it names, and after 500s", async () => {
    putImage(registry, layersOf(1));
    const answers = [429, 500, 503];
    registry.misbehave = (_request, response, path) => {
      if (!path.includes("/manifests/")) return false;
      const status = answers.shift();
      if (status === undefined) return false;
      response.writeHead(status, status === 429 ? { "retry-after": "7" } : {}).end("busy");
      return true;
    };
    await resolve();
    expect(clock.sleeps).toEqual([7000, 250, 500]);
  });

  it("is given up with status and host, and not asked again for what will not change", async () => {
    registry.misbehave = (_request, response) => (response.writeHead(502).end(), true);
    await expect(resolve()).rejects.toMatchObject({
      code: "registry_unavailable",
      meta: { status: 502, host: registry.host },
    });
    expect(clock.sleeps).toHaveLength(5);
    for (const [status, code] of [
      [404, "image_not_found"],
      [403, "registry_unauthorized"],
      [400, "registry_unavailable"],
    ] as const) {
      registry.misbehave = (_request, response) => (response.writeHead(status).end(), true);
      await expect(resolve()).rejects.toMatchObject({ code });
    }
    expect(clock.sleeps).toHaveLength(5);
  });

  it("stops at once when the job is cancelled", async () => {
    const { layers } = putImage(registry, layersOf(2));
    const stop = new AbortController();
    registry.misbehave = (_request, response, path) => {
      if (!isBlob(path, layers[0])) return false;
      response.writeHead(200).write("x", () => stop.abort(new Error("cancelled by the user")));
      return true;
    };
    const image = await resolve({ signal: stop.signal });
    await expect(read(image, 0)).rejects.toThrow("cancelled by the user");
  });

  it("refuses schema 1 and a missing platform by name", async () => {
    const type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    const bytes = Buffer.from('{"schemaVersion":1,"fsLayers":[]}');
    registry.manifests.set("latest", { bytes, type });
    await expect(resolve()).rejects.toMatchObject({ meta: { reason: "schema1" } });
    putImage(registry, layersOf(1), { architecture: "s390x" });
    await expect(resolve()).rejects.toMatchObject({
      code: "image_platform_missing",
      meta: { available: ["linux/s390x"] },
    });
  });
});

describe("credentials", () => {
  const demandToken = (expiresIn: number) => {
    const tokens = { issued: 0, valid: new Set<string>() };
    registry.misbehave = (request, response, path) => {
      const { authorization } = request.headers;
      if (path.startsWith("/token")) {
        const basic = `Basic ${Buffer.from(`me:${secret}`).toString("base64")}`;
        if (authorization !== basic) return (response.writeHead(401).end(), true);
        tokens.issued += 1;
        tokens.valid.add(`Bearer t${tokens.issued}`);
        const answer = { token: `t${tokens.issued}`, expires_in: expiresIn };
        return (response.end(JSON.stringify(answer)), true);
      }
      if (tokens.valid.has(authorization ?? "")) return false;
      const realm = `Bearer realm="http://${registry.host}/token",service="reg"`;
      response.writeHead(401, { "www-authenticate": realm }).end();
      return true;
    };
    return tokens;
  };

  it("buy one token for a whole pull, and another when it is refused", async () => {
    const { layers } = putImage(registry, layersOf(3));
    const tokens = demandToken(300);
    const image = await resolve({ login: true });
    expect(tokens.issued).toBe(1);
    tokens.valid.clear();
    expect(blobAt(layers[0]).equals(await read(image, 0))).toBe(true);
    expect(blobAt(layers[1]).equals(await read(image, 1))).toBe(true);
    expect(blobAt(layers[2]).equals(await read(image, 2))).toBe(true);
    expect(tokens.issued).toBe(2);
    const asked = registry.seen.find(({ path }) => path.startsWith("/token"))?.path;
    expect(asked).toContain("scope=repository%3Aa%2Fb%3Apull");
    const leaked = registry.seen.filter(
      ({ path, authorization }) => !path.startsWith("/token") && authorization?.startsWith("Basic"),
    );
    expect(leaked).toEqual([]);
  });

  it("come from the login file when none are given, and are not logged when it is broken", async () => {
    putImage(registry, layersOf(1));
    demandToken(300);
    const dir = await mkdtemp(join(tmpdir(), "tc-auth-"));
    const good = join(dir, "config.json");
    const broken = join(dir, "broken.json");
    const auth = Buffer.from(`me:${secret}`).toString("base64");
    await writeFile(good, JSON.stringify({ auths: { [registry.host]: { auth } } }));
    await writeFile(broken, `{"auths": ${secret}`);
    await resolve({ authFiles: [join(dir, "none"), broken, good] });
    expect(log.lines).toHaveLength(1);
    await rm(dir, { recursive: true });
  });

  it("that are wrong end in registry_unauthorized, without the password in the error", async () => {
    registry.misbehave = (_request, response) => {
      response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end(secret);
      return true;
    };
    const error = await resolve({ login: true }).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "registry_unauthorized", meta: { status: 401 } });
    expect(JSON.stringify((error as { toProblem(): unknown }).toProblem())).not.toContain(secret);
    const anonymous = resolve();
    await expect(anonymous).rejects.toMatchObject({ code: "registry_unauthorized" });
  });

  it("are not sent to the host a blob is redirected to, nor on its demand", async () => {
    const { layers } = putImage(registry, layersOf(1));
    const other = await startFakeRegistry();
    const blob = blobAt(layers[0]);
    let demands = false;
    other.misbehave = (request, response) => {
      const head = { "www-authenticate": `Bearer realm="http://${other.host}/token"` };
      if (demands) response.writeHead(401, head).end();
      else sendBlob(blob, request.headers.range, response);
      return true;
    };
    demandToken(300);
    const guard = registry.misbehave;
    registry.misbehave = (request, response, path) => {
      if (guard(request, response, path)) return true;
      if (!isBlob(path, layers[0])) return false;
      response.writeHead(307, { location: `http://${other.host}/cdn?signature=1` }).end();
      return true;
    };
    expect(blob.equals(await read(await resolve({ login: true }), 0))).toBe(true);
    demands = true;
    await expect(read(await resolve({ login: true }), 0)).rejects.toMatchObject({
      code: "registry_unauthorized",
    });
    expect(other.seen.map(({ path }) => path)).toEqual(["/cdn?signature=1", "/cdn?signature=1"]);
    expect(other.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
    await other.stop();
  });
});

describe("layers fetched ahead", () => {
  it("come in manifest order although they arrive out of order, at most N at once", async () => {
    const { layers } = putImage(registry, layersOf(9));
    let running = 0;
    let most = 0;
    const held: (() => void)[] = [];
    let isThirdOut = false;
    registry.misbehave = (request, response, path) => {
      const index = layers.findIndex((digest) => isBlob(path, digest));
      if (index === -1) return false;
      running += 1;
      most = Math.max(most, running);
      response.on("close", () => (running -= 1));
      const send = () => sendBlob(blobAt(layers[index]), request.headers.range, response);
      // The second layer waits until the third has gone out, whichever is asked for first.
      if (index === 1 && !isThirdOut) held.push(send);
      else send();
      isThirdOut ||= index === 2;
      if (index === 2) for (const release of held.splice(0)) release();
      return true;
    };
    const image = await resolve({ prefetchLayers: "3" });
    let counted = 0;
    for (const [index, digest] of layers.entries()) {
      const parts: Uint8Array[] = [];
      const onBytes = (bytes: number) => (counted += bytes);
      for await (const bytes of image.openLayer(index, { onBytes })) parts.push(bytes);
      expect(blobAt(digest).equals(Buffer.concat(parts))).toBe(true);
    }
    expect(counted).toBe(image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
    expect(most).toBeLessThanOrEqual(3);
    expect(registry.seen.filter(({ path }) => path.includes("/blobs/"))).toHaveLength(10);
  });

  it("all stop when one of them fails, and the reader gets that failure", async () => {
    const { layers } = putImage(registry, layersOf(4));
    const closed = new Set<number>();
    registry.misbehave = (_request, response, path) => {
      const index = layers.findIndex((digest) => isBlob(path, digest));
      if (index === -1) return false;
      response.on("close", () => closed.add(index));
      if (index === 2) response.writeHead(404).end();
      else response.writeHead(200).write("x");
      return true;
    };
    const image = await resolve();
    await expect(read(image, 0)).rejects.toMatchObject({ code: "image_not_found" });
    await expect.poll(() => closed.size).toBe(4);
  });

  it("are set right by their first bytes when the media type is wrong", async () => {
    const { manifest } = putImage(registry, layersOf(2));
    const text = manifest.toString().replaceAll("tar+gzip", "tar+zstd");
    const type = "application/vnd.oci.image.manifest.v1+json";
    registry.manifests.set("latest", { bytes: Buffer.from(text), type });
    const image = await resolve();
    expect(image.layers.map(({ compression }) => compression)).toEqual(["zstd", "zstd"]);
    for (const index of [0, 1]) {
      for await (const bytes of image.openLayer(index)) {
        expect(bytes.length).toBeGreaterThan(0);
        expect(image.layers[index]?.compression).toBe("gzip");
      }
    }
  });
});
