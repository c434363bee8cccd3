/**
 * Shapes on the wire, in the API and in the catalog, in the seed's snake_case names. The same
 * schemas validate, give the TypeScript types and make openapi.json.
 */
import { z } from "zod";
import { ARTIFACT_STATUSES } from "./artifact.ts";
import { COMPAT_POLICIES, COMPAT_STATUSES } from "./compat.ts";
import { frozenSchema } from "./frozen.ts";
import { JOB_OPERATIONS, JOB_PHASES, JOB_STATUSES } from "./job.ts";
import { storageSchema } from "./storage-status.ts";
import { nameSchema } from "./tag.ts";
import { TEMPLATE_STATUSES } from "./template.ts";

const text = z.string().max(4_096);
const shortText = z.string().max(256);
const stringMap = z.record(shortText, text);
const unixSeconds = z.number().int().nonnegative();
const rfc3339 = z.string();

/* ---- requests ------------------------------------------------------------------------------- */

export const networkConfigSchema = z.strictObject({
  allow_internet_access: z.boolean().optional(),
  allow_out: z.array(shortText).max(1_000).optional(),
  deny_out: z.array(shortText).max(1_000).optional(),
});

const httpProbeSchema = z.strictObject({
  port: z.number().int().min(1).max(65_535),
  path: text.startsWith("/").default("/health"),
  timeout_ms: z.number().int().min(100).max(600_000).default(30_000),
  period_ms: z.number().int().min(10).max(60_000).default(500),
  success_threshold: z.number().int().min(1).max(100).default(1),
  failure_threshold: z.number().int().min(1).max(10_000).default(60),
});

export const containerOverridesSchema = z.strictObject({
  command: z.array(text).optional(),
  args: z.array(text).optional(),
  working_dir: text.optional(),
  envs: z.array(z.strictObject({ key: z.string().min(1).max(256), value: text })).optional(),
  dns_config: z
    .strictObject({
      servers: z.array(z.union([z.ipv4(), z.ipv6()])).optional(),
      searches: z.array(shortText).optional(),
      options: z.array(shortText).optional(),
    })
    .optional(),
  resources: z
    .strictObject({
      cpu: shortText.optional(),
      mem: shortText.optional(),
      limit: stringMap.optional(),
    })
    .optional(),
  security_context: z.record(z.string(), z.unknown()).optional(),
  probe: httpProbeSchema.optional(),
  annotations: stringMap.optional(),
  volume_mounts: z
    .array(z.strictObject({ name: shortText, mount_path: text, read_only: z.boolean().optional() }))
    .optional(),
  r_limit: z.strictObject({ no_file: z.number().int().positive() }).optional(),
});

export const createFromImageSchema = z.strictObject({
  request_id: shortText.optional(),
  source_image_ref: z.string().trim().min(1, "must not be blank").max(1_024),
  registry_username: shortText.optional(),
  registry_password: text.optional(),
  template_id: shortText.optional().describe("accepted and ignored: a new id is always made"),
  display_name: nameSchema
    .optional()
    .describe("stands for the id; the last build of a name that ends well has it"),
  instance_type: shortText.optional(),
  network_type: shortText.optional(),
  cube_network_config: networkConfigSchema.optional(),
  writable_layer_size: z.string().trim().min(1, "must not be blank").max(32),
  exposed_ports: z.array(z.number().int().min(1).max(65_535)).max(64).optional(),
  distribution_scope: z.array(shortText).max(1_000).optional(),
  container_overrides: containerOverridesSchema.optional(),
  labels: stringMap.optional(),
  wait: z.boolean().optional().describe("accepted and ignored: waiting is the client's poll"),
  with_cube_ca: z.boolean().optional(),
  enable_ivshmem: z.boolean().optional(),
});
export type CreateFromImageRequest = z.infer<typeof createFromImageSchema>;

const containerSchema = z.looseObject({
  name: shortText.optional(),
  image: z.looseObject({ image: text.optional(), annotations: stringMap.optional() }).optional(),
  command: z.array(text).optional(),
  args: z.array(text).optional(),
  envs: z.array(z.strictObject({ key: z.string(), value: z.string() })).optional(),
  working_dir: text.optional(),
  resources: z.looseObject({ cpu: shortText.optional(), mem: shortText.optional() }).optional(),
  probe: httpProbeSchema.optional(),
  r_limit: z.looseObject({ no_file: z.number().int().positive().optional() }).optional(),
});

/** The predecessor's CreateCubeSandboxReq, as far as templates need it; unknown fields are kept. */
export const sandboxRequestSchema = z.looseObject({
  request_id: shortText.optional(),
  template_id: shortText.optional(),
  preferred_node_id: shortText.optional(),
  instance_type: shortText.optional(),
  network_type: shortText.optional(),
  runtime_handler: shortText.optional(),
  namespace: shortText.optional(),
  annotations: stringMap.optional(),
  labels: stringMap.optional(),
  distribution_scope: z.array(shortText).max(1_000).optional(),
  volumes: z.array(z.looseObject({ name: shortText })).optional(),
  containers: z.array(containerSchema.nullable()).optional(),
  cube_network_config: networkConfigSchema.optional(),
});
export type SandboxRequest = z.infer<typeof sandboxRequestSchema>;
export type ContainerSpec = z.infer<typeof containerSchema>;

export const runSandboxSchema = z.strictObject({
  template_id: z.string().trim().min(1, "must not be blank").max(256),
  sandbox_id: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be lower-case letters, digits and dashes")
    .optional(),
  labels: stringMap.optional(),
});
export type RunSandboxRequest = z.infer<typeof runSandboxSchema>;

/* ---- stored values and views ----------------------------------------------------------------- */

const REPLICA_PHASES = [
  "PENDING",
  "DISTRIBUTING",
  "DISTRIBUTED",
  "SNAPSHOTTING",
  "READY",
  "FAILED",
  "CLEANING",
] as const;

export const replicaSchema = z.looseObject({
  node_id: shortText,
  node_ip: shortText.default(""),
  instance_type: shortText.optional(),
  spec: shortText.optional(),
  status: z.enum(["READY", "FAILED"]),
  phase: z.enum(REPLICA_PHASES),
  artifact_id: shortText.optional(),
  last_job_id: shortText.optional(),
  /** The template's generation that this replica is of. */
  generation: z.number().int().nonnegative().optional(),
  last_error_phase: shortText.optional(),
  cleanup_required: z.boolean().optional(),
  error_message: z.string().optional(),
  guest_image_version: shortText.optional(),
  agent_version: shortText.optional(),
  kernel_version: shortText.optional(),
  versions_extra: stringMap.optional(),
  compat_status: z.enum(COMPAT_STATUSES).optional(),
  compat_policy: z.enum(COMPAT_POLICIES).optional(),
  compat_checked_unix: unixSeconds.optional(),
  /** The making of a later generation, while this one serves; gone when that one is READY. */
  redo: z
    .looseObject({
      generation: z.number().int().nonnegative(),
      phase: z.enum(REPLICA_PHASES),
      job_id: shortText.optional(),
      last_error_phase: shortText.optional(),
      error_message: z.string().optional(),
    })
    .optional(),
  /** Milliseconds each step took on that node: boot, probe, snapshot. */
  timings: z.record(z.string(), z.number()).optional(),
});
export type ReplicaStatus = z.infer<typeof replicaSchema>;

const deletionSchema = z.looseObject({
  id: shortText,
  node_id: shortText,
  from_status: z.enum(["READY", "PARTIALLY_READY", "FAILED"]),
  begun_at: rfc3339,
});
export type Deletion = z.infer<typeof deletionSchema>;

export const templateRecordSchema = z.looseObject({
  template_id: shortText,
  instance_type: shortText,
  version: shortText,
  kind: z.enum(["template", "snapshot"]),
  status: z.enum(TEMPLATE_STATUSES),
  display_name: shortText.optional(),
  labels: stringMap.optional(),
  origin_sandbox_id: shortText.optional(),
  origin_node_id: shortText.optional(),
  /** What the sandbox ran on when it was snapshotted. */
  parent_id: shortText.optional(),
  storage_backend: shortText.optional(),
  retain: z.boolean().optional(),
  /** It is not deleted, forced or not, until this is taken back. */
  protected: z.boolean().optional(),
  rootfs_size_bytes_at_snapshot: z.number().nonnegative().optional(),
  frozen: frozenSchema.optional(),
  artifact_id: shortText.optional(),
  image_info: text.optional(),
  /** What whoever uses it should know of how it was made. */
  warning: text.optional(),
  job_id: shortText.optional(),
  /** Its build failed and took the artifact with it: the id is no reference any more. */
  artifact_released: z.boolean().optional(),
  /** Which attempt of making the replicas this is: a node remakes what has a lower one. */
  generation: z.number().int().nonnegative(),
  /** Nodes that were asked for another one than that. */
  generations: z.record(shortText, z.number().int().nonnegative()).optional(),
  /** Nodes that shall hold a replica. */
  desired_nodes: z.array(shortText),
  /** Node ids or addresses that may hold it; empty: every node, those that join later too. */
  distribution_scope: z.array(shortText).optional(),
  /** Of the leader that wrote it last: a lower one may not write it again. */
  epoch: z.number().int().nonnegative().optional(),
  /** While DELETING: who deletes it, in which attempt, and what it was before. */
  deletion: deletionSchema.optional(),
  request: sandboxRequestSchema,
  last_error: z.string(),
  created_at: rfc3339,
  updated_at: rfc3339,
});
export type TemplateRecord = z.infer<typeof templateRecordSchema>;

export const jobRecordSchema = z.looseObject({
  job_id: shortText,
  template_id: shortText,
  request_id: shortText,
  resource_type: z.enum(["template", "snapshot"]),
  resource_id: shortText,
  attempt_no: z.number().int().positive(),
  retry_of_job_id: shortText.optional(),
  operation: z.enum(JOB_OPERATIONS),
  /** Of a REDO: which nodes were asked for and which are worked on, and where it began. */
  redo_mode: shortText.optional(),
  redo_scope: z.array(shortText).optional(),
  resume_phase: z.enum(JOB_PHASES).optional(),
  memory_only: z.boolean().optional(),
  target_nodes: z.array(shortText).optional(),
  generation: z.number().int().nonnegative().optional(),
  artifact_id: shortText.optional(),
  /** More that it has made or is about to make. */
  artifact_ids: z.array(shortText).optional(),
  /** It has failed and its artifact goes: the id is no reference any more. */
  artifact_released: z.boolean().optional(),
  template_spec_fingerprint: shortText.optional(),
  source_image_ref: text.optional(),
  source_image_digest: shortText.optional(),
  writable_layer_size: shortText.optional(),
  instance_type: shortText,
  network_type: shortText.optional(),
  status: z.enum(JOB_STATUSES),
  phase: z.enum(JOB_PHASES),
  progress: z.number().min(0).max(100),
  error_message: z.string(),
  error_code: shortText.optional(),
  /** What did not go as it should, though the job went on. */
  warning: text.optional(),
  expected_node_count: z.number().int().nonnegative(),
  ready_node_count: z.number().int().nonnegative(),
  failed_node_count: z.number().int().nonnegative(),
  template_status: shortText.optional(),
  artifact_status: shortText.optional(),
  /** Of an operation on a snapshot: the sandbox, and its node, which carries it out. */
  sandbox_id: shortText.optional(),
  node_id: shortText.optional(),
  display_name: shortText.optional(),
  /** Of a delivery: what was asked for, empty is all nodes; `target_nodes` get it. */
  asked_nodes: z.array(shortText).optional(),
  /** Of all nodes: those that cannot have it. */
  skipped_nodes: z.array(z.object({ node_id: shortText, reason: text })).optional(),
  /** Of a rollback: the sandbox's generation after it. */
  sandbox_gen: z.number().int().nonnegative().optional(),
  /** The request without its password, as it is compared and resumed. */
  request: createFromImageSchema.partial().optional(),
  /** Of an IMPORT or a prepared request: the template, and the nodes that may hold it. */
  definition: z.record(z.string(), z.unknown()).optional(),
  import_scope: z.array(shortText).optional(),
  cancel_requested: z.boolean().optional(),
  /** Who asked for it to be cancelled. */
  cancelled_by: shortText.optional(),
  /** Where it was asked for: registry credentials stay there, in memory. */
  submitted_to: shortText.optional(),
  /** Which node works on it, and the epoch of its leadership. */
  worked_by: shortText.optional(),
  epoch: z.number().int().nonnegative().optional(),
  /** How often a daemon took the job up. */
  runs: z.number().int().nonnegative(),
  phases: z.array(
    z.object({ phase: z.enum(JOB_PHASES), started_at: rfc3339, ended_at: rfc3339.optional() }),
  ),
  deadline_at: rfc3339,
  created_at: rfc3339,
  updated_at: rfc3339,
  ended_at: rfc3339.optional(),
});
export type JobRecord = z.infer<typeof jobRecordSchema>;

export const jobProgressSchema = z.looseObject({
  job_id: shortText,
  /** Share of the phase that is done, 0 to 1. */
  phase_ratio: z.number().min(0).max(1),
  pull_total_bytes: z.number().nonnegative(),
  pull_downloaded_bytes: z.number().nonnegative(),
  pull_total_layers: z.number().int().nonnegative(),
  pull_completed_layers: z.number().int().nonnegative(),
  pull_speed_bps: z.number().nonnegative(),
  written_bytes: z.number().nonnegative(),
  entries: z.number().int().nonnegative(),
  note: z.string(),
});
export type JobProgress = z.infer<typeof jobProgressSchema>;

export const imageConfigSchema = z.looseObject({
  architecture: z.string(),
  os: z.string(),
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
  env: z.array(z.string()),
  working_dir: z.string(),
  user: z.string(),
  exposed_ports: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
});

export const artifactRecordSchema = z.looseObject({
  artifact_id: shortText,
  template_spec_fingerprint: shortText,
  /** Equal for artifacts of equal bytes: image digest and what is baked in. */
  build_key: shortText,
  source_image_ref: text,
  source_image_digest: shortText,
  /** `sha256:<hex>` over the chunk manifest: the identity of the bytes. Blank until READY. */
  digest: shortText,
  ext4_size_bytes: z.number().nonnegative(),
  data_bytes: z.number().nonnegative(),
  entries: z.number().int().nonnegative(),
  writable_layer_size: shortText,
  image_config: imageConfigSchema.optional(),
  status: z.enum(ARTIFACT_STATUSES),
  last_error: z.string(),
  gc_deadline: unixSeconds,
  /** Since when nobody refers to it; absent while somebody does. */
  unreferenced_at: rfc3339.optional(),
  /** While CLEANUP_PENDING: nodes that have begun to remove their copy, which counts no more. */
  cleaned_by: z.array(shortText).optional(),
  cube_egress_ca_baked: z.boolean(),
  cube_egress_ca_fingerprint: shortText,
  cube_egress_ca_targets_written: z.number().int().nonnegative(),
  download_token: shortText,
  /** While BUILDING: by whom, under which leadership. */
  builder: z
    .object({ node_id: shortText, template_id: shortText, epoch: z.number().int().nonnegative() })
    .optional(),
  /** Since READY: the node that made the bytes, which holds them before others hear of it. */
  built_on: shortText.optional(),
  created_at: rfc3339,
  updated_at: rfc3339,
});
export type ArtifactRecord = z.infer<typeof artifactRecordSchema>;

/** A node's fact: it holds these bytes. */
export const holdingSchema = z.looseObject({
  artifact_id: shortText,
  digest: shortText,
  size_bytes: z.number().nonnegative(),
  complete: z.boolean(),
  /** While it is fetched: how many of its chunks are here. */
  have_chunks: z.number().int().nonnegative().optional(),
  verified_at: rfc3339.optional(),
});
export type Holding = z.infer<typeof holdingSchema>;

export const nodeFactSchema = z.looseObject({
  node_id: shortText,
  node_ip: shortText,
  address: text,
  instance_type: shortText,
  version: shortText,
  started_at: rfc3339,
  healthy: z.boolean(),
  drained: z.boolean(),
  driver: shortText.describe("qemu, rootfs or exec"),
  driver_detail: text,
  driver_error: text.optional().describe("why the driver does not answer, while it does not"),
  guest_image_version: shortText,
  agent_version: shortText,
  kernel_version: shortText,
  versions_extra: stringMap,
  /** Its stale replicas are made again by themselves, at most one per so long; absent: not. */
  resnapshot_interval_ms: z.number().int().positive().optional(),
  /** Wire versions that it speaks, oldest and newest. */
  wire: z.object({ min: z.number().int(), max: z.number().int() }).optional(),
  cpu_count: z.number().int().positive(),
  memory_bytes: z.number().nonnegative(),
  storage: storageSchema,
  /** What it is configured with; absent: nothing. */
  retention: z.object({ keep_last: z.number(), unused_ttl_ms: z.number() }).optional(),
});
export type NodeFact = z.infer<typeof nodeFactSchema>;

export const sandboxSchema = z.looseObject({
  sandbox_id: shortText,
  template_id: shortText,
  /** Of the template's replica here when it was started. */
  generation: z.number().int().nonnegative().optional(),
  /** What it runs on since its last rollback; absent: on its template. */
  snapshot_id: shortText.optional(),
  node_id: shortText,
  status: z.enum(["STARTING", "RUNNING", "STOPPED"]),
  pid: z.number().int().optional(),
  ports: z.record(z.string(), z.object({ host: z.string(), port: z.number().int() })),
  labels: stringMap,
  /** Milliseconds of each step of the start. */
  timings: z.record(z.string(), z.number()),
  created_at: rfc3339,
});
export type SandboxInfo = z.infer<typeof sandboxSchema>;

export const templateInfoSchema = z.object({
  template_id: z.string(),
  instance_type: z.string(),
  version: z.string(),
  status: z.string(),
  kind: z.enum(["template", "snapshot"]),
  display_name: z.string(),
  labels: stringMap,
  protected: z.boolean(),
  last_error: z.string(),
  /** What whoever uses it should know of how it was made; blank: nothing. */
  warning: z.string(),
  /** The sandbox that became it, and what that had run on; blank when it was made of an image. */
  origin_sandbox_id: z.string(),
  parent_id: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  image_info: z.string(),
  job_id: z.string(),
  artifact_id: z.string(),
  artifact_digest: z.string(),
  artifact_size_bytes: z.number(),
  replicas: z.array(replicaSchema),
  desired_nodes: z.array(z.string()),
  cube_egress_ca_baked: z.boolean(),
  cube_egress_ca_fingerprint: z.string(),
  cube_egress_ca_targets_written: z.number(),
});
export type TemplateInfo = z.infer<typeof templateInfoSchema>;

export const jobInfoSchema = jobRecordSchema.omit({ request: true, definition: true }).extend({
  pull_total_bytes: z.number(),
  pull_downloaded_bytes: z.number(),
  pull_total_layers: z.number(),
  pull_completed_layers: z.number(),
  pull_speed_bps: z.number(),
  written_bytes: z.number(),
  entries: z.number(),
  phase_ratio: z.number(),
  note: z.string(),
  artifact_digest: z.string(),
});
export type JobInfo = z.infer<typeof jobInfoSchema>;

export const artifactInfoSchema = artifactRecordSchema
  .omit({ download_token: true })
  .extend({ holders: z.array(z.string()) });
export type ArtifactInfo = z.infer<typeof artifactInfoSchema>;

export const resolveResultSchema = z.object({
  template_id: z.string(),
  kind: z.enum(["template", "snapshot"]),
  node_id: z.string(),
  replica: replicaSchema,
  request: sandboxRequestSchema,
});
export type ResolveResult = z.infer<typeof resolveResultSchema>;
