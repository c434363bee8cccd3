/**
 * The second half of a template's job: the record that says which replicas there shall be, waiting
 * for them, and what the template is when they have ended.
 */
import {
  AppError,
  applyRedo,
  attemptAt,
  dropUnused,
  generateCreateRequest,
  isCounted,
  nextRedoGeneration,
  statusFromReplicas,
  wantedGeneration,
  withAgentVersion,
  type ArtifactRecord,
  type Catalog,
  type CreateFromImageRequest,
  type JobPhase,
  type JobRecord,
  type RedoMode,
  type ReplicaStatus,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Artifacts } from "../build/artifacts.ts";
import type { JobLog } from "../job-log.ts";
import { finishJob } from "../job-record.ts";
import { targetNodes, type Nodes } from "../nodes.ts";
import { imageInfo } from "../queries.ts";
import { replicasOf, type Records } from "../records.ts";
import { targetsOfRedo } from "../redo.ts";
import type { ProgressReporter } from "./progress.ts";

/** What the steps of one run share. */
export interface JobSteps {
  readonly catalog: Catalog;
  readonly nodes: Nodes;
  readonly artifacts: Pick<Artifacts, "isAvailable">;
  readonly jobLog: JobLog;
  /** Written under the run's lease. */
  readonly records: Records;
  readonly enter: (
    jobId: string,
    phase: JobPhase,
    change?: Partial<JobRecord>,
  ) => Promise<JobRecord>;
  /** Gives the template its name; answers why it did not get it, or nothing. */
  readonly claimName: (job: JobRecord, template: TemplateRecord) => Promise<string>;
  readonly now: () => string;
}

/** @throws AppError internal: it has none */
export function requestOf(job: JobRecord | undefined): CreateFromImageRequest {
  const request = job?.request;
  if (request?.source_image_ref === undefined || request.writable_layer_size === undefined) {
    throw new AppError("internal", `job ${job?.job_id ?? ""} has no stored request`);
  }
  return {
    ...request,
    source_image_ref: request.source_image_ref,
    writable_layer_size: request.writable_layer_size,
  };
}

/**
 * The definition, PENDING, with the nodes that shall hold a replica: reconcilers take it from
 * here.
 */
export async function defineTemplate(
  steps: JobSteps,
  jobId: string,
  artifact: ArtifactRecord,
  fresh: boolean,
): Promise<JobRecord> {
  const { records } = steps;
  const job = records.get("job", jobId);
  const request = requestOf(job);
  if (job === undefined) throw new AppError("internal", `job ${jobId} is gone`);
  const scope = request.distribution_scope ?? [];
  const nodes = targetNodes(steps.nodes.all(), scope);
  const at = steps.now();
  const wasDefined = job.phases.some(({ phase }) => phase === "DISTRIBUTING");
  await records.update("template", job.template_id, (current) => {
    if (current === undefined && wasDefined) {
      throw new AppError("template_not_found", `template ${job.template_id} was deleted`);
    }
    return {
      template_id: job.template_id,
      instance_type: request.instance_type ?? "cubebox",
      version: "v2",
      kind: "template",
      status: "PENDING",
      ...(request.display_name === undefined ? {} : { display_name: request.display_name }),
      labels: request.labels ?? {},
      ...madeFrom(job, artifact),
      job_id: jobId,
      generation: (current?.generation ?? 0) + 1,
      desired_nodes: nodes,
      distribution_scope: scope,
      last_error: "",
      created_at: current?.created_at ?? at,
      updated_at: at,
    };
  });
  return steps.enter(jobId, "DISTRIBUTING", {
    expected_node_count: nodes.length,
    template_status: "PENDING",
    artifact_status: "READY",
    artifact_fresh: fresh,
  });
}

/** @throws AppError internal */
function madeFrom(
  job: JobRecord,
  artifact: ArtifactRecord,
): Pick<TemplateRecord, "artifact_id" | "image_info" | "request"> {
  if (artifact.image_config === undefined) {
    throw new AppError("internal", `the image configuration of ${artifact.artifact_id} is gone`);
  }
  return {
    artifact_id: artifact.artifact_id,
    image_info: imageInfo(artifact.source_image_ref, artifact.source_image_digest),
    request: generateCreateRequest({
      templateId: job.template_id,
      artifactId: artifact.artifact_id,
      fingerprint: artifact.template_spec_fingerprint,
      artifactDigest: artifact.digest,
      artifactSizeBytes: artifact.ext4_size_bytes,
      image: artifact.image_config,
      request: requestOf(job),
    }),
  };
}

/** The nodes and the generation of a redo, decided by its first run and kept in its job. */
export async function planRedo(steps: JobSteps, job: JobRecord): Promise<JobRecord> {
  const template = steps.records.get("template", job.template_id);
  if (template === undefined || job.target_nodes !== undefined) return job;
  const mode = (job.redo_mode ?? "ALL") as RedoMode;
  const replicas = replicasOf(steps.catalog, job.template_id);
  const targets = targetsOfRedo(steps.nodes, template, replicas, {
    mode,
    scope: job.redo_scope ?? [],
  });
  steps.jobLog.append(job.job_id, "info", `redo ${mode} on ${targets.join(", ")}`);
  return steps.enter(job.job_id, job.phase, {
    target_nodes: targets,
    generation: nextRedoGeneration(template, replicas),
    expected_node_count: targets.length,
  });
}

/**
 * Asks the nodes of a redo for its generation.
 * @param rebuilt the artifact, when it was built again
 * @throws AppError template_not_found, template_attempt_in_progress; redo_not_allowed: what was
 *   built is not what the template's other replicas are made from
 */
export async function askForRedo(
  steps: JobSteps,
  job: JobRecord,
  rebuilt?: { readonly artifact: ArtifactRecord; readonly fresh: boolean },
): Promise<JobRecord> {
  const { template_id: id, job_id: jobId, target_nodes: targets = [], generation = 0 } = job;
  const template = await steps.records.update("template", id, (current) => {
    if (current === undefined) return undefined;
    if (current.status === "DELETING" || current.job_id !== jobId) {
      throw new AppError(
        "template_attempt_in_progress",
        `template ${id} has been claimed by others`,
      );
    }
    const changed = rebuilt !== undefined && rebuilt.artifact.artifact_id !== current.artifact_id;
    if (changed && replicasOf(steps.catalog, id).some(({ status }) => status === "READY")) {
      throw new AppError(
        "redo_not_allowed",
        `the image behind ${id} or what is baked into it has changed: create a new template`,
        { meta: { artifact_id: rebuilt.artifact.artifact_id, was: current.artifact_id } },
      );
    }
    const mode = (job.redo_mode ?? "ALL") as RedoMode;
    const asked = applyRedo(current, { jobId, mode, targets, generation }, steps.now());
    return changed ? { ...asked, ...madeFrom(job, rebuilt.artifact) } : asked;
  });
  if (template === undefined) throw new AppError("template_not_found", `template ${id} is gone`);
  const phase = rebuilt === undefined && job.phase === "SNAPSHOTTING" ? job.phase : "DISTRIBUTING";
  return steps.enter(jobId, phase, {
    artifact_id: template.artifact_id ?? "",
    template_status: template.status,
    artifact_status: "READY",
    ...(rebuilt === undefined ? {} : { artifact_fresh: rebuilt.fresh }),
  });
}

interface Sight {
  readonly targets: readonly string[];
  /** Of each target: how far it got with what it was asked for. */
  readonly phases: readonly (string | undefined)[];
  readonly ended: number;
  readonly delivered: number;
  /** True when each has ended without the artifact: nothing was begun with it anywhere. */
  readonly isLost: boolean;
}

function seeReplicas(steps: JobSteps, template: TemplateRecord, job: JobRecord): Sight {
  const targets = job.target_nodes ?? template.desired_nodes;
  const byNode = new Map(
    replicasOf(steps.catalog, template.template_id).map((one) => [one.node_id, one]),
  );
  const attempts = targets.map((node) =>
    attemptAt(byNode.get(node), wantedGeneration(template, node)),
  );
  const phases = attempts.map((attempt) => attempt?.phase);
  // A node that is down does not hold up the others: it catches up when it comes back.
  const hasEnded = (node: string, index: number) =>
    ["READY", "FAILED"].includes(phases[index] ?? "") || steps.nodes.get(node)?.healthy !== true;
  const ended = targets.filter(hasEnded).length;
  const delivered = targets.filter(
    (node, index) => (phases[index] ?? "DISTRIBUTING") !== "DISTRIBUTING" || hasEnded(node, index),
  ).length;
  const lacks = (attempt: (typeof attempts)[number]) =>
    attempt === undefined || attempt.last_error_phase === "DISTRIBUTING";
  const isLost = ended >= targets.length && targets.length > 0 && attempts.every(lacks);
  return { targets, phases, ended, delivered, isLost };
}

/**
 * Follows the replicas' facts until each is READY or FAILED for its generation.
 * @throws AppError template_not_found, job_not_active; the signal's reason
 * @returns false when no node that is up holds the artifact any more, so that nobody can get it
 */
export async function awaitReplicas(
  steps: JobSteps,
  job: JobRecord,
  signal: AbortSignal,
  progress: ProgressReporter,
): Promise<boolean> {
  const { artifacts, catalog, nodes, records } = steps;
  let wake: () => void = () => undefined;
  const artifactId = records.get("template", job.template_id)?.artifact_id;
  const unsubscribe = catalog.subscribe((entry) => {
    // Also when a node says that it holds the artifact no more.
    if (entry.id === job.template_id || entry.id === artifactId) wake();
  });
  const unwatch = nodes.onChange(() => wake());
  const onAbort = () => wake();
  signal.addEventListener("abort", onAbort);
  try {
    for (;;) {
      const changed = new Promise<void>((resolve) => (wake = resolve));
      signal.throwIfAborted();
      const template = records.get("template", job.template_id);
      if (template === undefined)
        throw new AppError("template_not_found", "the template was deleted");
      const { targets, ended, delivered, isLost } = seeReplicas(steps, template, job);
      progress.replicas(ended, targets.length);
      if (isLost) return true;
      if (delivered >= targets.length) {
        const at = records.get("job", job.job_id)?.phase;
        if (at !== "SNAPSHOTTING" && at !== "REGISTERING") {
          // Also when its record is gone: entering says so, where going round would never end.
          const next = at === "CREATING_TEMPLATE" ? "SNAPSHOTTING" : "CREATING_TEMPLATE";
          await steps.enter(job.job_id, next);
          continue;
        }
      }
      if (ended >= targets.length) return true;
      if (!artifacts.isAvailable(records.get("artifact", template.artifact_id ?? ""))) {
        return false;
      }
      await changed;
    }
  } finally {
    unsubscribe();
    unwatch();
    signal.removeEventListener("abort", onAbort);
  }
}

/** The template's status over all nodes that shall hold it: of any generation, what serves. */
export const statusOf = (template: TemplateRecord, replicas: readonly ReplicaStatus[]) =>
  statusFromReplicas(
    template.desired_nodes,
    replicas.filter((replica) => isCounted(template, replica)),
  );

/** How the nodes of a job have ended, each with what it was asked for. */
function outcome(template: TemplateRecord, job: JobRecord, replicas: readonly ReplicaStatus[]) {
  const targets = job.target_nodes ?? template.desired_nodes;
  const asked = replicas.flatMap((replica) => {
    const attempt = attemptAt(replica, wantedGeneration(template, replica.node_id));
    if (attempt === undefined) return [];
    const status = attempt.phase === "READY" ? "READY" : "FAILED";
    return [{ node_id: replica.node_id, status, error_message: attempt.error_message ?? "" }];
  });
  return statusFromReplicas(targets, asked);
}

/**
 * @throws AppError snapshot_failed when no node has got there; a job that was distributing stays in
 *   that phase then
 */
export async function registerReplicas(steps: JobSteps, jobId: string): Promise<void> {
  const { catalog, jobLog, records } = steps;
  const seen = records.get("job", jobId);
  const template = records.get("template", seen?.template_id ?? "");
  if (seen === undefined || template === undefined) {
    throw new AppError("template_not_found", "the template was deleted");
  }
  const isRedo = seen.operation === "REDO";
  const replicas = replicasOf(catalog, seen.template_id);
  const { status, ready, failed, error } = outcome(template, seen, replicas);
  const isLost = status === "FAILED" && seen.phase === "DISTRIBUTING";
  const job = isRedo || isLost ? seen : await steps.enter(jobId, "REGISTERING");
  const counts = { ready_node_count: ready, failed_node_count: failed };
  if (status === "FAILED") {
    await records.update("job", jobId, (current) => current && { ...current, ...counts });
    throw new AppError("snapshot_failed", error);
  }
  if (isRedo) await steps.enter(jobId, "REGISTERING");
  const warning = await steps.claimName(job, template);
  if (warning !== "") jobLog.append(jobId, "warn", warning);
  const at = steps.now();
  const now = statusOf(template, replicas);
  await records.update("template", job.template_id, (current) => {
    if (current === undefined) return undefined;
    const { request, differing } = withAgentVersion(current.request, replicas);
    if (differing.length > 0) {
      const others = differing.join(", ");
      jobLog.append(jobId, "warn", `some replicas have another agent in them: ${others}`);
    }
    const { status: is, error: why } = now;
    return dropUnused({ ...current, request, status: is, last_error: why, updated_at: at });
  });
  await records.update(
    "job",
    jobId,
    (current) =>
      current && { ...finishJob(current, steps.now()), ...counts, template_status: now.status },
  );
  jobLog.append(jobId, "info", `template ${job.template_id} is ${now.status}`);
}
