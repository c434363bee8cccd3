/**
 * Redo (spec §4.1 to §4.3): making a template's replicas anew. What is decided here: on which
 * nodes, from which phase on, and what the template's record says meanwhile and after a failure.
 */
import { z } from "zod";
import { AppError } from "./errors.ts";
import { frozenFor } from "./frozen.ts";
import type { JobPhase } from "./job.ts";
import { isFailedReplica, latestGeneration, wantedGeneration } from "./replica.ts";
import type { JobRecord, ReplicaStatus, TemplateRecord } from "./schema.ts";
import { templateMachine } from "./template.ts";

export const REDO_MODES = ["ALL", "NODES", "FAILED_ONLY", "FAILED_NODES"] as const;
export type RedoMode = (typeof REDO_MODES)[number];

const shortText = z.string().max(256);

export const redoSchema = z.strictObject({
  request_id: shortText.optional(),
  redo_mode: z.enum(REDO_MODES).optional().describe("otherwise by the two fields below"),
  distribution_scope: z.array(shortText).max(1_000).optional().describe("node ids or addresses"),
  failed_only: z.boolean().optional(),
  memory_only: z
    .boolean()
    .optional()
    .describe("keep the root filesystem: fail rather than build it again"),
  registry_username: shortText.optional(),
  registry_password: z.string().max(4_096).optional(),
  wait: z.boolean().optional().describe("accepted and ignored: waiting is the client's poll"),
});
export type RedoRequest = z.infer<typeof redoSchema>;

/** What a redo would do if it were asked for now. */
export interface RedoPreview {
  readonly mode: RedoMode;
  /** Nodes that it works on, sorted. */
  readonly nodes: readonly string[];
  /** Where it goes on: what comes before is kept as it is. */
  readonly resume_phase: JobPhase;
}

/**
 * The mode of a request (the table of spec §4.1).
 * @throws AppError invalid_request: the mode and the nodes do not go together
 */
export function redoModeOf(request: RedoRequest): RedoMode {
  const isScoped = (request.distribution_scope ?? []).length > 0;
  const isFailed = request.failed_only === true;
  const byFields = isFailed
    ? isScoped
      ? "FAILED_NODES"
      : "FAILED_ONLY"
    : isScoped
      ? "NODES"
      : "ALL";
  const mode = request.redo_mode ?? byFields;
  const wantsScope = mode === "NODES" || mode === "FAILED_NODES";
  const wantsFailed = mode === "FAILED_ONLY" || mode === "FAILED_NODES";
  if (wantsScope !== isScoped || (isFailed && !wantsFailed)) {
    const detail = wantsScope
      ? `${mode} needs nodes in distribution_scope`
      : `${mode} does not go with the other fields`;
    throw new AppError("invalid_request", detail, {
      meta: { errors: [{ pointer: "/redo_mode", detail }] },
    });
  }
  return mode;
}

/**
 * The nodes to work on, sorted.
 * @param candidates healthy nodes that the mode may take: of the scope, or all that may hold it
 * @throws AppError no_failed_template_replicas
 */
export function redoTargets(
  mode: RedoMode,
  candidates: readonly string[],
  replicas: Iterable<ReplicaStatus>,
): string[] {
  const targets = [...new Set(candidates)].sort();
  if (mode === "ALL" || mode === "NODES") return targets;
  const failed = new Set<string>();
  for (const replica of replicas) if (isFailedReplica(replica)) failed.add(replica.node_id);
  const chosen = targets.filter((node) => failed.has(node));
  if (chosen.length > 0) return chosen;
  throw new AppError("no_failed_template_replicas");
}

/** Where to go on (the table of spec §4.2). */
export function resumePhaseOf(
  latest: Pick<JobRecord, "phase"> | undefined,
  targets: readonly ReplicaStatus[],
): JobPhase {
  switch (latest?.phase) {
    case "PULLING":
    case "UNPACKING":
    case "BUILDING_EXT4":
    case "GENERATING_JSON":
      return "BUILDING_EXT4";
    case "DISTRIBUTING":
      return "DISTRIBUTING";
    case "CREATING_TEMPLATE":
    case "SNAPSHOTTING":
    case "REGISTERING":
      return "SNAPSHOTTING";
    default: {
      const lost = targets.some(
        (replica) =>
          isFailedReplica(replica) && (replica.redo ?? replica).last_error_phase === "DISTRIBUTING",
      );
      return lost ? "DISTRIBUTING" : "SNAPSHOTTING";
    }
  }
}

/** @throws AppError redo_not_allowed (row 71): there is nothing to go on from */
export function assertRedoable(
  latest: Pick<JobRecord, "phase" | "operation" | "job_id"> | undefined,
): void {
  if (latest?.operation !== "CREATE" || latest.phase !== "PULLING") return;
  throw new AppError(
    "redo_not_allowed",
    "redo is not allowed before source image has been pulled successfully: create the template again",
    { meta: { job_id: latest.job_id, phase: latest.phase } },
  );
}

export interface RedoPlan {
  readonly jobId: string;
  readonly mode: RedoMode;
  readonly targets: readonly string[];
  /** Above every one there was; kept in the job, so that a run that goes on asks for the same. */
  readonly generation: number;
}

/** Above what was tried as well: a node that failed with one does not try that again. */
export function nextRedoGeneration(
  template: TemplateRecord,
  replicas: Iterable<ReplicaStatus>,
): number {
  let latest = latestGeneration(template);
  for (const { generation = 0, redo } of replicas) {
    latest = Math.max(latest, generation, redo?.generation ?? 0);
  }
  return latest + 1;
}

/** The record with the targets asked for the new generation; may be applied twice. */
export function applyRedo(template: TemplateRecord, plan: RedoPlan, at: string): TemplateRecord {
  const { generations: before = {}, artifact_released: _used, ...rest } = template;
  const desired = [...new Set([...template.desired_nodes, ...plan.targets])].sort();
  // ALL is for those too that are away now: they follow when they are back.
  const generation = plan.mode === "ALL" ? plan.generation : template.generation;
  const asked = plan.targets.map((node) => [node, plan.generation] as const);
  const kept = [...Object.entries(before), ...asked].filter(([node]) => desired.includes(node));
  const generations = plan.mode === "ALL" ? {} : Object.fromEntries(kept);
  const isFailed = template.status === "FAILED";
  return {
    ...rest,
    ...(Object.keys(generations).length === 0 ? {} : { generations }),
    generation,
    desired_nodes: desired,
    job_id: plan.jobId,
    status: isFailed
      ? templateMachine.next(template.template_id, template.status, "redo")
      : template.status,
    last_error: isFailed ? "" : template.last_error,
    updated_at: at,
  };
}

/**
 * After a redo that came to nothing: each node that was asked for its generation and still has what
 * it had is asked for that, and for no more.
 */
export function giveUpRedo(
  template: TemplateRecord,
  replicas: Iterable<ReplicaStatus>,
  asked: number | undefined,
): TemplateRecord {
  const generations = { ...template.generations };
  for (const { node_id, status, generation } of replicas) {
    if (wantedGeneration(template, node_id) !== asked) continue;
    if (status === "READY" && generation !== undefined) generations[node_id] = generation;
  }
  return Object.keys(generations).length === 0 ? template : { ...template, generations };
}

/** Without what was frozen, when no node is asked for a replica of it any more. */
export function dropUnused(template: TemplateRecord): TemplateRecord {
  const { frozen, ...rest } = template;
  const isUsed = template.desired_nodes.some(
    (node) => frozenFor(template, wantedGeneration(template, node)) !== undefined,
  );
  return frozen === undefined || isUsed ? template : rest;
}
