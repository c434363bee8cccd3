/** The snapshot part of the service that route tests talk to: real rules over two fixed records. */
import {
  AppError,
  askedNodes,
  lineage,
  listSnapshots,
  snapshotInfo,
  snapshotOperation,
  type CallContext,
  type Commands,
  type JobRecord,
  type Queries,
  type TemplateRecord,
} from "../../src/domain/index.ts";

const AT = "2026-01-02T03:04:05.000Z";

export const aSnapshot = (id: string, more: Partial<TemplateRecord> = {}): TemplateRecord => ({
  template_id: id,
  instance_type: "cubebox",
  version: "v2",
  kind: "snapshot",
  status: "READY",
  display_name: `name of ${id}`,
  origin_sandbox_id: "sb-1",
  origin_node_id: "node-a",
  parent_id: "tpl-1",
  storage_backend: "local",
  retain: true,
  rootfs_size_bytes_at_snapshot: 4_096,
  generation: 1,
  desired_nodes: ["node-a"],
  request: { template_id: id },
  last_error: "",
  created_at: AT,
  updated_at: AT,
  ...more,
});

export const aSnapshotJob = (more: Partial<JobRecord> = {}): JobRecord => ({
  job_id: "op-1",
  template_id: "snap-1",
  request_id: "request-1",
  resource_type: "snapshot",
  resource_id: "snap-1",
  attempt_no: 1,
  operation: "SNAPSHOT_CREATE",
  sandbox_id: "sb-1",
  node_id: "node-a",
  instance_type: "cubebox",
  status: "READY",
  phase: "READY",
  progress: 100,
  error_message: "",
  expected_node_count: 1,
  ready_node_count: 0,
  failed_node_count: 0,
  runs: 0,
  phases: [],
  deadline_at: AT,
  created_at: AT,
  updated_at: AT,
  ...more,
});

const SNAPSHOTS = [aSnapshot("snap-1"), aSnapshot("snap-2", { origin_sandbox_id: "sb-2" })];

const done = (job: JobRecord) => {
  const operation = snapshotOperation(job);
  if (operation === undefined) throw new Error(`${job.operation} is no snapshot operation`);
  return operation;
};

type SnapshotQueries = Pick<
  Queries,
  "listSnapshots" | "snapshot" | "snapshotNodes" | "snapshotOperation" | "lineage"
>;

/** @param more records of templates that they came from */
export function fakeSnapshotQueries(
  snapshots: readonly TemplateRecord[] = SNAPSHOTS,
  more: readonly TemplateRecord[] = [],
): SnapshotQueries {
  const find = (id: string) => {
    const found = snapshots.find((one) => one.template_id === id);
    if (found === undefined) throw new AppError("snapshot_not_found", `snapshot ${id} not found`);
    return found;
  };
  const refs = { count: 1, sandboxes: ["sb-1"] };
  return {
    listSnapshots(filter = {}) {
      const page = listSnapshots(snapshots, filter);
      return { ...page, items: page.items.map((one) => snapshotInfo(one, [], refs)) };
    },
    snapshot: (id, options) => snapshotInfo(find(id), [], refs, options),
    snapshotNodes: (id) => [find(id).origin_node_id ?? ""],
    lineage: (id) => lineage([...more, ...snapshots], id),
    snapshotOperation(id) {
      if (id === "op-1") return done(aSnapshotJob());
      throw new AppError("snapshot_operation_not_found", `snapshot operation ${id} not found`);
    },
  };
}

export function fakeSnapshotCommands(
  enter: (name: string, argument: unknown, context?: CallContext) => void,
): Pick<Commands, "createSnapshot" | "rollbackSandbox" | "deliverSnapshot" | "deleteSnapshot"> {
  return {
    async createSnapshot(sandboxId, request, context) {
      enter("createSnapshot", { sandboxId, ...request }, context);
      return done(aSnapshotJob({ sandbox_id: sandboxId }));
    },
    async rollbackSandbox(sandboxId, request, context) {
      enter("rollbackSandbox", { sandboxId, ...request }, context);
      return done(aSnapshotJob({ sandbox_id: sandboxId, operation: "SNAPSHOT_ROLLBACK" }));
    },
    async deliverSnapshot(id, request, context) {
      enter("deliverSnapshot", { id, ...request }, context);
      const about = { sandbox_id: "", resource_id: id, target_nodes: askedNodes(request) };
      return done(aSnapshotJob({ ...about, operation: "SNAPSHOT_DELIVER" }));
    },
    async deleteSnapshot(id, request, context) {
      enter("deleteSnapshot", { id, ...request }, context);
      return done(aSnapshotJob({ resource_id: id, operation: "SNAPSHOT_DELETE" }));
    },
  };
}
