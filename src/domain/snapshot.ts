/**
 * Snapshots of running sandboxes (spec §1.6, §4.7–4.10). A snapshot is a template record of kind
 * `snapshot`; an operation on one is a job that the sandbox's own node carries out. Pure.
 */
import { z } from "zod";
import { AppError } from "./errors.ts";
import { JOB_STATUSES, isActiveJob } from "./job.ts";
import { LIMITS } from "./limits.ts";
import {
  replicaSchema,
  sandboxRequestSchema,
  type JobRecord,
  type ReplicaStatus,
  type TemplateRecord,
} from "./schema.ts";

const text = z.string();
const name = z.string().trim().min(1, "must not be blank").max(256);

export const createSnapshotSchema = z.strictObject({
  /** A second request with the same id and content is answered with the result of the first. */
  request_id: name.optional(),
  display_name: z.string().trim().max(256).optional(),
});
export type CreateSnapshotRequest = z.infer<typeof createSnapshotSchema>;

export const rollbackSchema = z.strictObject({ snapshot_id: name, request_id: name.optional() });
export type RollbackRequest = z.infer<typeof rollbackSchema>;

export const snapshotInfoSchema = z.object({
  snapshot_id: text,
  instance_type: text,
  version: text,
  status: text,
  display_name: text,
  origin_sandbox_id: text,
  origin_node_id: text,
  /** The snapshot or template that the sandbox ran on when it was taken. */
  parent_id: text,
  storage_backend: text,
  /** It stays when its sandbox goes. */
  retain: z.boolean(),
  /** It is not deleted until this is taken back. */
  protected: z.boolean(),
  rootfs_size_bytes_at_snapshot: z.number().nonnegative(),
  last_error: text,
  created_at: text,
  updated_at: text,
  runtime_ref_count: z.number().int().nonnegative(),
  runtime_ref_sandboxes: z.array(text),
  replicas: z.array(replicaSchema),
  create_request: sandboxRequestSchema.optional(),
});
export type SnapshotInfo = z.infer<typeof snapshotInfoSchema>;

const OPERATIONS = {
  SNAPSHOT_CREATE: "CREATE",
  SNAPSHOT_ROLLBACK: "ROLLBACK",
  SNAPSHOT_DELETE: "DELETE",
  SNAPSHOT_DELIVER: "DELIVER",
} as const;
export type SnapshotJobOperation = keyof typeof OPERATIONS;

export const snapshotOperationSchema = z.object({
  operation_id: text,
  snapshot_id: text,
  sandbox_id: text,
  request_id: text,
  operation: z.enum(["CREATE", "ROLLBACK", "DELETE", "DELIVER"]),
  status: z.enum(JOB_STATUSES),
  phase: text,
  /** Percent. */
  progress: z.number().min(0).max(100),
  error_message: text,
  attempt_no: z.number().int().positive(),
  retry_of_job_id: text,
  resource_type: text,
  resource_id: text,
  /** Of a delivery: the nodes that shall hold it; of all nodes, those that cannot, and why. */
  nodes: z.array(text).optional(),
  skipped: z.array(z.object({ node_id: text, reason: text })).optional(),
});
export type SnapshotOperation = z.infer<typeof snapshotOperationSchema>;

/** The five filters of spec §4.10: exact, but upper and lower case are the same. */
export interface SnapshotFilter {
  readonly snapshot_id?: string;
  readonly sandbox_id?: string;
  readonly name?: string;
  readonly status?: string;
  readonly limit?: number;
  /** The offset of the page, in decimal. */
  readonly next_token?: string;
}

export const isSnapshotJob = (job: Pick<JobRecord, "operation">): boolean =>
  job.operation in OPERATIONS;

/** A job's view as an operation on a snapshot; undefined for a job of another kind. */
export function snapshotOperation(job: JobRecord): SnapshotOperation | undefined {
  const operation = OPERATIONS[job.operation as SnapshotJobOperation] as
    SnapshotOperation["operation"] | undefined;
  if (operation === undefined) return undefined;
  return {
    operation_id: job.job_id,
    snapshot_id: job.resource_id === "" ? job.template_id : job.resource_id,
    sandbox_id: job.sandbox_id ?? "",
    request_id: job.request_id,
    operation,
    status: job.status,
    phase: job.phase,
    progress: job.progress,
    error_message: job.error_message,
    attempt_no: job.attempt_no,
    retry_of_job_id: job.retry_of_job_id ?? "",
    resource_type: job.resource_type,
    resource_id: job.resource_id,
    ...(operation === "DELIVER"
      ? { nodes: job.target_nodes ?? [], skipped: job.skipped_nodes ?? [] }
      : {}),
  };
}

export function snapshotInfo(
  record: TemplateRecord,
  replicas: readonly ReplicaStatus[],
  refs: { readonly count: number; readonly sandboxes: readonly string[] },
  options: { readonly includeRequest?: boolean } = {},
): SnapshotInfo {
  return {
    snapshot_id: record.template_id,
    instance_type: record.instance_type,
    version: record.version,
    status: record.status,
    display_name: record.display_name ?? "",
    origin_sandbox_id: record.origin_sandbox_id ?? "",
    origin_node_id: record.origin_node_id ?? "",
    parent_id: record.parent_id ?? "",
    storage_backend: record.storage_backend ?? "",
    retain: record.retain ?? false,
    protected: record.protected ?? false,
    rootfs_size_bytes_at_snapshot: record.rootfs_size_bytes_at_snapshot ?? 0,
    last_error: record.last_error,
    created_at: record.created_at,
    updated_at: record.updated_at,
    runtime_ref_count: refs.count,
    runtime_ref_sandboxes: [...refs.sandboxes],
    replicas: [...replicas],
    ...(options.includeRequest === true ? { create_request: record.request } : {}),
  };
}

const LIST = { default: 20, most: 100 } as const;

const offsetOf = (token: string | undefined): number => {
  if (token === undefined || token === "") return 0;
  if (!/^\d{1,9}$/.test(token)) {
    throw new AppError("invalid_request", "invalid next_token", {
      meta: { errors: [{ pointer: "/next_token", detail: "must be one that a list gave" }] },
    });
  }
  return Number(token);
};

/**
 * One page, most recently updated first; those that are being deleted only when asked for (spec
 * §4.10). An offset beyond the end is an empty page without a token.
 * @throws AppError invalid_request
 */
export function listSnapshots(
  records: Iterable<TemplateRecord>,
  filter: SnapshotFilter,
): { items: TemplateRecord[]; next_token?: string } {
  const offset = offsetOf(filter.next_token);
  const limit = Math.min(Math.max(1, filter.limit ?? LIST.default), LIST.most);
  const same = (wanted: string | undefined, value: string | undefined): boolean =>
    wanted === undefined || wanted === "" || wanted.toLowerCase() === (value ?? "").toLowerCase();
  const found = [...records]
    .filter(
      (record) =>
        record.kind === "snapshot" &&
        same(filter.snapshot_id, record.template_id) &&
        same(filter.sandbox_id, record.origin_sandbox_id) &&
        same(filter.name, record.display_name) &&
        same(filter.status, record.status) &&
        (record.status !== "DELETING" || (filter.status ?? "") !== ""),
    )
    .sort((a, b) =>
      a.updated_at === b.updated_at
        ? a.template_id < b.template_id
          ? -1
          : 1
        : a.updated_at < b.updated_at
          ? 1
          : -1,
    );
  const end = offset + limit;
  return {
    items: found.slice(offset, end),
    ...(end < found.length ? { next_token: String(end) } : {}),
  };
}

/** What two requests with one request id must have in common; made-up ids are no part of it. */
const payloadOf = (job: JobRecord): string =>
  JSON.stringify(
    job.operation === "SNAPSHOT_CREATE"
      ? [job.sandbox_id, job.display_name ?? ""]
      : [job.sandbox_id ?? "", job.resource_id, ...(job.asked_nodes ?? [])],
  );

/**
 * The job of an earlier request with the same id stands for this one as well.
 * @throws AppError request_id_conflict when that asked for something else
 */
export function assertSameRequest(earlier: JobRecord, wanted: JobRecord): void {
  if (earlier.operation === wanted.operation && payloadOf(earlier) === payloadOf(wanted)) return;
  throw new AppError(
    "request_id_conflict",
    `request id ${JSON.stringify(wanted.request_id)} was used before, for another request`,
    { meta: { operation_id: earlier.job_id, operation: earlier.operation } },
  );
}

/**
 * One create or rollback at a time per sandbox, one operation at a time per snapshot. A delivery
 * only reads what is frozen, and stands in the way of another one alone.
 * @throws AppError snapshot_operation_in_progress
 */
export function assertNoOther(jobs: Iterable<JobRecord>, wanted: JobRecord): void {
  for (const job of jobs) {
    const isOperation = isSnapshotJob(job) || job.operation === "COMMIT";
    if (!isActiveJob(job) || !isOperation || job.job_id === wanted.job_id) continue;
    const isDelivery = job.operation === "SNAPSHOT_DELIVER";
    if (isDelivery !== (wanted.operation === "SNAPSHOT_DELIVER")) continue;
    // From then on its sandbox has no part in it.
    if (job.operation === "COMMIT" && job.artifact_status === "READY") continue;
    const shares =
      !isDelivery && job.sandbox_id === wanted.sandbox_id
        ? `sandbox ${wanted.sandbox_id ?? ""}`
        : job.resource_id === wanted.resource_id
          ? `snapshot ${wanted.resource_id}`
          : undefined;
    if (shares === undefined) continue;
    throw new AppError(
      "snapshot_operation_in_progress",
      `${shares} is still bound to operation ${job.job_id} (${job.operation})`,
      { meta: { operation_id: job.job_id } },
    );
  }
}

/**
 * May this sandbox go back to that snapshot (spec §4.8)? Only to one that it made itself, on the
 * node where it is.
 * @throws AppError snapshot_not_found, snapshot_deleting, wrong_status, snapshot_foreign,
 *   template_has_no_ready_replica
 */
export function assertMayRollback(
  snapshot: TemplateRecord | undefined,
  sandbox: { readonly sandbox_id: string; readonly node_id: string },
  replicas: readonly ReplicaStatus[],
): TemplateRecord {
  if (snapshot?.kind !== "snapshot") {
    throw new AppError("snapshot_not_found", "there is no such snapshot");
  }
  const { template_id: id, status } = snapshot;
  if (status === "DELETING") throw new AppError("snapshot_deleting", `${id} is being deleted`);
  if (status !== "READY") {
    throw new AppError("wrong_status", `snapshot ${id} is ${status}, not READY`);
  }
  if (snapshot.origin_sandbox_id !== sandbox.sandbox_id) {
    throw new AppError(
      "snapshot_foreign",
      `snapshot ${id} is of sandbox ${snapshot.origin_sandbox_id ?? ""}: a sandbox goes back only to ` +
        "its own snapshots",
    );
  }
  const isHere = replicas.some(
    (replica) => replica.node_id === sandbox.node_id && replica.status === "READY",
  );
  if (!isHere) {
    throw new AppError(
      "template_has_no_ready_replica",
      `snapshot ${id} has no ready replica on node ${sandbox.node_id}`,
    );
  }
  return snapshot;
}

/** When an operation that began now ends at the latest, RFC 3339. */
export const snapshotDeadline = (nowMs: number): string =>
  new Date(nowMs + LIMITS.snapshotOperationMs).toISOString();

export const lineageSchema = z.object({
  id: text,
  /** Blank for what began with an image. */
  parent_id: text,
  /** Steps from the root of its tree. */
  depth: z.number().int().nonnegative(),
  /** `gone`: it was deleted, and only its children tell of it. */
  kind: z.enum(["template", "snapshot", "gone"]),
  status: text,
  display_name: text,
  origin_sandbox_id: text,
  created_at: text,
});
export type LineageEntry = z.infer<typeof lineageSchema>;

/**
 * What came from what: parents before their children, children oldest first.
 * @param id only the tree that this one is in; without it every tree that has a snapshot
 */
export function lineage(records: Iterable<TemplateRecord>, id?: string): LineageEntry[] {
  const known = new Map([...records].map((record) => [record.template_id, record]));
  const children = new Map<string, TemplateRecord[]>();
  for (const record of known.values()) {
    const parent = record.parent_id ?? "";
    if (parent !== "") children.set(parent, [...(children.get(parent) ?? []), record]);
  }
  const rootOf = (start: string): string => {
    const seen = new Set<string>();
    for (let at = start; ;) {
      const parent = known.get(at)?.parent_id ?? "";
      if (parent === "" || seen.has(parent)) return at;
      seen.add(parent);
      at = parent;
    }
  };
  const found: LineageEntry[] = [];
  const walked = new Set<string>();
  const walk = (at: string, depth: number): void => {
    if (walked.has(at)) return;
    walked.add(at);
    const record = known.get(at);
    found.push({
      id: at,
      parent_id: record?.parent_id ?? "",
      depth,
      kind: record?.kind ?? "gone",
      status: record?.status ?? "",
      display_name: record?.display_name ?? "",
      origin_sandbox_id: record?.origin_sandbox_id ?? "",
      created_at: record?.created_at ?? "",
    });
    const born = (one: TemplateRecord) => `${one.created_at} ${one.template_id}`;
    const next = [...(children.get(at) ?? [])].sort((a, b) => (born(a) < born(b) ? -1 : 1));
    for (const child of next) walk(child.template_id, depth + 1);
  };
  const roots = id === undefined ? [...children.keys()].map(rootOf) : [rootOf(id)];
  for (const root of [...new Set(roots)].sort()) walk(root, 0);
  return found;
}
