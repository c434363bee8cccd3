/**
 * Which replica a sandbox starts from, and with what request (design §8, spec §6). Pure, answered
 * from what this node knows; staleness of a peer's facts is the peer's health.
 */
import { effectiveCompat } from "./compat.ts";
import { AppError } from "./errors.ts";
import type { NodeFact, ReplicaStatus, SandboxRequest, TemplateRecord } from "./schema.ts";

export interface ResolveInput {
  readonly template: TemplateRecord;
  readonly replicas: readonly ReplicaStatus[];
  readonly nodes: ReadonlyMap<string, NodeFact>;
  readonly selfId: string;
  readonly preferredNodeId?: string;
  readonly scope?: readonly string[];
}

/** By node id or address; an empty scope is every node. */
export const inScope = (
  node: { readonly node_id: string; readonly node_ip: string },
  scope: readonly string[],
): boolean => scope.length === 0 || scope.includes(node.node_id) || scope.includes(node.node_ip);

/** READY replicas on healthy nodes in the scope, and the nodes of those that no longer fit. */
function schedulable({ replicas, nodes, scope }: ResolveInput) {
  const stale: string[] = [];
  const usable: ReplicaStatus[] = [];
  for (const replica of replicas) {
    const node = nodes.get(replica.node_id);
    if (replica.status !== "READY" || node?.healthy !== true) continue;
    if (!inScope(replica, scope ?? [])) continue;
    if (effectiveCompat(replica, node) === "STALE") stale.push(replica.node_id);
    else usable.push(replica);
  }
  return { usable, stale };
}

/**
 * Ids of the nodes that a sandbox can be started on (spec §6.4), sorted.
 * @throws AppError template_stale_needs_redo, template_has_no_ready_replica, snapshot_deleting
 */
export function readyNodes(input: ResolveInput): string[] {
  const { usable } = schedulable(input);
  if (usable.length === 0) chooseReplica(input);
  return usable.map((replica) => replica.node_id).sort();
}

/**
 * The replica to start from: the preferred node's and no other when one is asked for (spec §6.3),
 * else this node's, else the one on the node with the smallest storage use, then by id.
 * @throws AppError template_stale_needs_redo {nodes}, template_has_no_ready_replica,
 *   snapshot_deleting
 */
export function chooseReplica(input: ResolveInput): ReplicaStatus {
  const { template, nodes, preferredNodeId } = input;
  if (template.status === "DELETING") {
    throw new AppError("snapshot_deleting", `${template.template_id} is being deleted`);
  }
  const { usable, stale } = schedulable(input);
  const load = (replica: ReplicaStatus) => nodes.get(replica.node_id)?.storage.usage_pct ?? 100;
  const chosen =
    preferredNodeId !== undefined && preferredNodeId !== ""
      ? usable.find((replica) => replica.node_id === preferredNodeId)
      : (usable.find((replica) => replica.node_id === input.selfId) ??
        usable.sort((a, b) => load(a) - load(b) || (a.node_id < b.node_id ? -1 : 1))[0]);
  if (chosen !== undefined) return chosen;
  if (usable.length === 0 && stale.length > 0) {
    stale.sort();
    throw new AppError(
      "template_stale_needs_redo",
      `template ${template.template_id} is stale on nodes [${stale.join(", ")}] and needs redo`,
      { meta: { template_id: template.template_id, nodes: stale } },
    );
  }
  const where = preferredNodeId ? ` on node ${preferredNodeId}` : "";
  throw new AppError(
    "template_has_no_ready_replica",
    `template ${template.template_id} has no ready replica${where}`,
    { meta: { template_id: template.template_id, status: template.status } },
  );
}

/**
 * The request's own annotations and labels win; the template's volumes are appended; a container
 * that is missing is taken whole from the template; type, handler and namespace only where empty
 * (spec §6.6). Answers a new object that shares no part a caller could change with the template.
 */
export function mergeRequest(request: SandboxRequest, template: SandboxRequest): SandboxRequest {
  const own = structuredClone(template);
  const wanted = request.containers ?? [];
  const count = Math.max(wanted.length, own.containers?.length ?? 0);
  const containers = Array.from(
    { length: count },
    (_, index) => wanted[index] ?? own.containers?.[index] ?? null,
  );
  return {
    ...own,
    ...request,
    annotations: { ...own.annotations, ...request.annotations },
    labels: { ...own.labels, ...request.labels },
    volumes: [...(request.volumes ?? []), ...(own.volumes ?? [])],
    containers,
    network_type: request.network_type || own.network_type,
    runtime_handler: request.runtime_handler || own.runtime_handler,
    namespace: request.namespace || own.namespace,
    instance_type: request.instance_type || own.instance_type,
  };
}
