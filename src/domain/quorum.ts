/**
 * Registers of one value each, agreed by a majority of voters: CASPaxos (Rystsov 2018) as pure
 * steps, and the choice of who votes. Changing voters is in gossip/voters.ts.
 */
import { candidateOrder } from "./rendezvous.ts";

/** Compared by counter, then by node: two nodes never use the same ballot. */
export interface Ballot {
  readonly counter: number;
  readonly node: string;
}

/** Below every ballot that is ever used: what was agreed while a node was alone. */
export const NO_BALLOT: Ballot = { counter: 0, node: "" };

/**
 * Below every ballot that is made from a clock. A register that only one proposer has ever heard of
 * is written with this first: nothing can have been accepted below it, so nobody needs to be asked.
 */
const FIRST_COUNTER = 1;

/** Of the one proposer that made the register's name, for one value, once. */
export const firstBallot = (node: string): Ballot => ({ counter: FIRST_COUNTER, node });

export const isHigher = (a: Ballot, b: Ballot): boolean =>
  a.counter > b.counter || (a.counter === b.counter && a.node > b.node);

export const isSameBallot = (a: Ballot, b: Ballot): boolean =>
  a.counter === b.counter && a.node === b.node;

export interface Accepted {
  readonly ballot: Ballot;
  /** Of the entry; 0: the register was never written. */
  readonly version: number;
  /** Absent: a tombstone, or nothing. */
  readonly value?: unknown;
}

/** What a voter must never forget about a register. */
export interface RegisterRow {
  readonly promised: Ballot;
  readonly accepted: Accepted;
  /**
   * The voters' configuration in which this voter accepted it; absent: it was taken over from
   * another voter, or agreed while the node was alone. A value that a majority has taken over is
   * not chosen by that: a voter that was asked by others may hold a higher one.
   */
  readonly acceptedIn?: number;
}

export const EMPTY_ROW: RegisterRow = {
  promised: NO_BALLOT,
  accepted: { ballot: NO_BALLOT, version: 0 },
};

export type Step =
  | { readonly ok: true; readonly row: RegisterRow }
  | { readonly ok: false; readonly promised: Ballot };

/** A promise to accept nothing below `ballot`. */
export function prepareStep(row: RegisterRow, ballot: Ballot): Step {
  if (!isHigher(ballot, row.promised)) return { ok: false, promised: row.promised };
  return { ok: true, row: { ...row, promised: ballot } };
}

/**
 * Accepts a value under the configuration `number`, and promises `next` to its proposer at once:
 * with that from a majority it may propose again without asking first, for nobody else's value can
 * have come between.
 */
export function acceptStep(
  row: RegisterRow,
  accepted: Accepted,
  next: Ballot,
  number: number,
): Step {
  if (isHigher(row.promised, accepted.ballot)) return { ok: false, promised: row.promised };
  // A name that two have made after all: what was there is left to who asks first.
  if (accepted.ballot.counter === FIRST_COUNTER && row.accepted.version > 0) {
    return { ok: false, promised: row.promised };
  }
  return { ok: true, row: { promised: next, accepted, acceptedIn: number } };
}

/** The value that a proposer has to go on from: that of the highest ballot among the answers. */
export function latestAccepted(answers: readonly Accepted[]): Accepted {
  return answers.reduce(
    (best, one) =>
      isHigher(one.ballot, best.ballot) ||
      (isSameBallot(one.ballot, best.ballot) && one.version > best.version)
        ? one
        : best,
    EMPTY_ROW.accepted,
  );
}

export const majorityOf = (voters: number): number => Math.floor(voters / 2) + 1;

/** How many of so many members vote: odd numbers, because an even one fails as early. */
export const voterTarget = (members: number): number =>
  members >= 9 ? 7 : members >= 5 ? 5 : members === 4 ? 3 : Math.max(1, members);

export interface VoterCandidate {
  readonly nodeId: string;
  readonly isUp: boolean;
  /** Down for so long that it is not waited for. */
  readonly isLost: boolean;
  readonly isDrained: boolean;
}

/**
 * The next voters, one added or one taken away; undefined when they are as they should be. A voter
 * is replaced by adding its successor first.
 */
export function nextVoters(
  members: readonly VoterCandidate[],
  current: readonly string[],
): readonly string[] | undefined {
  const byId = new Map(members.map((member) => [member.nodeId, member]));
  const gone = current.find((node) => !byId.has(node));
  if (gone !== undefined && current.length > 1) return current.filter((node) => node !== gone);
  const target = voterTarget(members.length);
  const order = candidateOrder("@voters", byId.keys());
  const isFit = (node: string) => byId.get(node)?.isUp === true && !byId.get(node)?.isDrained;
  const spare = order.find((node) => isFit(node) && !current.includes(node));
  const isUnfit = (node: string) =>
    byId.get(node)?.isLost === true || byId.get(node)?.isDrained === true;
  const unfit = [...order].reverse().find((node) => current.includes(node) && isUnfit(node));
  if (current.length > target) {
    const last = unfit ?? [...order].reverse().find((node) => current.includes(node));
    return current.filter((node) => node !== last);
  }
  if (spare !== undefined && (current.length < target || unfit !== undefined)) {
    return [...current, spare].sort();
  }
  return undefined;
}
