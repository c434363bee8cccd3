/** Redo as it is asked for: what stands against it is said at once, the rest is its job's. */
import {
  AppError,
  assertRedoable,
  inScope,
  isActiveJob,
  newJobId,
  redoModeOf,
  redoTargets,
  resumePhaseOf,
  type Catalog,
  type Clock,
  type JobRecord,
  type Queries,
  type Random,
  type RedoMode,
  type RedoPreview,
  type RedoRequest,
  type ReplicaStatus,
  type TemplateRecord,
} from "../domain/index.ts";
import { pendingJob } from "./job-record.ts";
import { targetNodes, type Nodes } from "./nodes.ts";
import { replicasOf, type Records } from "./records.ts";

export interface RedoParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  readonly queries: Pick<Queries, "template">;
  readonly clock: Clock;
  readonly random: Random;
  readonly jobDeadlineMs: number;
  /** Told the job's id before anybody can work on it. */
  readonly onJob: (jobId: string) => void;
}

interface Asked {
  readonly mode: RedoMode;
  readonly scope: readonly string[];
}

/**
 * The nodes that a redo works on now.
 * @throws AppError no_template_nodes, no_failed_template_replicas, invalid_request "target nodes
 *   are not healthy or not found"
 */
export function targetsOfRedo(
  nodes: Nodes,
  template: Pick<TemplateRecord, "desired_nodes" | "distribution_scope">,
  replicas: readonly ReplicaStatus[],
  { mode, scope }: Asked,
): string[] {
  if (mode === "NODES" || mode === "FAILED_NODES") {
    return redoTargets(mode, targetNodes(nodes.all(), scope), replicas);
  }
  const own = template.distribution_scope ?? [];
  const healthy = new Set(targetNodes(nodes.all(), []));
  const holding = template.desired_nodes.filter((node) => healthy.has(node));
  const more = nodes.all().filter((node) => healthy.has(node.node_id) && inScope(node, own));
  const candidates = mode === "ALL" ? [...holding, ...more.map((node) => node.node_id)] : holding;
  if (candidates.length === 0) throw new AppError("no_template_nodes");
  return redoTargets(mode, candidates, replicas);
}

/** Newest first. */
export const jobsOf = (records: Records, templateId: string): JobRecord[] =>
  [...records.list("job")]
    .filter((job) => job.template_id === templateId)
    .sort((a, b) => b.attempt_no - a.attempt_no || (a.created_at < b.created_at ? 1 : -1));

/** An attempt that was never counted is the first (row 20). */
export const nextAttempt = (latest: Pick<JobRecord, "attempt_no"> | undefined): number =>
  latest === undefined ? 1 : Math.max(latest.attempt_no, 1) + 1;

const inProgress = (templateId: string, jobId: string): AppError =>
  new AppError(
    "template_attempt_in_progress",
    `template ${templateId} is still being made by job ${jobId}`,
    { meta: { job_id: jobId } },
  );

/** @throws AppError what stands against the redo, as `submitRedo` */
function findRedo(
  parts: Pick<RedoParts, "records" | "catalog" | "nodes" | "queries">,
  idOrName: string,
  request: RedoRequest,
) {
  const { records, catalog, nodes, queries } = parts;
  const mode = redoModeOf(request);
  const scope = request.distribution_scope ?? [];
  const { template_id: id } = queries.template(idOrName);
  const template = records.get("template", id);
  if (template?.kind === "snapshot") {
    const what = `${id} is the memory of a sandbox, which cannot be made anew`;
    throw new AppError("redo_not_allowed", what);
  }
  const jobs = jobsOf(records, id);
  const active = jobs.find(isActiveJob);
  if (active !== undefined) throw inProgress(id, active.job_id);
  const [latest] = jobs;
  assertRedoable(latest);
  if (template === undefined && latest?.operation === "COMMIT") {
    throw new AppError(
      "redo_not_allowed",
      `source_image_ref is required: nothing is left of the commit of ${latest.sandbox_id ?? ""}`,
      { meta: { job_id: latest.job_id } },
    );
  }
  const replicas = replicasOf(catalog, id);
  const place = template ?? { desired_nodes: [], distribution_scope: scopeOf(jobs) };
  const targets = targetsOfRedo(nodes, place, replicas, { mode, scope });
  const selected = replicas.filter((replica) => targets.includes(replica.node_id));
  return { id, template, jobs, mode, targets, resume: resumePhaseOf(latest, selected) };
}

/** What a redo would do now. @throws AppError as `submitRedo`, but for no_quorum */
export function previewRedo(
  parts: Pick<RedoParts, "records" | "catalog" | "nodes" | "queries">,
  idOrName: string,
  request: RedoRequest,
): RedoPreview {
  const { mode, targets, resume } = findRedo(parts, idOrName, request);
  return { mode, nodes: targets, resume_phase: resume };
}

/**
 * Writes the job, then names it in the template's record, which a deletion looks at: of both, the
 * one that gets there first wins.
 * @returns the job's id
 * @throws AppError template_not_found, template_attempt_in_progress, redo_not_allowed,
 *   no_failed_template_replicas, no_template_nodes, invalid_request, no_quorum
 */
export async function submitRedo(
  parts: RedoParts,
  idOrName: string,
  request: RedoRequest,
  context: { readonly requestId: string },
): Promise<string> {
  const { records } = parts;
  const found = findRedo(parts, idOrName, request);
  const { id, resume } = found;
  const job = newRedoJob(parts, { ...found, request, context });
  parts.onJob(job.job_id);
  await records.update("job", job.job_id, () => ({ ...job, phase: resume, resume_phase: resume }));
  try {
    const isClaimed = await claimTemplate(records, id, job.job_id);
    // Deleted since it was found: its jobs went with it.
    if (!isClaimed && found.template !== undefined) {
      throw new AppError("template_not_found", `template ${id} was deleted`);
    }
  } catch (error) {
    await records.update("job", job.job_id, (current) => (current ? null : undefined));
    throw error;
  }
  return job.job_id;
}

/**
 * @returns false when there is no record of the template to claim
 * @throws AppError template_attempt_in_progress: another job has it, or it is being deleted
 */
export async function claimTemplate(records: Records, id: string, jobId: string): Promise<boolean> {
  for (;;) {
    const before = records.get("template", id)?.job_id ?? "";
    const other = before === "" ? undefined : await records.update("job", before, () => undefined);
    if (before !== jobId && other !== undefined && isActiveJob(other)) throw inProgress(id, before);
    const claimed = await records.update("template", id, (current) => {
      if (current === undefined || (current.job_id ?? "") !== before) return undefined;
      if (current.status === "DELETING") {
        throw new AppError("template_attempt_in_progress", `template ${id} is being deleted`);
      }
      return { ...current, job_id: jobId };
    });
    if (claimed === undefined) return false;
    if (claimed.job_id === jobId) return true;
  }
}

const scopeOf = (jobs: readonly JobRecord[]): string[] =>
  jobs.find((job) => job.request !== undefined)?.request?.distribution_scope ?? [];

function newRedoJob(
  { clock, random, nodes, jobDeadlineMs }: RedoParts,
  input: {
    readonly id: string;
    readonly template: TemplateRecord | undefined;
    readonly jobs: readonly JobRecord[];
    readonly request: RedoRequest;
    readonly mode: RedoMode;
    readonly context: { readonly requestId: string };
  },
): JobRecord {
  const { id, template, jobs, request, mode, context } = input;
  const [latest] = jobs;
  const made = jobs.find((job) => job.request !== undefined);
  const artifactId = template?.artifact_id ?? made?.artifact_id;
  const scope = request.distribution_scope ?? [];
  return pendingJob(
    { node: nodes.self, nowMs: clock.now(), limitMs: jobDeadlineMs },
    {
      job_id: newJobId(random),
      template_id: id,
      request_id: request.request_id ?? context.requestId,
      resource_type: template?.kind ?? "template",
      resource_id: id,
      attempt_no: nextAttempt(latest),
      ...(latest === undefined ? {} : { retry_of_job_id: latest.job_id }),
      operation: "REDO",
      redo_mode: mode,
      ...(scope.length === 0 ? {} : { redo_scope: scope }),
      ...(request.memory_only === true ? { memory_only: true } : {}),
      // When it is gone by the time that this is worked on, it was deleted.
      ...(template === undefined ? {} : { of_template: true }),
      ...(artifactId === undefined ? {} : { artifact_id: artifactId }),
      ...(made === undefined ? {} : sourceOf(made, request)),
      instance_type: template?.instance_type ?? latest?.instance_type ?? "cubebox",
      phase: "SNAPSHOTTING",
      template_status: template?.status ?? "PENDING",
    },
  );
}

/** What a build needs again, from the job that made it. */
function sourceOf(made: JobRecord, redo: RedoRequest): Partial<JobRecord> {
  const { source_image_ref, source_image_digest, writable_layer_size, network_type } = made;
  const fingerprint = made.template_spec_fingerprint;
  const username = redo.registry_username ?? made.request?.registry_username;
  return {
    request: {
      ...made.request,
      ...(username === undefined ? {} : { registry_username: username }),
    },
    ...(source_image_ref === undefined ? {} : { source_image_ref }),
    ...(source_image_digest === undefined ? {} : { source_image_digest }),
    ...(writable_layer_size === undefined ? {} : { writable_layer_size }),
    ...(network_type === undefined ? {} : { network_type }),
    ...(fingerprint === undefined ? {} : { template_spec_fingerprint: fingerprint }),
  };
}
