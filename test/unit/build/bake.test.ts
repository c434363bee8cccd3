import { describe, expect, it } from "vitest";
import { applyLayers } from "../../support/layers.ts";
import { bake } from "../../../src/daemon/build/layers/bake.ts";
import { caFingerprint, parseCa } from "../../../src/daemon/build/layers/ca.ts";
import { isAppError } from "../../../src/domain/index.ts";
import { LAYER_LIMITS } from "../../../src/daemon/build/layers/limits.ts";
import { makeCertificate } from "../../support/certificates.ts";
import { type MemoryTree, nodeAt } from "../../support/memory-tree.ts";
import { TarBuilder } from "../../support/tar-builder.ts";

const tar = () => new TarBuilder();
const ours = makeCertificate("cube egress root");
const other = makeCertificate("another authority");
const caPem = Buffer.from(ours);

const bundlePath = "etc/ssl/certs/ca-certificates.crt";
const text = async (tree: MemoryTree, path: string) =>
  Buffer.from(await tree.readFile(nodeAt(tree, path)!)).toString();
const bakeInto = async (layer: TarBuilder, inputs: { caPem?: Buffer; envd?: Buffer }) => {
  const tree = await applyLayers([layer.build()]);
  return { tree, result: await bake(tree, inputs, LAYER_LIMITS) };
};

describe("the CubeEgress CA in a root filesystem", () => {
  it("is appended once to a Debian-like bundle with an anchor beside (spec row 57)", async () => {
    const layer = tar()
      .file(bundlePath, other, { mode: 0o640, mtime: 77 })
      .directory("usr/local/share/ca-certificates");
    const { tree, result } = await bakeInto(layer, { caPem });
    expect(result).toEqual({
      ca_baked: true,
      ca_seeded: false,
      ca_targets_written: 2,
      envd_installed: false,
    });
    expect(await text(tree, bundlePath)).toBe(other + ours);
    expect(nodeAt(tree, bundlePath)?.metadata).toMatchObject({ mode: 0o644, mtimeSeconds: 77 });
    const anchor = "usr/local/share/ca-certificates/cube-egress-root.crt";
    expect(await text(tree, anchor)).toBe(ours);
    expect(nodeAt(tree, anchor)?.metadata).toMatchObject({ mode: 0o644, uid: 0, mtimeSeconds: 0 });

    const again = await bake(tree, { caPem }, LAYER_LIMITS);
    expect(again).toMatchObject({ ca_baked: true, ca_seeded: false, ca_targets_written: 0 });
    expect(await text(tree, bundlePath)).toBe(other + ours);
  });

  it("is seeded where an image has no certificates at all (spec row 58)", async () => {
    const { tree, result } = await bakeInto(tar().file("app", "x"), { caPem });
    expect(result).toMatchObject({ ca_baked: true, ca_seeded: true, ca_targets_written: 1 });
    expect(await text(tree, bundlePath)).toBe(ours);
    expect(nodeAt(tree, "etc/ssl")?.metadata.mode).toBe(0o755);
    const again = await bake(tree, { caPem }, LAYER_LIMITS);
    expect(again).toMatchObject({ ca_baked: true, ca_seeded: false, ca_targets_written: 0 });
  });

  it("comes after a newline where the bundle does not end in one (spec row 59)", async () => {
    const { tree } = await bakeInto(tar().file(bundlePath, other.trimEnd()), { caPem });
    expect(await text(tree, bundlePath)).toBe(other + ours);
  });

  it("counts as baked where the image already has it, however its lines are wrapped", async () => {
    const body = ours.replace(/-----[A-Z ]+-----|\s/g, "");
    const oneLine = `-----BEGIN CERTIFICATE-----\r\n${body}\r\n-----END CERTIFICATE-----\r\n`;
    const { result } = await bakeInto(tar().file(bundlePath, other + oneLine), { caPem });
    expect(result).toMatchObject({ ca_baked: true, ca_targets_written: 0, ca_seeded: false });
  });

  it("is written through links of the image, absolute ones too, once", async () => {
    const real = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
    const layer = tar()
      .file(real, other)
      .directory("etc/ssl")
      .symlink("etc/ssl/certs", "../pki/tls/certs")
      .symlink("etc/pki/tls/certs/ca-certificates.crt", `/${real}`)
      .symlink("etc/pki/tls/certs/ca-bundle.crt", "../../ca-trust/extracted/pem/tls-ca-bundle.pem");
    const { tree, result } = await bakeInto(layer, { caPem });
    expect(result.ca_targets_written).toBe(1);
    expect(await text(tree, real)).toBe(other + ours);
    expect(nodeAt(tree, "etc/pki/tls/certs/ca-certificates.crt")?.kind).toBe("symlink");
  });

  it("stays inside the root when a bundle is a link that climbs out of it", async () => {
    const layer = tar().symlink(bundlePath, "../../../../../../bundle").file("bundle", other);
    const { tree } = await bakeInto(layer, { caPem });
    expect(await text(tree, "bundle")).toBe(other + ours);
  });

  it.each([
    ["two certificates", ours + other],
    ["no certificate", "hello"],
    [
      "a private key beside it",
      `${ours}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`,
    ],
    [
      "a block that is no certificate",
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
  ])("is refused with %s, and nothing is written (spec row 56)", async (_, pem) => {
    const tree = await applyLayers([tar().file("a", "1").build()]);
    const inputs = { caPem: Buffer.from(pem), envd: Buffer.from("agent") };
    const error = await bake(tree, inputs, LAYER_LIMITS).catch((caught: unknown) => caught);
    expect(isAppError(error, "ca_invalid")).toBe(true);
    expect(nodeAt(tree, "usr")).toBeUndefined();
  });

  it("has the SHA-256 of its DER form as fingerprint, whatever surrounds the block", () => {
    const commented = Buffer.from(`# our root\r\n${ours}\n`);
    expect(caFingerprint(commented)).toBe(caFingerprint(caPem));
    expect(caFingerprint(caPem)).toMatch(/^[0-9a-f]{64}$/);
    expect(parseCa(commented).pem).toBe(ours);
  });
});

describe("the in-guest agent", () => {
  it("is installed with mode 0755, and not again when it is there (spec row 60)", async () => {
    const envd = Buffer.from("agent");
    const { tree, result } = await bakeInto(tar().symlink("usr/local", "/opt").directory("opt"), {
      envd,
    });
    expect(result).toMatchObject({ envd_installed: true, ca_baked: false });
    expect(await text(tree, "opt/bin/envd")).toBe("agent");
    const node = nodeAt(tree, "opt/bin/envd");
    expect(node?.metadata).toMatchObject({ mode: 0o755, uid: 0, gid: 0 });
    await bake(tree, { envd }, LAYER_LIMITS);
    expect(nodeAt(tree, "opt/bin/envd")).toBe(node);
  });

  it("leaves the tree untouched when it is not wanted", async () => {
    const { tree, result } = await bakeInto(tar().file("a", "1"), {});
    expect(result.envd_installed).toBe(false);
    expect(nodeAt(tree, "usr")).toBeUndefined();
  });
});
