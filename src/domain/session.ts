/**
 * When a session holds and when it may be ended (design §4), in monotonic time of each node's own.
 *
 * A holder believes in its session until it *sent* the last successful renewal + (1 − MARGIN) ×
 * term. A challenger ends it after it has watched the same beat for a whole term. It cannot have
 * seen the beat before that was sent, so with T the term and clocks whose rates are off by at most
 * 10 %:
 *   holder's belief ends at most   0.8 T / 0.9 = 0.889 T   of true time after the sending,
 *   challenger's watch ends at least   T / 1.1 = 0.909 T   after it.
 * The offset of wall clocks plays no part.
 */
import type { LeaderRecord, SessionRecord } from "./cluster.ts";

/** Share of the term that a holder gives away: 1 − 0.9 / 1.1 = 0.182 is the least that is safe. */
export const SESSION_MARGIN = 0.2;

/** How long after sending a renewal its sender may believe in the session. */
export const sessionValidityMs = (termMs: number): number => termMs * (1 - SESSION_MARGIN);

/** How often a session that is in use is renewed. */
export const renewalIntervalMs = (termMs: number): number => termMs / 4;

/** A session as another node has watched it. */
export interface WatchedSession {
  readonly incarnation: number;
  readonly beat: number;
  /** When this node first saw that beat, its own monotonic milliseconds. */
  readonly sinceMs: number;
}

/** The watch after a record of that session was seen: it starts anew when the beat has moved. */
export function watchSession(
  watched: WatchedSession | undefined,
  session: SessionRecord,
  nowMs: number,
): WatchedSession {
  const { incarnation, beat } = session;
  return watched?.incarnation === incarnation && watched.beat === beat
    ? watched
    : { incarnation, beat, sinceMs: nowMs };
}

/** Milliseconds until a challenger may end the session; 0 or less: now. */
export const watchLeftMs = (watched: WatchedSession, termMs: number, nowMs: number): number =>
  watched.sinceMs + termMs - nowMs;

/** The record with which a challenger ends what it has watched; undefined when it has moved on. */
export const endWatched = (
  current: SessionRecord | undefined,
  watched: WatchedSession,
): SessionRecord | undefined =>
  current !== undefined &&
  !current.ended &&
  current.incarnation === watched.incarnation &&
  current.beat === watched.beat
    ? { ...current, incarnation: current.incarnation + 1, ended: true }
    : undefined;

/** True when the session under which a leadership was claimed is over for certain. */
export const isOver = (leader: LeaderRecord, session: SessionRecord | undefined): boolean =>
  session !== undefined &&
  (session.incarnation > leader.incarnation ||
    (session.incarnation === leader.incarnation && session.ended));
