/**
 * A template from a prepared request (spec §2.4): a job like any other, so that it goes on when its
 * node dies, and whose end the caller waits for.
 */
import {
  AppError,
  isErrorCode,
  newJobId,
  prepareRequest,
  type CallContext,
  type Catalog,
  type Clock,
  type CreateTemplateRequest,
  type JobRecord,
  type PortableTemplate,
  type PreparedRequest,
  type Queries,
  type Random,
  type TemplateInfo,
} from "../domain/index.ts";
import { jobEnd } from "./job-end.ts";
import { pendingJob } from "./job-record.ts";
import { targetNodes, type Nodes } from "./nodes.ts";
import { imageInfo } from "./queries.ts";
import type { Records } from "./records.ts";

export interface CreateParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly queries: Pick<Queries, "template">;
  readonly nodes: Pick<Nodes, "all" | "self">;
  readonly builds: { reconcile(): void };
  readonly jobLog: { append(jobId: string, level: "info", message: string): void };
  readonly clock: Clock;
  readonly random: Random;
  readonly jobDeadlineMs: number;
}

/**
 * @throws AppError invalid_request, template_already_exists, artifact_not_found,
 *   artifact_not_ready, no_template_nodes; what its job failed with, when no node got there
 */
export async function createTemplate(
  parts: CreateParts,
  asked: CreateTemplateRequest,
  context: CallContext,
): Promise<TemplateInfo> {
  const { records, nodes, queries, random } = parts;
  const prepared = prepareRequest(asked, random);
  const { template_id: id } = prepared;
  const isUsed =
    (await records.update("template", id, () => undefined)) !== undefined ||
    [...records.list("job")].some((job) => job.template_id === id);
  if (isUsed) {
    throw new AppError("template_already_exists", `template ${id} already exists`, {
      meta: { template_id: id },
    });
  }
  targetNodes(nodes.all(), prepared.scope);
  const job = jobOf(parts, prepared, asked.request_id ?? context.requestId);
  await records.update("job", job.job_id, () => job, { isNew: true });
  parts.jobLog.append(job.job_id, "info", `asked for by ${context.actor}`);
  parts.builds.reconcile();
  const ended = await jobEnd(parts, job, parts.jobDeadlineMs, context.signal);
  if (ended.status === "READY") return queries.template(id);
  const code = ended.error_code ?? "";
  throw new AppError(
    isErrorCode(code) ? code : "internal",
    `template ${id} creation failed: ${ended.error_message || "the job has not ended"}`,
    { meta: { template_id: id, job_id: job.job_id } },
  );
}

function jobOf(parts: CreateParts, prepared: PreparedRequest, requestId: string): JobRecord {
  const { records, nodes, clock, random, jobDeadlineMs } = parts;
  const { template_id, artifact_id, display_name, request } = prepared;
  const artifact = records.get("artifact", artifact_id);
  if (artifact === undefined) {
    throw new AppError("artifact_not_found", `artifact ${artifact_id} not found`);
  }
  if (artifact.status !== "READY") {
    throw new AppError("artifact_not_ready", `artifact ${artifact_id} is ${artifact.status}`);
  }
  const nowMs = clock.now();
  const definition: PortableTemplate = {
    template_id,
    instance_type: request.instance_type ?? "cubebox",
    version: "v2",
    kind: "template",
    ...(display_name === "" ? {} : { display_name }),
    labels: request.labels ?? {},
    image_info: imageInfo(artifact.source_image_ref, artifact.source_image_digest),
    request,
    created_at: new Date(nowMs).toISOString(),
  };
  return pendingJob(
    { node: nodes.self, nowMs, limitMs: jobDeadlineMs },
    {
      job_id: newJobId(random),
      template_id,
      request_id: requestId,
      resource_type: "template",
      resource_id: template_id,
      operation: "CREATE",
      artifact_id,
      source_image_ref: artifact.source_image_ref,
      source_image_digest: artifact.source_image_digest,
      template_spec_fingerprint: artifact.template_spec_fingerprint,
      writable_layer_size: artifact.writable_layer_size,
      instance_type: definition.instance_type,
      definition,
      import_scope: [...prepared.scope],
      phase: "DISTRIBUTING",
      artifact_status: "READY",
    },
  );
}
