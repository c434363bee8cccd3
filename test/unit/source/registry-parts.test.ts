import { describe, expect, it } from "vitest";
import type { AppError, Platform } from "../../../src/domain/index.ts";
import { Authorizer } from "../../../src/daemon/build/source/auth.ts";
import { parseChallenges } from "../../../src/daemon/build/source/challenge.ts";
import { sniffCompression } from "../../../src/daemon/build/source/compression.ts";
import type { HttpAnswer, HttpRequest } from "../../../src/daemon/build/source/http.ts";
import {
  joinLayers,
  parseConfig,
  parseManifest,
} from "../../../src/daemon/build/source/manifest.ts";
import { choosePlatform } from "../../../src/daemon/build/source/platform.ts";
import { parsePrefetch } from "../../../src/daemon/build/source/prefetch.ts";
import {
  Backoff,
  parseRetryAfter,
  TransientFailure,
} from "../../../src/daemon/build/source/retry.ts";
import { memberName } from "../../../src/daemon/build/source/tar-index.ts";
import { AppError as Failure } from "../../../src/domain/index.ts";
import { fakeClock, steadyRandom } from "../../support/source-ports.ts";

const digest = `sha256:${"0".repeat(64)}`;
const linux = (architecture: string, variant?: string): Platform =>
  variant === undefined ? { os: "linux", architecture } : { os: "linux", architecture, variant };
const refusal = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return (error as AppError).meta["reason"] ?? (error as AppError).code;
  }
  return "accepted";
};

describe("WWW-Authenticate", () => {
  it("reads a bearer challenge with quoted commas and escapes", () => {
    const header = 'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"", scope=repository:a:pull';
    const [challenge] = parseChallenges([header]);
    expect(challenge?.scheme).toBe("bearer");
    expect(Object.fromEntries(challenge?.parameters ?? [])).toEqual({
      realm: "https://a/t?x=1,2",
      service: 's "q"',
      scope: "repository:a:pull",
    });
  });
  it("reads several challenges in one header and in several", () => {
    const schemes = (headers: string[]) => parseChallenges(headers).map(({ scheme }) => scheme);
    expect(schemes(['Basic realm="x", BEARER realm="y"'])).toEqual(["basic", "bearer"]);
    expect(schemes(['Basic realm="x"', "Negotiate"])).toEqual(["basic", "negotiate"]);
  });
  it.each(["", ",,,", "=", '"', 'Bearer realm="open', "\u0000"])("survives %j", (header) => {
    expect(parseChallenges([header]).every(({ parameters }) => !parameters.has("realm"))).toBe(
      true,
    );
  });
});

describe("platform choice", () => {
  const entry = (architecture: string, variant?: string, os = "linux") => ({
    name: [architecture, variant].join("/"),
    platform: { os, architecture, variant },
  });
  it.each([
    [linux("amd64"), "amd64/"],
    [linux("amd64", "v3"), "amd64/v3"],
    [linux("amd64", "v2"), "amd64/"],
    [linux("arm64"), "arm64/v8"],
    [linux("arm"), "arm/v7"],
    [linux("arm", "v6"), "arm/v6"],
  ])("for %j takes %s", (platform, name) => {
    const all = [entry("amd64", "v3"), entry("amd64"), entry("arm64", "v8"), entry("arm", "v6")];
    expect(
      choosePlatform([entry("amd64", "", "windows"), ...all, entry("arm", "v7")], platform),
    ).toMatchObject({ name });
  });
  it("lists what there is, without attestations", () => {
    const attestation = { platform: { os: "unknown", architecture: "unknown" } };
    const marked = {
      ...entry("amd64"),
      annotations: { "vnd.docker.reference.type": "attestation-manifest" },
    };
    try {
      choosePlatform([attestation, marked, entry("s390x"), entry("amd64", "v4")], linux("amd64"));
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: "image_platform_missing",
        meta: { available: ["linux/s390x", "linux/amd64/v4"] },
      });
    }
  });
});

describe("manifests", () => {
  const descriptor = (mediaType: string) => ({ mediaType, digest, size: 1 });
  const config = descriptor("application/vnd.oci.image.config.v1+json");
  const parse = (value: unknown, type = "") =>
    parseManifest(Buffer.from(JSON.stringify(value)), type);
  it("refuses, by name, what is not an image of schema 2", () => {
    expect(refusal(() => parse({ schemaVersion: 1, fsLayers: [] }))).toBe("schema1");
    expect(refusal(() => parse({ schemaVersion: 2, manifests: [], layers: [] }))).toBe(
      "ambiguous_manifest",
    );
    const index = "application/vnd.oci.image.index.v1+json";
    expect(refusal(() => parse({ config, layers: [] }, index))).toBe("ambiguous_manifest");
    const chart = descriptor("application/vnd.cncf.helm.config.v1+json");
    expect(refusal(() => parse({ config: chart, layers: [] }))).toBe("not_an_image");
    const escaping = { ...config, digest: "sha256:../../../etc/passwd" };
    expect(refusal(() => parse({ config: escaping, layers: [] }))).toBe("invalid_digest");
    expect(refusal(() => parseManifest(Buffer.from("{"), ""))).toBe("invalid_json");
    expect(refusal(() => parse({ config, layers: [{ ...config, size: -1 }] }))).toBe(
      "invalid_manifest",
    );
  });
  it("knows the layer types and refuses the others by name", () => {
    const layer = (mediaType: string) => ({ ...descriptor(mediaType), platform: undefined });
    const of = (type: string) => joinLayers([layer(type)], [digest])[0]?.compression;
    expect(of("application/vnd.docker.image.rootfs.diff.tar.gzip")).toBe("gzip");
    expect(of("application/vnd.oci.image.layer.v1.tar+zstd")).toBe("zstd");
    expect(of("application/vnd.oci.image.layer.v1.tar")).toBe("none");
    const reason = (type: string) => refusal(() => of(type));
    expect(reason("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")).toBe(
      "foreign_layer",
    );
    expect(reason("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")).toBe(
      "foreign_layer",
    );
    expect(reason("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")).toBe("encrypted_layer");
    expect(reason("text/plain")).toBe("unsupported_layer_type");
    expect(refusal(() => joinLayers([], [digest]))).toBe("diff_ids_mismatch");
  });
  it("maps a config, with Docker's nulls", () => {
    const value = {
      architecture: "amd64",
      os: "linux",
      config: { Entrypoint: null, Cmd: ["/a"], ExposedPorts: { "80/tcp": {} }, Labels: null },
      rootfs: { type: "layers", diff_ids: [digest] },
    };
    const bytes = Buffer.from(JSON.stringify(value));
    expect(parseConfig(bytes, linux("amd64"))).toMatchObject({
      config: { entrypoint: [], cmd: ["/a"], env: [], exposed_ports: ["80/tcp"], labels: {} },
      diffIds: [digest],
    });
    expect(refusal(() => parseConfig(bytes, linux("arm64")))).toBe("image_platform_missing");
  });
  it("tells compression by the first bytes", () => {
    expect(sniffCompression(Buffer.from([0x1f, 0x8b, 8, 0]))).toBe("gzip");
    expect(sniffCompression(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]))).toBe("zstd");
    expect(sniffCompression(Buffer.from([0x50, 0x2a, 0x4d, 0x18]))).toBe("zstd");
    expect(sniffCompression(Buffer.from("etc/"))).toBe("none");
    expect(sniffCompression(Buffer.from([0x1f]))).toBeUndefined();
  });
});

describe("the small rules", () => {
  it.each([
    ["abc", 6],
    [0, 6],
    [100, 32],
    ["100", 32],
    [undefined, 6],
    ["", 6],
    ["3", 3],
    [-1, 6],
    [2.5, 6],
  ])("row 51: given %j, then it prefetches %i layers", (value, count) =>
    expect(parsePrefetch(value)).toBe(count),
  );
  it("reads Retry-After as seconds and as a date", () => {
    expect(parseRetryAfter("3", 0)).toBe(3000);
    expect(parseRetryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4000)).toBe(6000);
    expect(parseRetryAfter("soon", 0)).toBeUndefined();
  });
  it("waits longer each time, no longer than the cap, and gives up in the end", async () => {
    const clock = fakeClock();
    const backoff = new Backoff({ clock, random: steadyRandom });
    const failure = new Failure("registry_unavailable");
    for (let index = 0; index < 5; index += 1) await backoff.wait(new TransientFailure(failure));
    await expect(backoff.wait(new TransientFailure(failure))).rejects.toBe(failure);
    expect(clock.sleeps).toEqual([125, 250, 500, 1000, 2000]);
    backoff.reset();
    await backoff.wait(new TransientFailure(failure, 10 * 60_000));
    expect(clock.sleeps.at(-1)).toBe(60_000);
  });
  it("keeps member names inside their archive", () => {
    expect(memberName("./a//b/../c")).toBe("a/c");
    expect(memberName("a/../../b")).toBeUndefined();
    expect(memberName("/abs")).toBe("abs");
  });
});

describe("the token cache", () => {
  const answerOf = (url: string, status: number, body: string, challenge?: string): HttpAnswer => ({
    status,
    url: new URL(url),
    body: (async function* () {
      yield Buffer.from(body);
    })(),
    header: () => challenge,
    headers: () => (challenge === undefined ? [] : [challenge]),
    discard: async () => undefined,
  });
  const make = (realm: string) => {
    const clock = fakeClock();
    const requests: HttpRequest[] = [];
    const client = {
      get: async (request: HttpRequest) => {
        requests.push(request);
        return answerOf(request.url.href, 200, `{"token":"t${requests.length}","expires_in":60}`);
      },
    };
    const authorizer = new Authorizer({
      client,
      clock,
      credentials: { username: "u", password: "p" },
      repository: "a/b",
      signal: new AbortController().signal,
    });
    const challenge = answerOf(
      "https://r.example/v2/",
      401,
      "",
      `Bearer realm="${realm}",service="s"`,
    );
    return { clock, requests, authorizer, challenge };
  };
  it("asks for one token for all layers, and for another just before it expires", async () => {
    const { clock, requests, authorizer, challenge } = make("https://auth.example/token");
    expect(await authorizer.header()).toBeUndefined();
    const both = [1, 2].map(async () => await authorizer.renew(challenge, undefined));
    await Promise.all(both);
    expect(await authorizer.header()).toBe("Bearer t1");
    await authorizer.renew(challenge, undefined);
    expect(requests).toHaveLength(1);
    expect(requests[0]?.url.searchParams.get("scope")).toBe("repository:a/b:pull");
    clock.advance(54_000);
    expect(await authorizer.header()).toBe("Bearer t1");
    clock.advance(1_500);
    expect(await authorizer.header()).toBe("Bearer t2");
    await authorizer.renew(challenge, "Bearer t2");
    expect(await authorizer.header()).toBe("Bearer t3");
  });
  it("sends no password to a realm over plain http when the registry is https", async () => {
    const { requests, authorizer, challenge } = make("http://auth.example/token");
    await expect(authorizer.renew(challenge, undefined)).rejects.toMatchObject({
      code: "registry_unavailable",
    });
    expect(requests).toHaveLength(0);
  });
});
