/**
 * Commit as it is asked for (spec §4.5), at any node. The request id is the job's identity, as with
 * snapshots: a quorum decides which of two equal requests was first.
 */
import { createHash } from "node:crypto";
import {
  AppError,
  assertNoOther,
  assertSameCommit,
  assertWritable,
  newTemplateId,
  storedCommit,
  type CallContext,
  type CommitTemplateRequest,
  type JobRecord,
} from "../domain/index.ts";
import { pendingJob } from "./job-record.ts";
import { targetNodes, type Nodes } from "./nodes.ts";
import { nodeOfSandbox, type SnapshotParts } from "./snapshots.ts";

export type CommitParts = Omit<SnapshotParts, "catalog" | "deletions" | "nodes"> & {
  readonly nodes: Nodes;
  readonly jobDeadlineMs: number;
};

/** One per request id. */
const commitJobId = (requestId: string): string =>
  `commit-${createHash("sha256").update(requestId).digest("hex").slice(0, 24)}`;

/**
 * Writes the job unless an equal request did before; the sandbox's node takes it from there.
 * @returns the job's id
 * @throws AppError sandbox_not_found, peer_unreachable, storage_not_writable, request_id_conflict,
 *   snapshot_operation_in_progress, no_template_nodes, invalid_request, no_quorum
 */
export async function submitCommit(
  parts: CommitParts,
  request: CommitTemplateRequest,
  context: CallContext,
): Promise<string> {
  const { records, nodes } = parts;
  const wanted = newJob(parts, request, context);
  const { job_id: id } = wanted;
  const earlier = await records.update("job", id, () => undefined);
  if (earlier !== undefined) {
    assertSameCommit(earlier, wanted);
    return id;
  }
  const node_id = await nodeOfSandbox(parts, request.sandbox_id);
  assertWritable(node_id, nodes.get(node_id)?.storage);
  targetNodes(nodes.all(), request.distribution_scope ?? []);
  assertNoOther(records.list("job"), wanted);
  const job = { ...wanted, node_id };
  await records.update("job", id, (current) => {
    if (current === undefined) return job;
    assertSameCommit(current, job);
    return undefined;
  });
  return id;
}

function newJob(
  { clock, random, nodes, jobDeadlineMs }: CommitParts,
  request: CommitTemplateRequest,
  context: CallContext,
): JobRecord {
  const requestId = request.request_id ?? context.requestId;
  if (requestId.trim() === "") throw new AppError("invalid_request", "requestID is required");
  const templateId = newTemplateId(random);
  return pendingJob(
    { node: nodes.self, nowMs: clock.now(), limitMs: jobDeadlineMs },
    {
      job_id: commitJobId(requestId),
      template_id: templateId,
      request_id: requestId,
      resource_type: "template",
      resource_id: templateId,
      operation: "COMMIT",
      sandbox_id: request.sandbox_id,
      ...(request.display_name === undefined ? {} : { display_name: request.display_name }),
      commit: storedCommit(request),
      instance_type: "cubebox",
      phase: "SNAPSHOTTING",
    },
  );
}
