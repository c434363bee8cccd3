/** In words: why an artifact is still here, and why a template is not ready on a node. */
import { effectiveCompat } from "./compat.ts";
import { wantedGeneration } from "./replica.ts";
import type { ArtifactSight, GcStep } from "./gc.ts";
import { keptUntil, remainingHolders } from "./gc.ts";
import type { ArtifactRecord, NodeFact, ReplicaStatus, TemplateRecord } from "./schema.ts";

const at = (unixSeconds: number): string => new Date(unixSeconds * 1_000).toISOString();
const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Why the artifact is still here, in one line. */
export function explainArtifact(artifact: ArtifactRecord, sight: ArtifactSight): string {
  const { references, holders } = sight;
  if (references.length > 0) return `used: ${plural(references.length, "reference")}`;
  switch (artifact.status) {
    case "PENDING":
    case "BUILDING":
      return sight.isBuilding
        ? `being built on ${artifact.builder?.node_id ?? "?"}`
        : "its build has no builder any more";
    case "CLEANUP_PENDING": {
      const left = remainingHolders(artifact, holders);
      if (holders.length === 0) return "no copy is left; its record goes next";
      if (left.length === 0) return `copies are being removed on ${holders.join(", ")}`;
      return `waits for ${left.join(", ")} to remove its copy`;
    }
    default:
      return artifact.unreferenced_at === undefined
        ? "nobody refers to it; its grace begins with the next pass"
        : `nobody refers to it; kept until ${at(keptUntil(artifact, sight))}`;
  }
}

/** Why garbage collection would take that step. */
export function explainStep(step: GcStep, artifact: ArtifactRecord, sight: ArtifactSight): string {
  if (step === "renew") return "it is used again";
  if (step === "lost") return "it is used and no copy is left";
  if (step === "release") return "nobody refers to it and its grace is over";
  return explainArtifact(artifact, sight);
}

export interface ReplicaSight {
  readonly template: TemplateRecord;
  readonly artifact: ArtifactRecord | undefined;
  readonly node: NodeFact;
  readonly replica: ReplicaStatus | undefined;
  readonly isInScope: boolean;
  readonly holdsArtifact: boolean;
}

/** Why a sandbox cannot start from the template on that node; blank when it can. */
export function explainReplica(sight: ReplicaSight): string {
  const { template, replica, node } = sight;
  if (!node.healthy) return "the node is down or cannot be reached";
  if (!template.desired_nodes.includes(node.node_id)) return explainUnwanted(sight);
  const isCurrent = replica?.generation === wantedGeneration(template, node.node_id);
  // One of an earlier generation serves while it is made anew.
  if (replica?.status === "READY") {
    if (effectiveCompat(replica, node) !== "STALE") return "";
    return "stale: made with other versions than the node has now; redo it";
  }
  if (replica?.phase === "FAILED" && isCurrent) {
    return `${replica.last_error_phase ?? "a step"} failed: ${replica.error_message ?? "unknown"}`;
  }
  if (template.status === "FAILED") return `the template has failed: ${template.last_error}`;
  return explainWaiting(sight, isCurrent);
}

function explainUnwanted({ template, node, isInScope }: ReplicaSight): string {
  if (!isInScope) return "the node is outside of the template's distribution scope";
  if (node.drained) return "the node is drained";
  if (template.status === "FAILED") return `the template has failed: ${template.last_error}`;
  return "the node is not among those that shall hold it yet";
}

function explainWaiting(sight: ReplicaSight, isCurrent: boolean): string {
  const { artifact, node, replica, holdsArtifact } = sight;
  if (artifact?.status !== "READY") return `its artifact is ${artifact?.status ?? "gone"}`;
  const { mode, usage_pct } = node.storage;
  const isFull = mode === "reject" || mode === "delete_only";
  if (!holdsArtifact && isFull) return `the node's disk is ${usage_pct} % full (${mode})`;
  if (replica === undefined || !isCurrent) return "the node has not begun it";
  return `under way: ${replica.phase}`;
}
