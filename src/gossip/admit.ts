/** Joining, removal and tokens as pure changes of `cluster/config`. */
import { AppError, LIMITS, type ClusterConfig } from "../domain/index.ts";
import type { PeerId } from "./ports.ts";

type Tokens = ClusterConfig["tokens"];
type Token = Tokens[string];

const REMOVED_KEPT = 1_000;

const without = <T>(from: Readonly<Record<string, T>>, key: string): Record<string, T> =>
  Object.fromEntries(Object.entries(from).filter(([name]) => name !== key));

/** Who asks to be let in, and with what. */
export interface Applicant {
  readonly clusterId: string;
  readonly peerId: PeerId;
  readonly nodeId: string;
  readonly addresses: readonly string[];
  readonly tokenId: string;
  readonly secretSha256: string;
}

/** @throws AppError clock_skew with both times, in milliseconds since the epoch */
export function checkSkew(here: number, there: number): void {
  const skew = there - here;
  if (Math.abs(skew) <= LIMITS.clockSkewMs) return;
  const times = {
    here: new Date(here).toISOString(),
    there: new Date(there).toISOString(),
    difference_ms: skew,
  };
  throw new AppError("clock_skew", skewText(times), { meta: times });
}

const skewText = ({
  here,
  there,
  difference_ms,
}: {
  here: string;
  there: string;
  difference_ms: number;
}): string => {
  const seconds = Math.round(Math.abs(difference_ms) / 1_000);
  return `the clocks are ${seconds} s apart: it is ${here} at one node and ${there} at the other`;
};

/**
 * The configuration with the joiner in it; undefined when it is a member already.
 * @throws AppError when the token, the name or the identity does not allow it
 */
export function admit(
  config: ClusterConfig,
  applicant: Applicant,
  nowMs: number,
): ClusterConfig | undefined {
  const { peerId, nodeId, tokenId } = applicant;
  if (config.cluster_id !== applicant.clusterId) throw new AppError("cluster_mismatch");
  const token = config.tokens[tokenId];
  if (token === undefined || token.secret_sha256 !== applicant.secretSha256) {
    throw new AppError("join_token_invalid", "the join token is not known here");
  }
  const named = config.members[nodeId];
  if (named !== undefined) {
    if (named.peer_id === peerId) return undefined;
    throw new AppError("node_name_taken", `the node name ${nodeId} is taken`);
  }
  const other = Object.values(config.members).find(({ peer_id }) => peer_id === peerId);
  if (other !== undefined) {
    throw new AppError("identity_copied", `this identity is already the node ${other.node_id}`);
  }
  if (config.voters.nodes.includes(nodeId)) {
    // A new node must not be taken for the voter that had its name, and whose promises it lacks.
    throw new AppError(
      "node_name_taken",
      `the former ${nodeId} still counts as a voter: try again when it has been replaced`,
    );
  }
  assertGood(token, nowMs);
  const member = {
    node_id: nodeId,
    peer_id: peerId,
    addresses: [...applicant.addresses],
    joined_at: new Date(nowMs).toISOString(),
    drained: false,
  };
  return {
    ...config,
    members: { ...config.members, [nodeId]: member },
    removed: without(config.removed, peerId),
    tokens: { ...config.tokens, [tokenId]: { ...token, uses_left: token.uses_left - 1 } },
  };
}

/** @throws AppError join_token_revoked, join_token_expired, join_token_used */
function assertGood(token: Token, nowMs: number): void {
  if (token.revoked_at !== undefined) {
    throw new AppError("join_token_revoked", `the join token was revoked at ${token.revoked_at}`);
  }
  if (Date.parse(token.expires_at) <= nowMs) {
    const now = new Date(nowMs).toISOString();
    throw new AppError(
      "join_token_expired",
      `the join token expired at ${token.expires_at}; it is ${now} here`,
    );
  }
  if (token.uses_left < 1) throw new AppError("join_token_used");
}

/** The configuration without the member. @throws AppError node_not_found */
export function removeMember(config: ClusterConfig, nodeId: string, at: string): ClusterConfig {
  const member = config.members[nodeId];
  if (member === undefined) throw new AppError("node_not_found", `node ${nodeId} not found`);
  const removed = [
    ...Object.entries(without(config.removed, member.peer_id)),
    [member.peer_id, { node_id: nodeId, at }] as const,
  ]
    .sort(([, a], [, b]) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
    .slice(-REMOVED_KEPT);
  return {
    ...config,
    members: without(config.members, nodeId),
    removed: Object.fromEntries(removed),
  };
}

/** Undefined when it was revoked before. @throws AppError join_token_not_found */
export function revokeToken(
  config: ClusterConfig,
  tokenId: string,
  at: string,
): ClusterConfig | undefined {
  const token = config.tokens[tokenId];
  if (token === undefined) throw new AppError("join_token_not_found");
  if (token.revoked_at !== undefined) return undefined;
  return { ...config, tokens: { ...config.tokens, [tokenId]: { ...token, revoked_at: at } } };
}

/**
 * Those that still admit somebody, and for some time the others: who comes with one of them is to
 * hear what became of it. Of the others so many at most that the record stays small.
 */
export function keptTokens(tokens: Tokens, nowMs: number): Tokens {
  const isDead = ({ revoked_at, uses_left, expires_at }: Token) =>
    revoked_at !== undefined || uses_left < 1 || Date.parse(expires_at) <= nowMs;
  const all = Object.entries(tokens);
  const dead = all
    .filter(([, token]) => isDead(token))
    .filter(([, { expires_at }]) => Date.parse(expires_at) + LIMITS.joinTokenKeptMs > nowMs)
    .sort(([, a], [, b]) => (a.expires_at < b.expires_at ? -1 : 1))
    .slice(-LIMITS.deadJoinTokensKept);
  return Object.fromEntries([...dead, ...all.filter(([, token]) => !isDead(token))]);
}
