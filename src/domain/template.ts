import { defineMachine } from "./machine.ts";

export const DEFAULT_TEMPLATE_VERSION = "v2";
export const TEMPLATE_STATUSES = [
  "PENDING",
  "CREATING",
  "READY",
  "PARTIALLY_READY",
  "FAILED",
  "DELETING",
] as const;
export type TemplateStatus = (typeof TEMPLATE_STATUSES)[number];

/** Status machine of a definition, a template's or a snapshot's (spec §1.1). */
export const templateMachine = defineMachine("template", {
  PENDING: { ready: "READY", partial: "PARTIALLY_READY", fail: "FAILED" },
  // Only of snapshots.
  CREATING: { ready: "READY", fail: "FAILED" },
  READY: { partial: "PARTIALLY_READY", fail: "FAILED", delete: "DELETING", ready: "READY" },
  PARTIALLY_READY: {
    ready: "READY",
    fail: "FAILED",
    delete: "DELETING",
    partial: "PARTIALLY_READY",
  },
  FAILED: {
    ready: "READY",
    partial: "PARTIALLY_READY",
    delete: "DELETING",
    fail: "FAILED",
    redo: "PENDING",
  },
  // Its deletion was refused by somebody who uses it.
  DELETING: { lift_ready: "READY", lift_partial: "PARTIALLY_READY", lift_failed: "FAILED" },
});

/**
 * Status of a template from its replicas over the nodes that were expected to hold one (spec §3.1,
 * the FIX: nodes that failed to get the artifact count too).
 */
export function statusFromReplicas(
  expectedNodes: readonly string[],
  replicas: readonly { node_id: string; status: string; error_message?: string }[],
): {
  status: "READY" | "PARTIALLY_READY" | "FAILED";
  ready: number;
  failed: number;
  error: string;
} {
  const byNode = new Map(replicas.map((replica) => [replica.node_id, replica]));
  const ready = expectedNodes.filter((node) => byNode.get(node)?.status === "READY").length;
  const failed = expectedNodes.length - ready;
  const first = expectedNodes
    .map((node) => byNode.get(node))
    .find((replica) => replica?.status !== "READY" && (replica?.error_message ?? "") !== "");
  const error = ready === expectedNodes.length ? "" : (first?.error_message ?? "replica not ready");
  if (ready === 0) {
    return {
      status: "FAILED",
      ready,
      failed,
      error: error || "template creation failed on all nodes",
    };
  }
  return { status: failed === 0 ? "READY" : "PARTIALLY_READY", ready, failed, error };
}
