/** What taking a member out of the cluster costs, and what stands in its way. */
import type { ClusterView, SwarmView } from "./cluster.ts";
import type { TemplateInfo } from "./schema.ts";

export interface RemovalCost {
  /** Ready nowhere else: no sandbox starts from them until another node has a replica. */
  readonly onlyReplicas: readonly TemplateInfo[];
  /** Artifact ids whose bytes no other node holds whole. */
  readonly onlyCopies: readonly string[];
  /** How many members are left. */
  readonly left: number;
  /** Why it cannot be done now; blank: it can. */
  readonly blocked: string;
}

/** What the asked node knows of it; `templates` are all of them. */
export function removalCost(
  nodeId: string,
  view: ClusterView,
  templates: readonly TemplateInfo[],
  swarms: readonly SwarmView[],
): RemovalCost {
  const isOnlyAt = (holders: readonly string[]) => holders.length === 1 && holders[0] === nodeId;
  return {
    onlyReplicas: templates.filter(({ replicas }) =>
      isOnlyAt(replicas.filter(({ status }) => status === "READY").map(({ node_id }) => node_id)),
    ),
    onlyCopies: swarms
      .filter(({ nodes }) =>
        isOnlyAt(nodes.filter(({ complete }) => complete).map(({ node_id }) => node_id)),
      )
      .map(({ artifact_id }) => artifact_id),
    left: view.members.filter((member) => member.node_id !== nodeId).length,
    blocked: blockedBy(nodeId, view),
  };
}

function blockedBy(nodeId: string, view: ClusterView): string {
  if (!view.clustered) return "This node is alone: there is nothing to remove.";
  if (nodeId === view.node_id) return "It is the node that you ask: let it leave instead.";
  if (!view.members.some((member) => member.node_id === nodeId)) return "It is no member.";
  if (view.quorum.available) return "";
  const both = view.quorum.voters.length === 2 ? "Two nodes need both: b" : "B";
  return `There is no quorum, so nothing can be changed. ${both}ring a voter back first.`;
}
