/**
 * Bundles: a template or a snapshot as one file that another cluster can take in. Pure: what the
 * signed manifest says, what of a record is the same in every cluster, and what fits what is here.
 * The container is described in docs/bundle.md.
 */
import { z } from "zod";
import { AppError } from "./errors.ts";
import { artifactIdOf, isSafeId } from "./ids.ts";
import { sortKeys } from "./artifact.ts";
import {
  artifactRecordSchema,
  replicaSchema,
  templateRecordSchema,
  type ArtifactRecord,
  type TemplateRecord,
} from "./schema.ts";

export const BUNDLE_FORMAT = "templatecenter-bundle";
export const BUNDLE_VERSION = 1;
/** What is signed is this and then the manifest's bytes: the key signs other things as well. */
export const BUNDLE_SIGNED_PREFIX = "templatecenter bundle 1\0";
/** Name of the root filesystem among a bundle's files; the others are a snapshot's. */
export const ROOTFS_FILE = "rootfs";

/** So large is no manifest; its request has fields of 4 kB. */
export const BUNDLE_MANIFEST_BYTES = 1024 * 1024;
/** Its chunk manifest, which is held in memory, takes 64 MiB. */
export const BUNDLE_FILE_BYTES = 128 * 1024 ** 3;
/** Taken in at once: each reads, inflates and hashes as fast as it can. */
export const CONCURRENT_IMPORTS = 2;

const text = z.string().max(4_096);
const shortText = z.string().max(256);
const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const bytes = z.number().int().nonnegative().max(BUNDLE_FILE_BYTES);

const template = templateRecordSchema.shape;
const templatePart = z.strictObject({
  template_id: template.template_id.regex(/^(tpl|snap)-./).refine(isSafeId),
  instance_type: template.instance_type,
  version: template.version,
  kind: template.kind,
  display_name: template.display_name,
  labels: template.labels,
  origin_sandbox_id: template.origin_sandbox_id,
  origin_node_id: template.origin_node_id,
  parent_id: template.parent_id,
  storage_backend: template.storage_backend,
  rootfs_size_bytes_at_snapshot: template.rootfs_size_bytes_at_snapshot,
  image_info: template.image_info,
  request: template.request,
  created_at: template.created_at,
});
export const portableTemplateSchema = templatePart;
/** What of a template's record is the same wherever the template is. */
export type PortableTemplate = z.infer<typeof templatePart>;

const artifact = artifactRecordSchema.shape;
const artifactPart = z.strictObject({
  artifact_id: artifact.artifact_id.refine(isSafeId),
  template_spec_fingerprint: artifact.template_spec_fingerprint.regex(/^[0-9a-f]{64}$/),
  build_key: artifact.build_key,
  source_image_ref: artifact.source_image_ref,
  source_image_digest: artifact.source_image_digest,
  digest,
  ext4_size_bytes: bytes,
  data_bytes: artifact.data_bytes,
  entries: artifact.entries,
  writable_layer_size: artifact.writable_layer_size,
  image_config: artifact.image_config,
  cube_egress_ca_baked: artifact.cube_egress_ca_baked,
  cube_egress_ca_fingerprint: artifact.cube_egress_ca_fingerprint,
  cube_egress_ca_targets_written: artifact.cube_egress_ca_targets_written,
  created_at: artifact.created_at,
});
export type PortableArtifact = z.infer<typeof artifactPart>;

const filePart = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9]{0,31}(?:\.[a-z0-9]{1,8})?$/),
  /** Of its encoded chunk manifest, like an artifact's. */
  digest,
  size_bytes: bytes,
  /** Bytes of its chunks that are no holes: what is in the bundle of it. */
  stored_bytes: bytes,
});
export type BundleFile = z.infer<typeof filePart>;

const replica = replicaSchema.shape;
export const bundleManifestSchema = z.strictObject({
  format: z.literal(BUNDLE_FORMAT),
  version: z.literal(BUNDLE_VERSION),
  kind: z.enum(["template", "snapshot"]),
  created_at: z.string().max(64),
  creator: z.strictObject({
    node_id: shortText,
    /** Blank: made by a node that was alone. */
    cluster_id: shortText,
    /** The peer id of the node's key, which says the public key itself. */
    key: z.string().min(1).max(128),
    program: shortText,
  }),
  template: templatePart,
  artifact: artifactPart,
  /** What the replica that it was made of is bound to; of a snapshot its memory depends on it. */
  compat: z.strictObject({
    guest_image_version: replica.guest_image_version,
    agent_version: replica.agent_version,
    kernel_version: replica.kernel_version,
    versions_extra: replica.versions_extra,
  }),
  /** Of a snapshot: which driver made its files, and what that must know of them. */
  snapshot: z
    .strictObject({ driver: shortText, description: z.record(shortText, z.number()) })
    .optional(),
  files: z.array(filePart).min(1).max(8),
});
export type BundleManifest = z.infer<typeof bundleManifestSchema>;

/** Rules between the fields; the shape alone says nothing of them. */
function contradictionOf(manifest: BundleManifest): string | undefined {
  const { kind, template: record, artifact: made, files } = manifest;
  const [rootfs] = files;
  const names = files.map(({ name }) => name);
  if (record.kind !== kind) return "the record is of another kind";
  if (record.template_id.startsWith("snap-") !== (kind === "snapshot")) {
    return "the id is of another kind";
  }
  if (artifactIdOf(made.template_spec_fingerprint) !== made.artifact_id) {
    return "the artifact's id is not that of its fingerprint";
  }
  if (rootfs?.name !== ROOTFS_FILE || rootfs.digest !== made.digest) {
    return "the first file is not the artifact";
  }
  if (rootfs.size_bytes !== made.ext4_size_bytes) return "the artifact has another size";
  if (new Set(names).size !== names.length) return "two files have one name";
  if (files.some(({ size_bytes, stored_bytes }) => stored_bytes > size_bytes)) {
    return "a file holds more than its size";
  }
  if ((manifest.snapshot !== undefined) !== (kind === "snapshot")) {
    return "only a snapshot has a snapshot's files";
  }
  if (kind === "template" && files.length > 1) return "a template has no memory";
  return undefined;
}

export const invalidBundle = (why: string, cause?: unknown): AppError =>
  new AppError("bundle_invalid", `the bundle is damaged or none: ${why}`, { cause });

/** @throws AppError bundle_invalid */
export function parseBundleManifest(content: Uint8Array): BundleManifest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (cause) {
    throw invalidBundle("its manifest is no JSON", cause);
  }
  const given = value as { format?: unknown; version?: unknown } | null;
  if (given?.format === BUNDLE_FORMAT && given.version !== BUNDLE_VERSION) {
    const version = String(given.version).slice(0, 32);
    throw invalidBundle(`format version ${version}, and this program reads ${BUNDLE_VERSION}`);
  }
  const parsed = bundleManifestSchema.safeParse(value);
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.join(".") ?? "";
    throw invalidBundle(`its manifest does not fit the format at ${JSON.stringify(where)}`);
  }
  const contradiction = contradictionOf(parsed.data);
  if (contradiction !== undefined) throw invalidBundle(`its manifest says: ${contradiction}`);
  return parsed.data;
}

const defined = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as T;

export const portableTemplate = (record: TemplateRecord): PortableTemplate => {
  const {
    request_id: _asked,
    preferred_node_id: _node,
    distribution_scope: _scope,
    ...request
  } = record.request;
  return defined({
    template_id: record.template_id,
    instance_type: record.instance_type,
    version: record.version,
    kind: record.kind,
    display_name: record.display_name,
    labels: record.labels,
    origin_sandbox_id: record.origin_sandbox_id,
    origin_node_id: record.origin_node_id,
    parent_id: record.parent_id,
    storage_backend: record.storage_backend,
    rootfs_size_bytes_at_snapshot: record.rootfs_size_bytes_at_snapshot,
    image_info: record.image_info,
    request,
    created_at: record.created_at,
  });
};

export const portableArtifact = (record: ArtifactRecord): PortableArtifact =>
  defined({
    artifact_id: record.artifact_id,
    template_spec_fingerprint: record.template_spec_fingerprint,
    build_key: record.build_key,
    source_image_ref: record.source_image_ref,
    source_image_digest: record.source_image_digest,
    digest: record.digest,
    ext4_size_bytes: record.ext4_size_bytes,
    data_bytes: record.data_bytes,
    entries: record.entries,
    writable_layer_size: record.writable_layer_size,
    image_config: record.image_config,
    cube_egress_ca_baked: record.cube_egress_ca_baked,
    cube_egress_ca_fingerprint: record.cube_egress_ca_fingerprint,
    cube_egress_ca_targets_written: record.cube_egress_ca_targets_written,
    created_at: record.created_at,
  });

/** Under another id, as its request and annotations name it too. */
export function renamedTemplate(from: PortableTemplate, id: string): PortableTemplate {
  const { request } = from;
  const annotations = Object.fromEntries(
    Object.entries(request.annotations ?? {}).map(([key, value]) => [
      key,
      value === from.template_id ? id : value,
    ]),
  );
  return {
    ...from,
    template_id: id,
    request: {
      ...request,
      ...(request.template_id === undefined ? {} : { template_id: id }),
      ...(request.annotations === undefined ? {} : { annotations }),
    },
  };
}

/** Name and labels are whoever's who has the template, and no part of what it is. */
const contentOf = (one: PortableTemplate, artifactDigest: string): string =>
  JSON.stringify(
    sortKeys({ ...one, display_name: undefined, labels: undefined, artifact: artifactDigest }),
  );

/** The template of that id that is here already is the one in the bundle. */
export const isSameTemplate = (
  here: TemplateRecord,
  artifactHere: ArtifactRecord | undefined,
  wanted: PortableTemplate,
  artifactDigest: string,
): boolean =>
  artifactHere !== undefined &&
  ["PENDING", "CREATING", "READY", "PARTIALLY_READY"].includes(here.status) &&
  contentOf(portableTemplate(here), artifactHere.digest) === contentOf(wanted, artifactDigest);

/** What came of an import. */
export const importedSchema = z.object({
  template_id: text,
  kind: z.enum(["template", "snapshot"]),
  artifact_id: text,
  /** `accepted`: a job makes it READY; `imported`: it is; `present`: it was here already. */
  outcome: z.enum(["accepted", "imported", "present"]),
  /** Blank unless it was accepted. */
  job_id: text,
  signed_by: z.object({ node_id: text, cluster_id: text, key: text }),
});
export type Imported = z.infer<typeof importedSchema>;

export interface ImportRequest {
  /** Take it in under this id; `new_id` makes one. */
  readonly template_id?: string;
  readonly new_id?: boolean;
  readonly display_name?: string;
  readonly distribution_scope?: readonly string[];
  /** Peer ids of keys that are good besides those of the cluster's members. */
  readonly trust?: readonly string[];
}
