/** The cluster as this node sees it: members, quorum, leaders, gossip health. */
import {
  CLUSTER,
  type Catalog,
  type Clock,
  type ClusterView,
  type MemberView,
} from "../domain/index.ts";
import type { Cluster } from "../gossip/index.ts";
import { coverageOf } from "./coverage.ts";
import type { Nodes } from "./nodes.ts";

export interface ClusterViewParts {
  readonly catalog: Catalog;
  readonly cluster: Cluster;
  readonly nodes: Nodes;
  readonly clock: Clock;
}

const iso = (milliseconds: number): string => new Date(milliseconds).toISOString();

export function clusterView(parts: ClusterViewParts): ClusterView {
  const { catalog, cluster } = parts;
  const { transport, members, replication } = cluster;
  const config = members.config();
  const leaders = [...catalog.list("leader", { owner: CLUSTER })].flatMap(({ value }) =>
    value === undefined || value.released ? [] : [value],
  );
  const sessions = [...catalog.list("session", { owner: CLUSTER })].flatMap(({ value }) =>
    value === undefined ? [] : [value],
  );
  const live = new Map(
    sessions.filter(({ ended }) => !ended).map((session) => [session.node_id, session.incarnation]),
  );
  const isValid = (leader: (typeof leaders)[number]) =>
    live.get(leader.node_id) === leader.incarnation;
  return {
    clustered: config !== undefined,
    cluster_id: config?.cluster_id ?? "",
    node_id: members.self,
    peer_id: transport.peerId,
    addresses: [...transport.addresses()],
    state_hash: catalog.stateHash(),
    quorum: quorumView(parts),
    members: memberViews(parts, leaders.filter(isValid)),
    leaders: leaders.map((leader) => ({
      template_id: leader.template_id,
      node_id: leader.node_id,
      epoch: leader.epoch,
      since: leader.since,
      valid: isValid(leader),
    })),
    sessions,
    divergence: [...replication.divergence()],
    warnings: [...cluster.warnings.list()],
    tokens: Object.values(config?.tokens ?? {}).map(
      ({ secret_sha256: _secret, ...token }) => token,
    ),
    messages: { ...transport.counters() },
  };
}

function quorumView({ cluster }: ClusterViewParts): ClusterView["quorum"] {
  const { members, liveness, registers, warnings } = cluster;
  const voters = members.voters();
  const isOut =
    members.config()?.members[members.self] === undefined ||
    warnings.list().some(({ code }) => code === "node_removed");
  if (voters === undefined) {
    return {
      available: true,
      note: "this node is alone and its own quorum",
      number: 0,
      voters: [members.self],
      alive: [members.self],
      changing: false,
    };
  }
  const alive = voters.nodes.filter((node) => liveness.isUp(node));
  const needed = Math.floor(voters.nodes.length / 2) + 1;
  const available = alive.length >= needed && !isOut;
  const missing = voters.nodes.filter((node) => !alive.includes(node));
  const note = isOut
    ? "this node was removed from the cluster: nothing can be changed here; " +
      "`templatecenter cluster leave` makes it a node of its own again"
    : !available
      ? `${alive.length} of ${voters.nodes.length} voters are up and ${needed} are needed: ` +
        `resolve and sandboxes go on, changes are refused (no_quorum) until ${missing.join(" or ")} is back`
      : voters.nodes.length === 2
        ? "two nodes need both: when one is down nothing can be changed; add a third"
        : missing.length > 0
          ? `voter ${missing.join(", ")} is down; ${alive.length - needed} more may fail`
          : "";
  const { number, active } = registers.status();
  const changing = number !== voters.number || (voters.nodes.includes(members.self) && !active);
  return { available, note, number: voters.number, voters: voters.nodes, alive, changing };
}

function memberViews(
  { catalog, cluster, nodes }: ClusterViewParts,
  led: readonly { readonly node_id: string }[],
): MemberView[] {
  const { transport, members, liveness, replication } = cluster;
  const config = members.config();
  if (config === undefined) return [];
  const coverage = coverageOf(catalog, nodes);
  const connected = new Set(transport.connections());
  const synced = new Map(replication.peers().map((peer) => [peer.nodeId, peer]));
  return Object.values(config.members)
    .sort((a, b) => (a.node_id < b.node_id ? -1 : 1))
    .map((member) => {
      const id = member.node_id;
      const self = id === members.self;
      const { wanted, ready } = coverage.get(id) ?? { wanted: 0, ready: 0 };
      const sync = synced.get(id);
      const node = nodes.get(id);
      return {
        ...member,
        self,
        voter: config.voters.nodes.includes(id),
        liveness: liveness.stateOf(id),
        liveness_since: iso(liveness.since(id)),
        connected: self || connected.has(member.peer_id),
        wanted,
        ready,
        coverage_pct: wanted === 0 ? 100 : Math.floor((ready * 100) / wanted),
        warm: node?.["warm"] === true,
        in_sync: self ? true : (sync?.inSync ?? null),
        ...(sync === undefined || sync.comparedAt === 0
          ? {}
          : { compared_at: iso(sync.comparedAt) }),
        ...(sync?.lagMs === undefined ? {} : { lag_ms: sync.lagMs }),
        leads: led.filter((leader) => leader.node_id === id).length,
        version: node?.version ?? "",
      };
    });
}
