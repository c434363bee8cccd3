/**
 * Manifests, indexes and image configs: untrusted JSON to checked shapes. Both the OCI and the
 * Docker schema 2 types; every refusal is an AppError `image_refused` with `meta.reason`.
 */
import { z } from "zod";
import { AppError } from "../../../domain/index.ts";
import type { ImageConfig, LayerDescriptor, Platform } from "../../../domain/index.ts";
import { isDigest } from "./digest.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { platformMissing, platformText } from "./platform.ts";

const INDEX_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
const SCHEMA1_TYPES = [
  "application/vnd.docker.distribution.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const CONFIG_TYPES = [
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
];
const LAYER_TYPES: ReadonlyMap<string, LayerDescriptor["compression"]> = new Map([
  ["application/vnd.oci.image.layer.v1.tar", "none"],
  ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip"],
  ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd"],
  ["application/vnd.docker.image.rootfs.diff.tar", "none"],
  ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"],
  ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"],
]);

export const ACCEPTED_MANIFESTS = [...INDEX_TYPES, ...MANIFEST_TYPES].join(", ");

const digestSchema = z.string().refine(isDigest);
const annotationsSchema = z.record(z.string(), z.string()).nullish();
const descriptorSchema = z.object({
  mediaType: z.string().max(256).default(""),
  digest: digestSchema,
  size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  platform: z
    .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
    .nullish()
    .transform((platform) => platform ?? undefined),
  annotations: annotationsSchema,
});
const indexSchema = z.object({ manifests: z.array(descriptorSchema).max(10_000) });
const manifestSchema = z.object({ config: descriptorSchema, layers: z.array(descriptorSchema) });
const strings = z.array(z.string()).nullish();
const configSchema = z.object({
  architecture: z.string().nullish(),
  os: z.string().nullish(),
  config: z
    .object({
      Entrypoint: strings,
      Cmd: strings,
      Env: strings,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
  rootfs: z.object({ type: z.literal("layers"), diff_ids: z.array(digestSchema).nullish() }),
});

export type Descriptor = z.output<typeof descriptorSchema>;
export interface Manifest {
  readonly kind: "manifest";
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}
export interface Index {
  readonly kind: "index";
  readonly manifests: readonly Descriptor[];
}

export const refused = (reason: string, message: string, cause?: unknown): AppError =>
  new AppError("image_refused", message, { meta: { reason }, cause });

/** @throws AppError image_refused reason `invalid_json` | `invalid_digest` | `invalid_<what>` */
export function parseDocument<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const path = (result.error.issues[0]?.path ?? []).map(String);
  const isDigestIssue = path.includes("digest") || path.includes("diff_ids");
  throw refused(
    isDigestIssue ? "invalid_digest" : `invalid_${what}`,
    `the image's ${what} is malformed at /${path.join("/")}`,
  );
}

/** @throws AppError image_refused reason `invalid_json` */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown;
  } catch (cause) {
    throw refused("invalid_json", `the image's ${what} is not JSON`, cause);
  }
}

const headSchema = z.object({
  schemaVersion: z.number().optional(),
  mediaType: z.string().optional(),
  manifests: z.unknown().optional(),
  layers: z.unknown().optional(),
  config: z.unknown().optional(),
  fsLayers: z.unknown().optional(),
});

/**
 * @param contentType what the server or the descriptor calls it; the document's own word counts
 *   more, and one that could be read as both kinds is refused (CVE-2021-41190).
 */
export function parseManifest(bytes: Uint8Array, contentType: string): Manifest | Index {
  const value = parseJson(bytes, "manifest");
  const head = parseDocument(headSchema, value, "manifest");
  const declared = (head.mediaType ?? contentType.split(";")[0] ?? "").trim().toLowerCase();
  if (head.schemaVersion === 1 || head.fsLayers !== undefined || SCHEMA1_TYPES.includes(declared)) {
    throw refused(
      "schema1",
      "docker manifests of schema 1 are not supported; push the image again",
    );
  }
  const looksLikeIndex = head.manifests !== undefined;
  const looksLikeManifest = head.layers !== undefined || head.config !== undefined;
  const declaredOther = looksLikeIndex ? MANIFEST_TYPES : INDEX_TYPES;
  if ((looksLikeIndex && looksLikeManifest) || declaredOther.includes(declared)) {
    throw refused("ambiguous_manifest", "the manifest can be read as an index and as an image");
  }
  if (looksLikeIndex) return { kind: "index", ...parseDocument(indexSchema, value, "index") };
  const manifest = parseDocument(manifestSchema, value, "manifest");
  if (!CONFIG_TYPES.includes(manifest.config.mediaType)) {
    throw refused("not_an_image", `the manifest is of no image: ${manifest.config.mediaType}`);
  }
  return { kind: "manifest", ...manifest };
}

function layerCompression(mediaType: string): LayerDescriptor["compression"] {
  const compression = LAYER_TYPES.get(mediaType);
  if (compression !== undefined) return compression;
  if (mediaType.endsWith("+encrypted")) {
    throw refused("encrypted_layer", `encrypted layers are not supported: ${mediaType}`);
  }
  if (/nondistributable|\.foreign\./.test(mediaType)) {
    throw refused("foreign_layer", `a layer is kept elsewhere than in the image: ${mediaType}`);
  }
  throw refused("unsupported_layer_type", `the layer's media type is not supported: ${mediaType}`);
}

/** Joins the manifest's layers with the config's uncompressed digests. */
export function joinLayers(
  layers: readonly Descriptor[],
  diffIds: readonly string[],
): readonly LayerDescriptor[] {
  if (layers.length > SOURCE_LIMITS.layers) {
    throw refused("too_many_layers", `the image has more than ${SOURCE_LIMITS.layers} layers`);
  }
  const compressions = layers.map((layer) => layerCompression(layer.mediaType));
  if (layers.length !== diffIds.length) {
    throw refused(
      "diff_ids_mismatch",
      `the image has ${layers.length} layers and ${diffIds.length} diff ids`,
    );
  }
  return layers.map((layer, index) => ({
    digest: layer.digest,
    sizeBytes: layer.size,
    mediaType: layer.mediaType,
    compression: compressions[index] ?? "none",
    diffId: diffIds[index] ?? "",
  }));
}

/**
 * The config of an image for the platform. One that names no architecture or system (some builders
 * leave them blank) contradicts nothing and passes.
 * @throws AppError image_platform_missing, image_refused
 */
export function parseConfig(
  bytes: Uint8Array,
  platform: Platform,
): { config: ImageConfig; diffIds: readonly string[] } {
  const value = parseDocument(configSchema, parseJson(bytes, "config"), "config");
  const architecture = value.architecture ?? "";
  const os = value.os ?? "";
  const fits =
    (os === "" || os === platform.os) &&
    (architecture === "" || architecture === platform.architecture);
  if (!fits) throw platformMissing(platform, [platformText({ os, architecture })]);
  const run = value.config ?? {};
  const config: ImageConfig = {
    architecture: architecture || platform.architecture,
    os: os || platform.os,
    entrypoint: run.Entrypoint ?? [],
    cmd: run.Cmd ?? [],
    env: run.Env ?? [],
    working_dir: run.WorkingDir ?? "",
    user: run.User ?? "",
    exposed_ports: Object.keys(run.ExposedPorts ?? {}).sort(),
    labels: run.Labels ?? {},
  };
  return { config, diffIds: value.rootfs.diff_ids ?? [] };
}
