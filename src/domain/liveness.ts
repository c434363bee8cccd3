/**
 * SWIM's rules as pure functions (Das, Gupta, Motivala 2002; Lifeguard, Dadgar et al. 2017): which
 * of two claims about a member holds, how long a suspicion lasts, how often a claim is passed on.
 */
import type { LivenessState } from "./cluster.ts";

/** What somebody says of a member. Only the member itself raises its incarnation. */
export interface LivenessClaim {
  readonly node: string;
  readonly state: LivenessState;
  readonly incarnation: number;
  /** Node id of who said it first: confirmations count only from different ones. */
  readonly origin: string;
}

const RANK: Readonly<Record<LivenessState, number>> = { alive: 0, suspect: 1, dead: 2 };

/** A higher incarnation wins; of equal ones the worse state, which only the member can refute. */
export const overrides = (
  incoming: Pick<LivenessClaim, "state" | "incarnation">,
  current: Pick<LivenessClaim, "state" | "incarnation">,
): boolean =>
  incoming.incarnation > current.incarnation ||
  (incoming.incarnation === current.incarnation && RANK[incoming.state] > RANK[current.state]);

/** Confirmations after which a suspicion is as short as it gets. */
export const FULL_CONFIRMATIONS = 3;
const SUSPICION_MIN_MS = 3_000;
const SUSPICION_MAX_MS = 10_000;

/**
 * Milliseconds from suspect to dead: 4 · log10(n + 1) periods, within 3 and 10 s; with each of `k`
 * independent confirmations it shrinks logarithmically towards the minimum.
 */
export function suspicionMs(members: number, periodMs: number, confirmations: number): number {
  const wanted = 4 * Math.log10(members + 1) * periodMs;
  const full = Math.min(SUSPICION_MAX_MS, Math.max(SUSPICION_MIN_MS, wanted));
  const share = Math.min(1, Math.log(confirmations + 1) / Math.log(FULL_CONFIRMATIONS + 1));
  return Math.max(SUSPICION_MIN_MS, full - (full - SUSPICION_MIN_MS) * share);
}

/** How many messages of this node carry one claim: enough to reach all of n with high odds. */
export const retransmits = (members: number): number =>
  Math.max(3, Math.ceil(3 * Math.log2(Math.max(2, members))));
