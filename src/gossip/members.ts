/** The member list, read from the configuration record whenever that changes. */
import { CLUSTER, CONFIG_ID, type Catalog, type ClusterConfig } from "../domain/index.ts";
import type { Members, PeerId } from "./ports.ts";

export function createMembers(catalog: Catalog, self: string): Members & { stop(): void } {
  let config: ClusterConfig | undefined;
  let nodes: readonly string[] = [self];
  let byPeer = new Map<PeerId, string>();
  const listeners = new Set<() => void>();

  const load = () => {
    config = catalog.get(CLUSTER, "cluster", CONFIG_ID)?.value;
    const members = Object.values(config?.members ?? {});
    nodes = members.length === 0 ? [self] : members.map(({ node_id }) => node_id).sort();
    byPeer = new Map(members.map(({ peer_id, node_id }) => [peer_id, node_id]));
  };
  load();
  const unsubscribe = catalog.subscribe((entry) => {
    if (entry.kind !== "cluster" || entry.id !== CONFIG_ID) return;
    load();
    for (const listener of listeners) listener();
  });

  return {
    self,
    config: () => config,
    nodes: () => nodes,
    others: () => nodes.filter((node) => node !== self),
    has: (nodeId) => nodes.includes(nodeId),
    peerOf: (nodeId) => config?.members[nodeId]?.peer_id,
    nodeOf: (peer) => byPeer.get(peer),
    isDrained: (nodeId) => config?.members[nodeId]?.drained === true,
    voters: () => config?.voters,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop: unsubscribe,
  };
}
