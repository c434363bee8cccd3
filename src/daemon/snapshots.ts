/**
 * Snapshots of running sandboxes as they are asked for (spec §4.7–4.10): at any node, answered when
 * the operation has come to its end, and going on when nobody waits any more. The request id is the
 * operation's identity: its job's id is made of it, so that a quorum decides which of two equal
 * requests was first, and the second gets the answer of the first.
 */
import { createHash } from "node:crypto";
import {
  AppError,
  LIMITS,
  assertMayRollback,
  assertNoOther,
  assertSameRequest,
  assertWritable,
  errorText,
  isAppError,
  isErrorCode,
  newSnapshotId,
  snapshotDeadline,
  snapshotOperation,
  type CallContext,
  type Catalog,
  type Clock,
  type CreateSnapshotRequest,
  type JobRecord,
  type Random,
  type RollbackRequest,
  type SnapshotJobOperation,
  type SnapshotOperation,
} from "../domain/index.ts";
import type { Deletions } from "./deletions.ts";
import { jobEnd } from "./job-end.ts";
import { failJob } from "./job-record.ts";
import type { Nodes } from "./nodes.ts";
import { replicasOf, type Records } from "./records.ts";
import type { ClusterRefs } from "./ref-asks.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { findSnapshot } from "./snapshot-queries.ts";

export interface SnapshotParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Pick<Nodes, "get" | "self" | "isMember">;
  readonly sandboxes: Pick<Sandboxes, "list">;
  readonly clusterRefs: Pick<ClusterRefs, "find">;
  readonly deletions: Pick<Deletions, "remove">;
  readonly clock: Clock;
  readonly random: Random;
}

export interface Snapshots {
  /**
   * Resolves when the snapshot is READY on the sandbox's node.
   * @throws AppError sandbox_not_found, storage_not_writable, request_id_conflict,
   *   snapshot_operation_in_progress, snapshot_failed, job_deadline_exceeded, peer_unreachable
   */
  create(
    sandboxId: string,
    request: CreateSnapshotRequest,
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /**
   * Resolves when the sandbox runs on the snapshot; when it fails the sandbox runs on as it was.
   * @throws AppError as create; snapshot_not_found, snapshot_deleting, snapshot_foreign,
   *   wrong_status, template_has_no_ready_replica, restore_failed
   */
  rollback(
    sandboxId: string,
    request: RollbackRequest,
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /**
   * Resolves when nothing refers to it any more. Its operations go with it: the same request again
   * finds nothing.
   * @throws AppError snapshot_not_found, snapshot_in_use, template_attempt_in_progress,
   *   request_id_conflict, peer_unreachable
   */
  remove(
    id: string,
    request: { readonly request_id?: string },
    context: CallContext,
  ): Promise<SnapshotOperation>;
}

/**
 * The node that the sandbox is on: this one, or whoever says that he has it.
 * @throws AppError sandbox_not_found, peer_unreachable
 */
export async function nodeOfSandbox(
  { sandboxes, nodes, clusterRefs }: Pick<SnapshotParts, "sandboxes" | "nodes" | "clusterRefs">,
  sandboxId: string,
): Promise<string> {
  if (sandboxes.list().some((one) => one.sandbox_id === sandboxId)) return nodes.self;
  const { refs, unanswered } = await clusterRefs.find({ sandboxId });
  const [ref] = refs;
  if (ref !== undefined) return ref.node_id;
  const silent = unanswered.map(({ node_id }) => node_id).sort();
  if (silent.length === 0) {
    throw new AppError("sandbox_not_found", `sandbox ${JSON.stringify(sandboxId)} not found`);
  }
  throw new AppError(
    "peer_unreachable",
    `sandbox ${sandboxId} is on no node that answers; no answer from ${silent.join(", ")}`,
    { meta: { nodes: silent } },
  );
}

const sha256Hex = (text: string): string => createHash("sha256").update(text).digest("hex");

/** One per request id, whatever is asked for. */
export const operationId = (requestId: string): string => `op-${sha256Hex(requestId).slice(0, 24)}`;

export function createSnapshots(parts: SnapshotParts): Snapshots {
  const { catalog, records, nodes, clock } = parts;
  const now = () => new Date(clock.now()).toISOString();

  const newJob = (
    operation: SnapshotJobOperation,
    requestId: string,
    about: Pick<JobRecord, "resource_id" | "phase"> & Partial<JobRecord>,
  ): JobRecord => ({
    job_id: operationId(requestId),
    template_id: about.resource_id,
    request_id: requestId,
    resource_type: "snapshot",
    attempt_no: 1,
    operation,
    instance_type: "cubebox",
    status: "PENDING",
    progress: 0,
    error_message: "",
    expected_node_count: 1,
    ready_node_count: 0,
    failed_node_count: 0,
    runs: 0,
    phases: [],
    submitted_to: nodes.self,
    deadline_at: snapshotDeadline(clock.now()),
    created_at: now(),
    updated_at: now(),
    ...about,
  });

  /**
   * Writes the job unless it is there already, and waits for its end. Whoever asks again is
   * answered also when the sandbox is gone meanwhile.
   */
  const submit = async (
    wanted: JobRecord,
    context: CallContext,
    guard: (nodeId: string) => void,
  ): Promise<SnapshotOperation> => {
    const earlier = await records.update("job", wanted.job_id, () => undefined);
    if (earlier !== undefined) {
      assertSameRequest(earlier, wanted);
      return operationEnd(parts, earlier, context);
    }
    const node_id = await nodeOfSandbox(parts, wanted.sandbox_id ?? "");
    guard(node_id);
    assertNoOther(records.list("job"), wanted);
    const job = { ...wanted, node_id };
    const written = await records.update("job", job.job_id, (current) => {
      if (current === undefined) return job;
      assertSameRequest(current, job);
      return undefined;
    });
    return operationEnd(parts, written ?? job, context);
  };

  const remove: Snapshots["remove"] = async (id, request, context) => {
    const record = findSnapshot(records, id);
    const requestId = request.request_id ?? context.requestId;
    const job = newJob("SNAPSHOT_DELETE", requestId, {
      resource_id: id,
      phase: "DELETING",
      sandbox_id: record.origin_sandbox_id ?? "",
    });
    const earlier = await records.update("job", job.job_id, () => undefined);
    if (earlier !== undefined) {
      assertSameRequest(earlier, job);
      return ended(earlier);
    }
    try {
      await parts.deletions.remove(id, { force: false, actor: context.actor });
    } catch (error) {
      // Another has deleted it since it was found here: it is told by its own name.
      if (isAppError(error, "template_not_found")) findSnapshot(records, id);
      const code = isAppError(error) ? error.code : "internal";
      // Who is refused may ask again under the same id.
      if (!isAppError(error) || error.row.status >= 500) {
        const failed = failJob(job, "fail", { message: errorText(error), code }, now());
        await records.update("job", job.job_id, () => failed);
      }
      throw error;
    }
    const done = snapshotOperation({ ...job, status: "READY", phase: "READY", progress: 100 });
    if (done === undefined) throw new AppError("internal", "a deletion is an operation");
    return done;
  };

  return {
    create(sandboxId, request, context) {
      const job = newJob("SNAPSHOT_CREATE", request.request_id ?? context.requestId, {
        resource_id: newSnapshotId(parts.random),
        phase: "SNAPSHOTTING",
        sandbox_id: sandboxId,
        template_status: "CREATING",
        ...(request.display_name ? { display_name: request.display_name } : {}),
      });
      return submit(job, context, (nodeId) => {
        assertWritable(nodeId, nodes.get(nodeId)?.storage);
      });
    },
    rollback(sandboxId, { snapshot_id: id, request_id }, context) {
      const job = newJob("SNAPSHOT_ROLLBACK", request_id ?? context.requestId, {
        resource_id: id,
        phase: "ROLLBACK_PREPARING",
        sandbox_id: sandboxId,
      });
      return submit(job, context, (nodeId) => {
        const sandbox = { sandbox_id: sandboxId, node_id: nodeId };
        assertMayRollback(findSnapshot(records, id), sandbox, replicasOf(catalog, id));
        assertWritable(nodeId, nodes.get(nodeId)?.storage);
      });
    },
    remove,
  };
}

/**
 * What the job came to, waited for as long as such an operation may take.
 * @throws AppError what it failed with, that it has not ended, and snapshot_not_found: it went
 *   with its snapshot
 */
export async function operationEnd(
  parts: Parameters<typeof jobEnd>[0],
  job: JobRecord,
  { signal }: Pick<CallContext, "signal">,
): Promise<SnapshotOperation> {
  try {
    return ended(await jobEnd(parts, job, LIMITS.snapshotOperationMs, signal));
  } catch (cause) {
    if (!isAppError(cause, "job_not_found")) throw cause;
    const text = `snapshot ${job.resource_id} was deleted while this was under way`;
    throw new AppError("snapshot_not_found", text, { cause });
  }
}

/** @throws AppError what it failed with, or that it has not ended */
function ended(job: JobRecord): SnapshotOperation {
  const operation = snapshotOperation(job);
  if (operation !== undefined && job.status === "READY") return operation;
  const meta = { operation_id: job.job_id, status: job.status };
  if (job.status === "FAILED") {
    const code = job.error_code ?? "";
    throw new AppError(isErrorCode(code) ? code : "internal", job.error_message, { meta });
  }
  throw new AppError(
    "job_deadline_exceeded",
    `operation ${job.job_id} did not reach a terminal status synchronously: it is ${job.status}`,
    { meta },
  );
}
