/**
 * Commit (spec §4.5): a running sandbox becomes a template. Its own node freezes it and publishes
 * what it froze; from then on the template's leader carries the job like any other's.
 */
import { z } from "zod";
import { sortKeys } from "./artifact.ts";
import { ANNOTATIONS } from "./create-request.ts";
import { AppError } from "./errors.ts";
import {
  createFromImageSchema,
  sandboxRequestSchema,
  type ArtifactRecord,
  type JobRecord,
  type SandboxRequest,
} from "./schema.ts";
import { isSnapshotJob } from "./snapshot.ts";

const { display_name, labels, distribution_scope } = createFromImageSchema.shape;

export const commitTemplateSchema = z.strictObject({
  /** A second request with the same id and content is answered with the same job. */
  request_id: z.string().trim().min(1, "requestID is required").max(256).optional(),
  sandbox_id: z.string().trim().min(1, "must not be blank").max(256),
  display_name,
  labels,
  distribution_scope,
  create_request: sandboxRequestSchema
    .optional()
    .describe("what its sandboxes are started with, over what this one was started with"),
  wait: z.boolean().optional().describe("accepted and ignored: waiting is the client's poll"),
});
export type CommitTemplateRequest = z.infer<typeof commitTemplateSchema>;

/** As it is stored and compared: nothing that is made up for each request is in it. */
export function storedCommit(request: CommitTemplateRequest): CommitTemplateRequest {
  const { request_id: _id, wait: _wait, ...stored } = request;
  const own = { ...stored.create_request };
  delete own.request_id;
  return sortKeys({
    ...stored,
    ...(stored.create_request === undefined ? {} : { create_request: own }),
  }) as CommitTemplateRequest;
}

/** What the job was asked for. @throws ZodError when it is no commit */
export const commitOf = (job: JobRecord): CommitTemplateRequest =>
  commitTemplateSchema.parse(job["commit"]);

/** Everything of the sandbox is published: the rest is as with any template. */
export const isCommitFrozen = (job: JobRecord): boolean =>
  job.operation === "COMMIT" && job.artifact_status === "READY";

/** Carried out by the sandbox's own node. */
export const isSandboxJob = (job: JobRecord): boolean =>
  isSnapshotJob(job) || (job.operation === "COMMIT" && !isCommitFrozen(job));

/** Carried out by whoever leads the template. */
export const isTemplateJob = (job: JobRecord): boolean =>
  ["CREATE", "REDO", "IMPORT"].includes(job.operation) || isCommitFrozen(job);

/**
 * The job of an earlier request with the same id stands for this one as well.
 * @throws AppError request_id_conflict when that asked for something else
 */
export function assertSameCommit(earlier: JobRecord, wanted: JobRecord): void {
  if (JSON.stringify(earlier["commit"]) === JSON.stringify(wanted["commit"])) return;
  throw new AppError(
    "request_id_conflict",
    `request id ${JSON.stringify(wanted.request_id)} was used before, for another request`,
    { meta: { job_id: earlier.job_id, operation: earlier.operation } },
  );
}

/** What the template's sandboxes are started with, before its artifact is known. */
export function committedSpec(spec: SandboxRequest, templateId: string): SandboxRequest {
  const {
    request_id: _request,
    preferred_node_id: _node,
    distribution_scope: _scope,
    ...kept
  } = structuredClone(spec);
  const annotations = { ...kept.annotations, [ANNOTATIONS.templateId]: templateId };
  return { ...kept, template_id: templateId, annotations };
}

/** The same with the artifact in every place that names one. */
export function withArtifact(
  spec: SandboxRequest,
  artifact: Pick<
    ArtifactRecord,
    "artifact_id" | "digest" | "ext4_size_bytes" | "template_spec_fingerprint"
  >,
): SandboxRequest {
  const named = {
    [ANNOTATIONS.artifactId]: artifact.artifact_id,
    [ANNOTATIONS.fingerprint]: artifact.template_spec_fingerprint,
  };
  const image = {
    ...named,
    [ANNOTATIONS.artifactDigest]: artifact.digest,
    [ANNOTATIONS.artifactSize]: String(artifact.ext4_size_bytes),
  };
  const containers = spec.containers?.map((container) =>
    container?.image === undefined
      ? container
      : {
          ...container,
          image: {
            ...container.image,
            image: artifact.artifact_id,
            annotations: { ...container.image.annotations, ...image },
          },
        },
  );
  return {
    ...spec,
    annotations: { ...spec.annotations, ...named },
    ...(containers === undefined ? {} : { containers }),
  };
}
