/**
 * Generations of a template's replicas. The record says which one each node shall hold; a node that
 * has another makes it anew, beside what it has, which serves until the new one is READY.
 */
import type { NodeFact, ReplicaStatus, TemplateRecord } from "./schema.ts";

type Generations = Pick<TemplateRecord, "generation" | "generations">;

/** The generation that the node shall hold. */
export const wantedGeneration = (template: Generations, nodeId: string): number =>
  template.generations?.[nodeId] ?? template.generation;

/** The highest that any node was asked for. */
export const latestGeneration = (template: Generations): number =>
  Math.max(template.generation, ...Object.values(template.generations ?? {}));

type Attempt = Pick<ReplicaStatus, "phase" | "error_message" | "last_error_phase">;

/** How far the node got with a generation; undefined: it has not begun it. */
export function attemptAt(
  replica: ReplicaStatus | undefined,
  generation: number,
): Attempt | undefined {
  if (replica?.generation === generation) return replica;
  return replica?.redo?.generation === generation ? replica.redo : undefined;
}

/** Whether the replica says anything of the template as it is: it serves, or is what is wanted. */
export const isCounted = (template: Generations, replica: ReplicaStatus): boolean =>
  replica.status === "READY" || replica.generation === wantedGeneration(template, replica.node_id);

/** Not READY, something to be cleaned up, or the last redo on its node did not succeed. */
export const isFailedReplica = (replica: ReplicaStatus): boolean =>
  replica.status !== "READY" ||
  replica.cleanup_required === true ||
  replica.redo?.phase === "FAILED";

/** What the nodes say that shall hold the template and have not begun to make it. */
export function pendingReplicas(
  template: TemplateRecord,
  begun: readonly ReplicaStatus[],
  nodeOf: (nodeId: string) => Pick<NodeFact, "node_ip"> | undefined,
): ReplicaStatus[] {
  if (template.status === "FAILED" || template.status === "DELETING") return [];
  const told = new Set(begun.map((replica) => replica.node_id));
  return template.desired_nodes
    .filter((node_id) => !told.has(node_id))
    .map((node_id) => ({
      node_id,
      node_ip: nodeOf(node_id)?.node_ip ?? "",
      instance_type: template.instance_type,
      status: "FAILED",
      phase: "PENDING",
      generation: wantedGeneration(template, node_id),
    }));
}
