/**
 * All wording of the cluster: its health, who holds which share of what spreads, and what a removal
 * costs. Pure, as view-models.ts is.
 */
import type {
  ClusterView,
  MemberView,
  RemovalCost,
  SwarmView,
  TemplateInfo,
} from "../domain/index.ts";
import { count, formatBytes, formatRate, parseTime, roughDuration } from "./format.ts";
import { status, type Status } from "./status.ts";
import { templateName } from "./view-models.ts";

/** One state per member, worst first. */
export function memberStatus(member: MemberView): Status {
  if (member.liveness === "dead") return status("DEAD");
  if (member.liveness === "suspect") return status("SUSPECT");
  if (member.drained) return status("DRAINED");
  return status(member.warm ? "ALIVE" : "WARMING");
}

/** One sentence: who is up, and whether changes go on. */
export function clusterSentence(view: ClusterView): string {
  if (!view.clustered) return "This node is alone and its own quorum.";
  const alive = view.members.filter((member) => member.liveness === "alive").length;
  const quorum = view.quorum.available ? "changes go on" : "changes are refused: no quorum";
  return `${alive} of ${count(view.members.length, "node")} alive, ${quorum}.`;
}

/* ---- health ---------------------------------------------------------------------------------- */

export interface HealthItem {
  readonly name: string;
  readonly state: Status;
  readonly detail: string;
  /** Since when, where the detail has a beginning. */
  readonly since?: string;
}

const as = (of: string, word: string): Status => ({ ...status(of), word });

/** Members, quorum, agreement and leaders: each a state and what is behind it. */
export const healthItems = (view: ClusterView): readonly HealthItem[] => [
  membersHealth(view),
  quorumHealth(view),
  agreementHealth(view),
  leadersHealth(view),
];

function membersHealth({ members }: ClusterView): HealthItem {
  const down = members.filter((member) => member.liveness !== "alive");
  const dead = down.some((member) => member.liveness === "dead");
  const word = `${members.length - down.length} of ${members.length} up`;
  const detail = down.map((one) => `${one.node_id} is ${one.liveness}`).join(", ");
  return {
    name: "Members",
    state: as(dead ? "DEAD" : down.length > 0 ? "SUSPECT" : "OK", word),
    detail: detail === "" ? "all answer" : detail,
  };
}

function quorumHealth({ quorum }: ClusterView): HealthItem {
  const { voters, alive, available } = quorum;
  const spare = alive.length - (Math.floor(voters.length / 2) + 1);
  const may = spare <= 0 ? "none may fail" : `${spare} more may fail`;
  const both = voters.length === 2 ? "two nodes need both" : may;
  return {
    name: "Quorum",
    state: as(
      !available ? "NO_QUORUM" : alive.length < voters.length ? "WARN" : "OK",
      yes(available),
    ),
    detail: `${alive.length} of ${count(voters.length, "voter")} alive, ${
      available ? both : "changes are refused"
    }`,
  };
}

const yes = (is: boolean): string => (is ? "Yes" : "No");

function agreementHealth({ divergence, members }: ClusterView): HealthItem {
  const name = "State";
  const first = divergence[0];
  if (first !== undefined) {
    const more = divergence.length - 1;
    const others = more > 0 ? `, and ${count(more, "node")} more` : "";
    const detail = `${first.node_id} on ${count(first.count, "entry", "entries")}${others}`;
    return { name, state: as("BEHIND", "Differs"), detail, since: first.since };
  }
  const others = members.filter((member) => !member.self);
  const behind = others.filter((member) => member.in_sync === false);
  if (behind.length > 0) {
    const detail = `${behind.map((member) => member.node_id).join(", ")} had not all when compared`;
    return { name, state: as("WARMING", "Catching up"), detail };
  }
  const equal = others.filter((member) => member.in_sync === true).length;
  if (equal < others.length) {
    const detail = `${others.length - equal} of ${count(others.length, "other node")} not compared`;
    return { name, state: as("PENDING", equal === 0 ? "Not compared" : "In sync"), detail };
  }
  const detail = others.length === 0 ? "nobody to compare with" : "all hold the same";
  return { name, state: as("IN_SYNC", "In sync"), detail };
}

function leadersHealth(view: ClusterView): HealthItem {
  const valid = view.leaders.filter((leader) => leader.valid);
  const nodes = new Set(valid.map((leader) => leader.node_id)).size;
  return {
    name: "Leaders",
    state: as(valid.length === 0 ? "STOPPED" : "OK", String(valid.length)),
    detail: valid.length === 0 ? "no work, nobody leads" : `on ${count(nodes, "node")}`,
  };
}

/* ---- distribution ---------------------------------------------------------------------------- */

/** Whether a node still lacks a part of it. */
export const isSpreading = (swarm: SwarmView): boolean =>
  swarm.nodes.some((node) => !node.complete);

export interface ShareView {
  readonly nodeId: string;
  readonly isBuilder: boolean;
  readonly complete: boolean;
  /** Whole percent of the chunks. */
  readonly percent: number;
  readonly text: string;
}

/**
 * Who holds which share: the nodes that hold some, and of `wanted` those that hold none yet.
 * Sources and rates are known of the node that is asked only, so they are said of it alone.
 */
export function shareViews(
  swarm: SwarmView,
  wanted: readonly string[],
  builder: string | undefined,
): readonly ShareView[] {
  const held = new Map(swarm.nodes.map((node) => [node.node_id, node]));
  const ids = [...new Set([...held.keys(), ...wanted])].sort();
  return ids.map((nodeId) => {
    const node = held.get(nodeId);
    const have = node?.have_chunks ?? 0;
    const complete = node?.complete === true;
    return {
      nodeId,
      isBuilder: nodeId === builder,
      complete,
      percent: complete ? 100 : partPercent(have, swarm.chunk_count),
      text: node === undefined ? "waits for its first chunk" : shareText(swarm, node),
    };
  });
}

/** 100 is for those who have all. */
const partPercent = (have: number, all: number): number =>
  all === 0 ? 0 : Math.min(99, Math.floor((have * 100) / all));

function shareText(swarm: SwarmView, node: SwarmView["nodes"][number]): string {
  const from = Object.keys(node.sources).length;
  return [
    node.complete ? "has all" : `${node.have_chunks} of ${count(swarm.chunk_count, "chunk")}`,
    from === 0 ? "" : `from ${count(from, "node")}`,
    node.reused_chunks === 0 ? "" : `${node.reused_chunks} reused`,
    node.complete || node.down_bps === 0 ? "" : `receives ${formatRate(node.down_bps)}`,
    node.up_bps === 0 ? "" : `sends ${formatRate(node.up_bps)}`,
    node.sent_bytes === 0 ? "" : `sent ${formatBytes(node.sent_bytes)}`,
  ]
    .filter((part) => part !== "")
    .join(" · ");
}

/** `2 of 5 nodes have all of 128 MiB.` */
export function swarmSentence(swarm: SwarmView, shares: readonly ShareView[]): string {
  const complete = shares.filter((share) => share.complete).length;
  return `${complete} of ${count(shares.length, "node")} have all of ${formatBytes(swarm.size_bytes)}.`;
}

/* ---- sessions and messages ------------------------------------------------------------------- */

/** An ended session holds nothing: what it led may be claimed. */
export const sessionStatus = (session: { readonly ended: boolean }): Status =>
  session.ended ? as("STOPPED", "Ended") : as("OK", "Runs");

/** `812 messages accepted, 1 refused since the daemon started`. */
export function messagesSentence({ messages }: ClusterView): string {
  const entries = Object.entries(messages);
  const total = (wanted: (outcome: string) => boolean): number =>
    entries.reduce((all, [name, number]) => all + (wanted(name) ? number : 0), 0);
  const refused = total((name) => name.includes("rejected"));
  const accepted = total((name) => name.includes("accepted"));
  return `${count(accepted, "message")} accepted, ${refused} refused since the daemon started`;
}

/* ---- leaders --------------------------------------------------------------------------------- */

export type LeaderView = ClusterView["leaders"][number];

/** The template's leader; undefined when nobody leads it now. */
export const leaderOf = (view: ClusterView, template: TemplateInfo): LeaderView | undefined =>
  view.leaders.find((one) => one.template_id === template.template_id && one.valid);

/* ---- join tokens ----------------------------------------------------------------------------- */

/** Whether it still admits anybody, and for how long. */
export function tokenState(
  token: ClusterView["tokens"][number],
  now: number,
): { state: Status; left: string } {
  const ms = (parseTime(token.expires_at) ?? now) - now;
  if (ms <= 0) return { state: as("STOPPED", "Expired"), left: "over" };
  const left = `in ${roughDuration(ms)}`;
  return token.uses_left === 0
    ? { state: as("STOPPED", "Used up"), left }
    : { state: as("OK", "Good"), left };
}

/** Why other hosts cannot join although they have a token; blank when they can. */
export function reachWarning(view: ClusterView): string {
  const isLocal = (address: string) => /^\/ip4\/127\.|^\/ip6\/::1\//.test(address);
  if (view.addresses.length === 0 || !view.addresses.every(isLocal)) return "";
  return (
    `This node listens for peers on ${view.addresses.join(", ")} only: daemons of this host can ` +
    "join it, other hosts cannot. Start it with --p2p-listen and an address that they reach."
  );
}

/* ---- removal --------------------------------------------------------------------------------- */

/** What the removal of that member does and loses, one sentence each. */
export function removalEffects(nodeId: string, view: ClusterView, cost: RemovalCost): string[] {
  const member = view.members.find((one) => one.node_id === nodeId);
  const effects = [
    member?.liveness === "alive"
      ? "It is told so, and takes part in nothing any more until it joins anew."
      : "It does not answer; when it comes back it is refused, until it leaves and joins anew.",
    "What it leads and works on goes to other nodes.",
  ];
  if (cost.onlyReplicas.length > 0) {
    const names = nameSome(cost.onlyReplicas.map(templateName));
    const many = count(cost.onlyReplicas.length, "template");
    effects.push(
      `${many} ready nowhere else: ${names}. No sandbox starts until a replica is made.`,
    );
  }
  if (cost.onlyCopies.length > 0) {
    const names = nameSome(cost.onlyCopies);
    const many = count(cost.onlyCopies.length, "root filesystem");
    effects.push(`The only copy of ${many} goes: ${names}. They have to be built again.`);
  }
  if (cost.onlyReplicas.length + cost.onlyCopies.length === 0) {
    effects.push("No template and no root filesystem is on it alone, as far as this node knows.");
  }
  effects.push(quorumAfter(cost.left));
  return effects;
}

const NAMED = 5;

const nameSome = (names: readonly string[]): string =>
  names.length <= NAMED
    ? names.join(", ")
    : `${names.slice(0, NAMED).join(", ")} and ${names.length - NAMED} more`;

function quorumAfter(left: number): string {
  if (left === 1) return "One node is left, its own quorum: nothing is held twice then.";
  if (left === 2) return "Two nodes are left, and two need both: when one is down nothing changes.";
  return `${left} nodes are left.`;
}
