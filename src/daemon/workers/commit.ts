/**
 * The sandbox's side of a commit: memory and disk are frozen in one pause, the disk is written out
 * as a root filesystem of its own, and both are published. What is left is the template's record,
 * which every node that shall hold it follows: where the frozen guest fits it goes on from there,
 * elsewhere, and after a redo, the root filesystem is booted.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  artifactIdOf,
  commitOf,
  committedSpec,
  frozenArtifactId,
  guestSpecOf,
  mergeRequest,
  sortKeys,
  withArtifact,
  type ArtifactRecord,
  type DriverSnapshot,
  type Frozen,
  type JobPhase,
  type JobRecord,
  type RuntimeDriver,
  type SandboxRequest,
  type TemplateRecord,
} from "../../domain/index.ts";
import { snapshotBytes, type Space } from "../disk/space.ts";
import { publishFile, scratchFor, type PublisherParts } from "../frozen-files.ts";
import { targetNodes, type Nodes } from "../nodes.ts";
import type { Sandboxes } from "../sandboxes.ts";

export interface CommitWorkParts extends PublisherParts {
  readonly nodes: Pick<Nodes, "all">;
  readonly sandboxes: Pick<Sandboxes, "running" | "snapshot">;
  readonly driver: RuntimeDriver;
  readonly space: Pick<Space, "hold" | "assertWritable">;
  /** On the file system of the artifacts; emptied at start. */
  readonly workDir: string;
}

/** What the job's own worker does for it. */
export interface CommitSteps {
  readonly signal: AbortSignal;
  readonly enter: (
    phase: JobPhase,
    progress: number | undefined,
    change?: Partial<JobRecord>,
  ) => Promise<void>;
  readonly say: (message: string, level?: "info" | "warn") => void;
}

/** The generation that a commit's replicas are of. */
const FIRST = 1;

/** What a container of a sandbox was said to be, before anything is known of its image. */
const NO_IMAGE: ArtifactRecord["image_config"] = {
  architecture: "",
  os: "linux",
  entrypoint: [],
  cmd: [],
  env: [],
  working_dir: "",
  user: "",
  exposed_ports: [],
  labels: {},
};

/** @throws AppError sandbox_not_found, wrong_status, storage_not_writable, snapshot_failed, … */
export async function commitSandbox(
  parts: CommitWorkParts,
  job: JobRecord,
  steps: CommitSteps,
): Promise<void> {
  const { sandboxes, records, driver } = parts;
  const { resource_id: id, sandbox_id: sandboxId = "" } = job;
  steps.signal.throwIfAborted();
  await steps.enter("SNAPSHOTTING", 10);
  const { info, spec } = sandboxes.running(sandboxId);
  await parts.space.assertWritable();
  const parentId = info.snapshot_id ?? info.template_id;
  const parent = records.get("template", parentId);
  const base = records.get("artifact", parent?.artifact_id ?? "");
  const room = await parts.space.hold(
    (base?.data_bytes ?? 0) + snapshotBytes(guestSpecOf(spec)),
    "snapshot",
  );
  const dir = join(parts.workDir, `commit-${id}`);
  let frozen: DriverSnapshot | undefined;
  try {
    frozen = await sandboxes.snapshot(
      { sandboxId, snapshotId: id, dir, sync: true },
      { signal: steps.signal, onStep: (step) => steps.say(step) },
    );
    const pause = Math.round(frozen.timings["pause_ms"] ?? 0);
    steps.say(`memory and disk of ${sandboxId} are frozen; it paused for ${pause} ms`);
    const warning = warningOf(frozen);
    if (warning !== "") steps.say(warning, "warn");
    const made = await publish(parts, job, { frozen, parent, base, spec, warning }, steps);
    await define(parts, job, { ...made, parent, parentId, warning });
  } finally {
    room.release();
    // What is left of it goes at the next start.
    if (frozen !== undefined) await driver.removeSnapshot(frozen).catch(() => undefined);
  }
}

/** What the job and the template say of a guest that was frozen with writes of its own pending. */
const warningOf = ({ unsynced }: DriverSnapshot): string =>
  unsynced === undefined
    ? ""
    : `${unsynced}: what was written in the last seconds before the commit is in the frozen ` +
      "memory, and may be missing where the root filesystem is booted without that";

interface Origin {
  readonly frozen: DriverSnapshot;
  readonly parent: TemplateRecord | undefined;
  readonly base: ArtifactRecord | undefined;
  readonly spec: SandboxRequest;
  /** Blank: there is none. */
  readonly warning: string;
}

interface Made {
  readonly artifact: ArtifactRecord;
  readonly frozen: Frozen;
  readonly request: SandboxRequest;
}

async function publish(
  parts: CommitWorkParts,
  job: JobRecord,
  { frozen, parent, base, spec, warning }: Origin,
  steps: CommitSteps,
): Promise<Made> {
  const { resource_id: id } = job;
  const asked = commitOf(job).create_request ?? {};
  const request = committedSpec(mergeRequest(asked, spec), id);
  const fingerprint = sha256(JSON.stringify(sortKeys(request)));
  const artifactId = artifactIdOf(fingerprint);
  await steps.enter("BUILDING_EXT4", 40, {
    artifact_id: artifactId,
    template_spec_fingerprint: fingerprint,
    artifact_status: "BUILDING",
    ...(warning === "" ? {} : { warning }),
  });
  const about = {
    artifact_id: artifactId,
    template_spec_fingerprint: fingerprint,
    build_key: `commit:${id}`,
    source_image_ref: parent?.image_info ?? "",
    writable_layer_size: base?.writable_layer_size ?? "",
    image_config: base?.image_config ?? NO_IMAGE,
    cube_egress_ca_baked: base?.cube_egress_ca_baked ?? false,
    cube_egress_ca_fingerprint: base?.cube_egress_ca_fingerprint ?? "",
  };
  const to = await scratchFor(parts, artifactId);
  try {
    const made = await publishFiles(parts, { id, frozen, to, about }, steps);
    return { ...made, request: withArtifact(request, made.artifact) };
  } finally {
    await parts.folders.remove(to);
  }
}

/** The root filesystem, and what the driver needs to let the frozen guest go on upon it. */
async function publishFiles(
  parts: CommitWorkParts,
  of: {
    readonly id: string;
    readonly frozen: DriverSnapshot;
    /** Where the root filesystem is written to before it is published. */
    readonly to: string;
    readonly about: Parameters<typeof publishFile>[2];
  },
  { signal, enter, say }: CommitSteps,
): Promise<Omit<Made, "request">> {
  const { driver } = parts;
  const { id, to, about } = of;
  const flat = await driver.flattenSnapshot({ snapshot: of.frozen, to }, { signal });
  const exported = await driver.exportSnapshot(flat.snapshot, { signal });
  const files = exported.files.map((file) => ({
    ...file,
    artifact_id: frozenArtifactId(id, file.name),
  }));
  // Named before they are there, so that they are somebody's from the first moment on.
  await enter("GENERATING_JSON", 65, { artifact_ids: files.map((file) => file.artifact_id) });
  const artifact = await publishFile(parts, { path: to, ...flat.rootfs }, about);
  for (const file of files) {
    signal.throwIfAborted();
    const { artifact_id } = file;
    await publishFile(parts, file, { artifact_id, build_key: `frozen:${artifact_id}` });
  }
  const { artifact_id, data_bytes, digest } = artifact;
  say(`artifact ${artifact_id} published: ${data_bytes} bytes, ${digest}`);
  const as = { generation: FIRST, templateId: "" };
  return { artifact, frozen: frozenOf(of.frozen, as, exported.description, files) };
}

/** What the record says of a snapshot whose files are artifacts. */
export const frozenOf = (
  { driver, versions }: DriverSnapshot,
  of: { readonly generation: number; readonly templateId: string },
  description: Frozen["description"],
  files: readonly { readonly name: string; readonly artifact_id: string }[],
): Frozen => ({
  generation: of.generation,
  template_id: of.templateId,
  driver,
  guest_image_version: versions.guest_image_version,
  agent_version: versions.agent_version,
  kernel_version: versions.kernel_version,
  versions_extra: { ...versions.extra },
  description: { ...description },
  files: files.map(({ name, artifact_id }) => ({ name, artifact_id })),
});

/** From this record on the template is like any other. */
async function define(
  { records, nodes, facts, clock }: CommitWorkParts,
  job: JobRecord,
  made: Made & {
    readonly parent: TemplateRecord | undefined;
    readonly parentId: string;
    readonly warning: string;
  },
): Promise<void> {
  const { artifact, frozen, request, parent, parentId, warning } = made;
  const { display_name, labels = {}, distribution_scope: scope = [] } = commitOf(job);
  const at = new Date(clock.now()).toISOString();
  const record: TemplateRecord = {
    template_id: job.resource_id,
    instance_type: parent?.instance_type ?? job.instance_type,
    version: parent?.version ?? "v2",
    kind: "template",
    status: "PENDING",
    ...(display_name === undefined ? {} : { display_name }),
    labels,
    origin_sandbox_id: job.sandbox_id ?? "",
    origin_node_id: facts.nodeId,
    parent_id: parentId,
    rootfs_size_bytes_at_snapshot: artifact.ext4_size_bytes,
    frozen,
    artifact_id: artifact.artifact_id,
    ...(parent?.image_info === undefined ? {} : { image_info: parent.image_info }),
    ...(warning === "" ? {} : { warning }),
    job_id: job.job_id,
    generation: FIRST,
    desired_nodes: targetNodes(nodes.all(), scope),
    distribution_scope: scope,
    request,
    last_error: "",
    created_at: at,
    updated_at: at,
  };
  await records.update("template", record.template_id, (current) =>
    current === undefined ? record : undefined,
  );
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
