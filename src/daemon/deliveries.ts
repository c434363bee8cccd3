/**
 * Delivering a snapshot as it is asked for, at any node: what can be known beforehand is looked at
 * here, and the job is carried out by a node that has the files.
 */
import {
  AppError,
  LIMITS,
  askedNodes,
  assertNoOther,
  assertSameRequest,
  planDelivery,
  type CallContext,
  type Catalog,
  type Clock,
  type DeliverSnapshotRequest,
  type DeliveryPlan,
  type JobRecord,
  type SnapshotOperation,
} from "../domain/index.ts";
import { pendingJob } from "./job-record.ts";
import type { Nodes } from "./nodes.ts";
import { replicasOf, type Records } from "./records.ts";
import { operationEnd, operationId } from "./snapshots.ts";

export interface DeliveryParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Pick<Nodes, "all" | "self">;
  readonly clock: Clock;
}

/**
 * Resolves when all of the nodes have it.
 * @throws AppError as `planDelivery`; request_id_conflict, snapshot_operation_in_progress,
 *   snapshot_not_delivered, job_deadline_exceeded, no_quorum
 */
export async function deliverSnapshot(
  parts: DeliveryParts,
  id: string,
  request: DeliverSnapshotRequest,
  context: CallContext,
): Promise<SnapshotOperation> {
  const { records, clock, nodes } = parts;
  const asked_nodes = askedNodes(request);
  const requestId = request.request_id ?? context.requestId;
  const wanted = pendingJob(
    { node: nodes.self, nowMs: clock.now(), limitMs: LIMITS.snapshotOperationMs },
    {
      job_id: operationId(requestId),
      template_id: id,
      request_id: requestId,
      resource_type: "snapshot",
      resource_id: id,
      operation: "SNAPSHOT_DELIVER",
      instance_type: "cubebox",
      phase: "GENERATING_JSON",
      asked_nodes,
    },
  );
  const answer = (job: JobRecord) => operationEnd(parts, job, context);
  const earlier = await records.update("job", wanted.job_id, () => undefined);
  if (earlier !== undefined) {
    assertSameRequest(earlier, wanted);
    return answer(earlier);
  }
  const { carrier, targets, skipped } = await plan(parts, id, asked_nodes);
  assertNoOther(records.list("job"), wanted);
  const job: JobRecord = {
    ...wanted,
    node_id: carrier,
    target_nodes: targets,
    skipped_nodes: skipped,
    expected_node_count: targets.length,
  };
  const written = await records.update("job", job.job_id, (current) => {
    if (current === undefined) return job;
    assertSameRequest(current, job);
    return undefined;
  });
  return answer(written ?? job);
}

async function plan(
  { catalog, records, nodes }: DeliveryParts,
  id: string,
  asked: readonly string[],
): Promise<DeliveryPlan> {
  // What a majority knows: a deletion may have begun that is not heard of here.
  const snapshot = await records.update("template", id, () => undefined);
  if (snapshot?.kind !== "snapshot") {
    throw new AppError("snapshot_not_found", `snapshot ${JSON.stringify(id)} not found`);
  }
  const rootfs = records.get("artifact", snapshot.artifact_id ?? "");
  return planDelivery(
    {
      snapshot,
      replicas: replicasOf(catalog, id),
      nodes: nodes.all(),
      selfId: nodes.self,
      rootfsBytes: (node) =>
        rootfs === undefined ||
        catalog.get(node, "holding", rootfs.artifact_id)?.value?.complete === true
          ? 0
          : rootfs.data_bytes,
    },
    asked,
  );
}
