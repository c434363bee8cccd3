/**
 * The nodes as this one believes them to be: what each says of itself, and whether it is still
 * there. A fact outlives its node, so that it alone says nothing about health.
 */
import { AppError, inScope, type Catalog, type NodeFact } from "../domain/index.ts";
import type { Liveness, Members } from "../gossip/index.ts";

export interface Nodes {
  readonly self: string;
  /** Members that have published a fact, by id. */
  all(): NodeFact[];
  get(nodeId: string): NodeFact | undefined;
  isMember(nodeId: string): boolean;
  /** It was taken out of the cluster, and has not come back since. */
  wasRemoved(nodeId: string): boolean;
  /** Told when a node comes, goes, or is drained; not of other changes of its fact. */
  onChange(listener: (nodeId: string) => void): () => void;
}

export function createNodes(catalog: Catalog, members: Members, liveness: Liveness): Nodes {
  const view = (fact: NodeFact): NodeFact => ({
    ...fact,
    healthy: fact.healthy && liveness.isUp(fact.node_id),
    drained: fact.drained || members.isDrained(fact.node_id),
  });
  const get = (nodeId: string) => {
    // A node that was taken out still has to tell its operator about itself.
    const isKnown = members.has(nodeId) || nodeId === members.self;
    const fact = isKnown ? catalog.get(nodeId, "node", nodeId)?.value : undefined;
    return fact === undefined ? undefined : view(fact);
  };
  return {
    self: members.self,
    all: () =>
      members.nodes().flatMap((nodeId) => {
        const node = get(nodeId);
        return node === undefined ? [] : [node];
      }),
    get,
    isMember: (nodeId) => members.has(nodeId),
    wasRemoved: (nodeId) =>
      !members.has(nodeId) &&
      Object.values(members.config()?.removed ?? {}).some((gone) => gone.node_id === nodeId),
    onChange(listener) {
      const off = [
        liveness.onChange((nodeId) => listener(nodeId)),
        members.onChange(() => members.nodes().forEach(listener)),
      ];
      return () => off.forEach((stop) => stop());
    },
  };
}

/**
 * Healthy, undrained nodes, restricted to the scope by node id or address.
 * @throws AppError no_template_nodes, invalid_request "target nodes are not healthy or not found:
 * a,b"
 */
export function targetNodes(nodes: readonly NodeFact[], scope: readonly string[]): string[] {
  const healthy = nodes.filter((node) => node.healthy && !node.drained);
  if (healthy.length === 0) throw new AppError("no_template_nodes");
  const missing = scope.filter(
    (name) => !healthy.some((node) => node.node_id === name || node.node_ip === name),
  );
  if (missing.length > 0) {
    const names = [...new Set(missing)].sort().join(",");
    throw new AppError("invalid_request", `target nodes are not healthy or not found: ${names}`, {
      meta: { errors: [{ pointer: "/distribution_scope", detail: `unknown: ${names}` }] },
    });
  }
  return healthy.filter((node) => inScope(node, scope)).map((node) => node.node_id);
}
