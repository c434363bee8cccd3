/**
 * The domain's schemas under their OpenAPI names. Importing @hono/zod-openapi first is what gives
 * schemas `openapi`; the domain's were made without it, hence the clones.
 */
import { z } from "@hono/zod-openapi";
import {
  LIMITS,
  acquireRefSchema,
  adoptedCompatSchema,
  artifactInfoSchema,
  artifactWhySchema,
  clusterViewSchema,
  commitTemplateSchema,
  compatMatrixSchema,
  compatPreviewSchema,
  compatScanSchema,
  createFromImageSchema,
  createTokenSchema,
  createdTokenSchema,
  gcReportSchema,
  importedSchema,
  jobInfoSchema,
  joinSchema,
  labelTemplateSchema,
  logLineSchema,
  nodeFactSchema,
  observedRefsSchema,
  promoteTagSchema,
  redoSchema,
  renderedSchema,
  replicaSchema,
  rescanCompatSchema,
  resnapshotViewSchema,
  resolveResultSchema,
  retentionReportSchema,
  createSnapshotSchema,
  deliverSnapshotSchema,
  createTemplateSchema,
  lineageSchema,
  rollbackSchema,
  rollbackTagSchema,
  snapshotInfoSchema,
  snapshotOperationSchema,
  runSandboxSchema,
  runtimeRefSchema,
  sandboxRequestSchema,
  sandboxSchema,
  storageListSchema,
  swarmViewSchema,
  tagRecordSchema,
  templateInfoSchema,
  templateWhySchema,
} from "../../domain/index.ts";
import { count } from "./route.ts";

const named = <T extends z.ZodType>(name: string, schema: T): T => schema.clone().openapi(name);

export const CreateFromImage = named("CreateFromImageRequest", createFromImageSchema);
export const CommitTemplate = named("CommitTemplateRequest", commitTemplateSchema);
export const CreateTemplate = named("CreateTemplateRequest", createTemplateSchema);
export const RedoTemplate = named("RedoTemplateRequest", redoSchema);
export const SandboxRequestBody = named("SandboxRequest", sandboxRequestSchema);
export const RunSandbox = named("RunSandboxRequest", runSandboxSchema);
export const Template = named("Template", templateInfoSchema);
export const LabelTemplate = named("LabelTemplateRequest", labelTemplateSchema);
export const Tag = named("Tag", tagRecordSchema);
export const PromoteTag = named("PromoteTagRequest", promoteTagSchema);
export const RollbackTag = named("RollbackTagRequest", rollbackTagSchema);
export const Rendered = named("RenderedRequest", renderedSchema);
export const Replica = named("Replica", replicaSchema);
export const Job = named("Job", jobInfoSchema);
export const JobLogEntry = named("JobLogLine", logLineSchema);
export const Artifact = named("Artifact", artifactInfoSchema);
export const Resolved = named("ResolveResult", resolveResultSchema);
export const Sandbox = named("Sandbox", sandboxSchema);
export const DeliverSnapshot = named("DeliverSnapshotRequest", deliverSnapshotSchema);
export const CreateSnapshot = named("CreateSnapshotRequest", createSnapshotSchema);
export const Rollback = named("RollbackRequest", rollbackSchema);
export const SnapshotView = named("Snapshot", snapshotInfoSchema);
export const Lineage = named("LineageEntry", lineageSchema);
export const SnapshotOperationView = named("SnapshotOperation", snapshotOperationSchema);
export const AcquireRef = named("AcquireRuntimeRefRequest", acquireRefSchema);
export const ObservedRefsBody = named("ObservedRuntimeRefs", observedRefsSchema);
export const RuntimeRefView = named("RuntimeRef", runtimeRefSchema);
export const Node = named("Node", nodeFactSchema);
export const StorageStates = named("StorageList", storageListSchema);
export const ClusterState = named("Cluster", clusterViewSchema);
export const CreateJoinToken = named("CreateJoinTokenRequest", createTokenSchema);
export const CreatedJoinToken = named("CreatedJoinToken", createdTokenSchema);
export const Join = named("JoinRequest", joinSchema);
export const ArtifactWhyView = named("ArtifactWhy", artifactWhySchema);
export const TemplateWhyView = named("TemplateWhy", templateWhySchema);
export const GcReportView = named("GcReport", gcReportSchema);
export const RetentionReportView = named("RetentionReport", retentionReportSchema);
export const CompatMatrix = named("CompatMatrix", compatMatrixSchema);
export const CompatPreviewView = named("CompatPreview", compatPreviewSchema);
export const RescanCompat = named("RescanCompatRequest", rescanCompatSchema);
export const CompatScanView = named("CompatScan", compatScanSchema);
export const ResnapshotState = named("Resnapshot", resnapshotViewSchema);
export const AdoptedCompatView = named("AdoptedCompat", adoptedCompatSchema);
export const ImportedView = named("Imported", importedSchema);
export const Swarm = named("Swarm", swarmViewSchema);

export const Problem = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    code: z.string(),
    retryable: z.boolean(),
    instance: z.string().optional().describe("the request id"),
    errors: z
      .array(z.object({ pointer: z.string(), detail: z.string() }))
      .optional()
      .describe("the fields that are wrong; pointer is an RFC 6901 JSON pointer"),
  })
  .openapi("Problem");

export const pageOf = (item: z.ZodType) =>
  z.object({ items: z.array(item), next_token: z.string().optional() });

export const listOf = (item: z.ZodType) => z.object({ items: z.array(item) });

/** `limit` and `next_token`, which every paginated list takes. */
export const pageQuery = {
  limit: count(1, LIMITS.pageMax).optional(),
  next_token: z.string().min(1).max(1_024).optional(),
};
