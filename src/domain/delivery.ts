/**
 * Delivering a snapshot to other nodes on demand: who carries it out, which nodes get it, and what
 * stands in a node's way, as far as that is known before anything is copied. Pure.
 */
import { z } from "zod";
import { hasVersions } from "./compat.ts";
import { AppError } from "./errors.ts";
import { misfit } from "./frozen.ts";
import { isActiveJob } from "./job.ts";
import type { JobRecord, NodeFact, ReplicaStatus, TemplateRecord } from "./schema.ts";
import { assertWritable } from "./storage-status.ts";

const name = z.string().trim().min(1, "must not be blank").max(256);

export const ALL_NODES = "ALL";

export const deliverSnapshotSchema = z.strictObject({
  /** A second request with the same id and content is answered with the result of the first. */
  request_id: name.optional(),
  nodes: z
    .union([z.literal(ALL_NODES), z.array(name).min(1).max(1_000)])
    .describe("ids or addresses of nodes, or ALL: every node that it fits"),
});
export type DeliverSnapshotRequest = z.infer<typeof deliverSnapshotSchema>;

/** As the job keeps it: empty is all nodes. */
export const askedNodes = ({ nodes }: Pick<DeliverSnapshotRequest, "nodes">): string[] =>
  nodes === ALL_NODES ? [] : [...new Set(nodes)].sort();

type Refused = NonNullable<JobRecord["skipped_nodes"]>[number];

export interface DeliverySight {
  /** As a majority has it. */
  readonly snapshot: TemplateRecord | undefined;
  readonly replicas: readonly ReplicaStatus[];
  /** Members. */
  readonly nodes: readonly NodeFact[];
  readonly selfId: string;
  /** What the root filesystem takes where it is not there yet. */
  readonly rootfsBytes: (nodeId: string) => number;
}

export interface DeliveryPlan {
  /** A node that has it, and makes its files known to the others. */
  readonly carrier: string;
  /** Nodes that shall hold it, those that do already included; sorted. */
  readonly targets: string[];
  /** Of all nodes: those that cannot have it now. */
  readonly skipped: Refused[];
}

/**
 * @param asked ids or addresses; none: all nodes
 * @throws AppError snapshot_not_found, snapshot_deleting, wrong_status,
 *   template_has_no_ready_replica, node_not_found; what stands in the way of the first node that
 *   was asked for and cannot have it, with all of them named: peer_unreachable, invalid_request,
 *   snapshot_incompatible, storage_not_writable, disk_space_low
 */
export function planDelivery(sight: DeliverySight, asked: readonly string[]): DeliveryPlan {
  const snapshot = assertDeliverable(sight.snapshot);
  const { nodes, replicas, selfId } = sight;
  const holding = new Set(
    replicas.filter(({ status }) => status === "READY").map(({ node_id }) => node_id),
  );
  const carriers = nodes.filter(({ node_id, healthy }) => healthy && holding.has(node_id));
  const carrier = carriers.find(({ node_id }) => node_id === selfId) ?? carriers.sort(byId)[0];
  if (carrier === undefined) {
    const known = [...holding].sort().join(", ");
    throw new AppError(
      "template_has_no_ready_replica",
      `no node that is up has the files of ${snapshot.template_id}` +
        (known === "" ? "" : `; they are on ${known}`),
      { meta: { nodes: [...holding].sort() } },
    );
  }
  const bound = boundOf(snapshot, carrier, replicas);
  const wanted = asked.length === 0 ? [...nodes] : namedNodes(nodes, asked);
  const refused = wanted.flatMap((node) => {
    const error = holding.has(node.node_id) ? undefined : obstacle(sight, snapshot, bound, node);
    return error === undefined ? [] : [{ node_id: node.node_id, error }];
  });
  const targets = wanted
    .map(({ node_id }) => node_id)
    .filter((id) => !refused.some(({ node_id }) => node_id === id))
    .sort();
  const isAnybodyNew = targets.some((id) => !holding.has(id));
  if (refused.length > 0 && (asked.length > 0 || !isAnybodyNew)) throw allOf(refused);
  const skipped = refused.map(({ node_id, error }) => ({ node_id, reason: error.message }));
  return { carrier: carrier.node_id, targets, skipped };
}

const byId = (a: NodeFact, b: NodeFact): number => (a.node_id < b.node_id ? -1 : 1);

/** @throws AppError snapshot_not_found, snapshot_deleting, wrong_status */
export function assertDeliverable(snapshot: TemplateRecord | undefined): TemplateRecord {
  if (snapshot?.kind !== "snapshot") {
    throw new AppError("snapshot_not_found", "there is no such snapshot");
  }
  const { template_id: id, status } = snapshot;
  if (status === "DELETING") throw new AppError("snapshot_deleting", `${id} is being deleted`);
  if (status !== "READY" && status !== "PARTIALLY_READY") {
    throw new AppError("wrong_status", `snapshot ${id} is ${status}, not READY`);
  }
  return snapshot;
}

type Bound = Parameters<typeof misfit>[0];

/** What its guest was frozen with: as it is written, or as the node says that has it. */
function boundOf(
  { frozen }: TemplateRecord,
  { node_id, driver }: NodeFact,
  replicas: readonly ReplicaStatus[],
): Bound {
  return frozen ?? { ...replicas.find((replica) => replica.node_id === node_id), driver };
}

/** @throws AppError node_not_found */
function namedNodes(nodes: readonly NodeFact[], asked: readonly string[]): NodeFact[] {
  const find = (wanted: string) =>
    nodes.find((node) => node.node_id === wanted) ?? nodes.find((node) => node.node_ip === wanted);
  const unknown = asked.filter((wanted) => find(wanted) === undefined);
  if (unknown.length > 0) {
    throw new AppError("node_not_found", `no member of the cluster: ${unknown.join(", ")}`, {
      meta: { nodes: unknown },
    });
  }
  return [...new Set(asked.flatMap((wanted) => find(wanted) ?? []))];
}

/** Why the node cannot have it now, as far as it is known here. */
function obstacle(
  { rootfsBytes }: DeliverySight,
  snapshot: TemplateRecord,
  bound: Bound,
  node: NodeFact,
): AppError | undefined {
  const { node_id: id, storage } = node;
  if (!node.healthy) return new AppError("peer_unreachable", `node ${id} is down`);
  if (node.drained) return new AppError("invalid_request", `node ${id} is drained`);
  // A node that has not told its versions yet looks itself, before it fetches anything.
  const isKnown = hasVersions(node) || bound.driver !== node.driver;
  const reason = isKnown ? misfit(bound, node) : undefined;
  if (reason !== undefined) {
    return new AppError("snapshot_incompatible", `it cannot go on at ${id}: ${reason}`);
  }
  try {
    assertWritable(id, storage);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  const needed = (snapshot.rootfs_size_bytes_at_snapshot ?? 0) + rootfsBytes(id);
  if (storage.free_bytes >= needed) return undefined;
  return new AppError(
    "disk_space_low",
    `node ${id} needs about ${needed} bytes for it, ${storage.free_bytes} are free`,
    { meta: { needed, available: storage.free_bytes } },
  );
}

/** One error that names every node; its code is that of the first. */
function allOf(refused: readonly { node_id: string; error: AppError }[]): AppError {
  const [first] = refused;
  if (first === undefined || refused.length === 1) return first?.error ?? new AppError("internal");
  const nodes = refused.map(({ node_id, error }) => ({ node_id, reason: error.message }));
  const text = nodes.map(({ reason }) => reason).join("; ");
  return new AppError(first.error.code, text, { meta: { nodes } });
}

export interface DeliveryProgress {
  readonly ready: readonly string[];
  /** Those that the delivery waits for no longer. */
  readonly failed: readonly Refused[];
  readonly waiting: readonly string[];
}

/** How far the nodes of a delivery are. What failed in an earlier one is under way again. */
export function deliveryProgress(
  { job_id, target_nodes = [] }: Pick<JobRecord, "job_id" | "target_nodes">,
  replicas: readonly ReplicaStatus[],
  nodeOf: (id: string) => { readonly healthy: boolean } | undefined,
): DeliveryProgress {
  const ready: string[] = [];
  const failed: Refused[] = [];
  const waiting: string[] = [];
  for (const node_id of target_nodes) {
    const replica = replicas.find((one) => one.node_id === node_id);
    const node = nodeOf(node_id);
    const fail = (reason: string) => failed.push({ node_id, reason });
    if (replica?.status === "READY") ready.push(node_id);
    else if (node === undefined) fail("it is no member of the cluster any more");
    else if (replica?.phase === "FAILED" && replica.last_job_id === job_id) {
      fail(replica.error_message ?? "it did not say why");
    } else if (!node.healthy) fail("it went down; it is copied there when the node is back");
    else waiting.push(node_id);
  }
  return { ready, failed, waiting };
}

/** @returns undefined unless a node has not got it */
export function deliveryError({ failed }: DeliveryProgress): AppError | undefined {
  if (failed.length === 0) return undefined;
  const nodes = failed.map(({ node_id, reason }) => `${node_id}: ${reason}`).join("; ");
  return new AppError("snapshot_not_delivered", `it is tried again by itself; ${nodes}`, {
    meta: { nodes: failed },
  });
}

/**
 * A snapshot is as ready as its best copy: one that is under way, or has failed, takes nothing away
 * from the others.
 */
export function snapshotStatus(replicas: readonly ReplicaStatus[]): {
  status: "READY" | "FAILED";
  ready: number;
  error: string;
} {
  const ready = replicas.filter(({ status }) => status === "READY").length;
  if (ready > 0) return { status: "READY", ready, error: "" };
  const error = replicas.find(({ error_message = "" }) => error_message !== "")?.error_message;
  return { status: "FAILED", ready, error: error ?? "no node has its files" };
}

/**
 * Why a delivery ends though the node that carries it out does not say so: that is down, and nobody
 * waits any more.
 */
export function abandonedDelivery(
  job: JobRecord,
  carrier: { readonly isUp: boolean; readonly leftMs: number },
): AppError | undefined {
  if (job.operation !== "SNAPSHOT_DELIVER" || !isActiveJob(job)) return undefined;
  if (carrier.isUp) return undefined;
  const where = `node ${job.node_id ?? ""}, which carried it out,`;
  if (job.cancel_requested === true) {
    return new AppError("job_cancelled", `${where} is down, and it was cancelled`);
  }
  return carrier.leftMs > 0 ? undefined : new AppError("job_deadline_exceeded", `${where} is down`);
}
