/**
 * The definition of a template that came as a bundle or a prepared request: its bytes are here, its
 * record follows.
 */
import {
  AppError,
  isSameTemplate,
  portableTemplateSchema,
  type ArtifactRecord,
  type JobRecord,
} from "../../domain/index.ts";
import { targetNodes } from "../nodes.ts";
import type { JobSteps } from "./job-replicas.ts";

export const sourceIsGone = (job: JobRecord): AppError =>
  new AppError(
    "artifact_source_missing",
    `no node that is up holds the root filesystem of ${job.template_id} any more: make it again`,
    { meta: { artifact_id: job.artifact_id } },
  );

/**
 * The record, PENDING, with the nodes that shall hold a replica. It has the job's name, so that a
 * second run knows its own.
 * @throws AppError template_already_exists, no_template_nodes, invalid_request
 */
export async function defineImported(
  steps: JobSteps,
  job: JobRecord,
  artifact: ArtifactRecord,
): Promise<JobRecord> {
  const { records } = steps;
  const parsed = portableTemplateSchema.safeParse(job.definition);
  if (!parsed.success) {
    throw new AppError("internal", `job ${job.job_id} has lost what it is to make`);
  }
  const scope = job.import_scope ?? [];
  const nodes = targetNodes(steps.nodes.all(), scope);
  const at = steps.now();
  const { data: wanted } = parsed;
  await records.update("template", wanted.template_id, (current) => {
    if (current === undefined) {
      if (job.expected_node_count > 0) {
        throw new AppError("template_not_found", `template ${wanted.template_id} was deleted`);
      }
      return {
        ...wanted,
        status: "PENDING",
        labels: wanted.labels ?? {},
        artifact_id: artifact.artifact_id,
        job_id: job.job_id,
        generation: 1,
        desired_nodes: nodes,
        distribution_scope: scope,
        last_error: "",
        updated_at: at,
      };
    }
    if (current.job_id === job.job_id) return undefined;
    const same = isSameTemplate(current, artifact, wanted, artifact.digest);
    throw new AppError(
      "template_already_exists",
      `template ${wanted.template_id} was ${same ? "imported" : "made"} meanwhile`,
    );
  });
  return steps.enter(job.job_id, "DISTRIBUTING", {
    expected_node_count: nodes.length,
    template_status: "PENDING",
    artifact_status: "READY",
    definition: undefined,
  });
}
