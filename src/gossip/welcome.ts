/**
 * Hellos on every new connection and from time to time: a node that was removed, whose data
 * directory runs twice, or whose clock is off learns it here, and so does its peer.
 */
import {
  LIMITS,
  errorText,
  isAppError,
  untilTick,
  type AppError,
  type ErrorCode,
} from "../domain/index.ts";
import type { Admission } from "./admission.ts";
import { pickOne } from "./pick.ts";
import type { Parts, PeerId } from "./ports.ts";
import type { Warnings } from "./warnings.ts";

/** A peer that reconnects over and over is asked again after this. */
const AGAIN_MS = 5_000;
/**
 * One peer is asked again each time: clocks move, and of two with one identity both are heard. And
 * all with whom something is wrong, so that a warning does not stand for long when it is over.
 */
const ROUND_MS = 20_000;
/** Until this node's new addresses are in the configuration, or its clock is seen to have moved. */
const CHECK_MS = 5_000;

const LEAVE = "`templatecenter cluster leave` makes this a node of its own again";
const ADVICE: Partial<Record<ErrorCode, string>> = {
  node_removed: LEAVE,
  not_a_member: LEAVE,
  cluster_mismatch: "the addresses of this node's members lead to another cluster",
  identity_copied: "stop the copy, remove its identity.key and cluster.json, and join it anew",
  clock_skew: "set the clocks of both hosts by NTP",
};

export interface WelcomeParts extends Parts {
  readonly admission: Admission;
  readonly warnings: Warnings;
  /** Another daemon ran with this node's identity before this one started. */
  readonly onCopy: (error: AppError) => void;
}

export function createWelcome(parts: WelcomeParts): {
  start(): void;
  stop(): void;
} {
  const { transport, members, clock, log, admission, warnings } = parts;
  const asked = new Map<PeerId, number>();
  let off: () => void = () => undefined;
  let timers: { cancel(): void }[] = [];
  let stopped = false;
  const every = (index: number, milliseconds: number, work: () => unknown): void => {
    if (stopped) return;
    timers[index] = clock.after(untilTick(clock, milliseconds), () => {
      void work();
      every(index, milliseconds, work);
    });
  };
  const tellAddresses = async (): Promise<void> => {
    const own = [...transport.addresses()].sort();
    const known = [...(members.config()?.members[members.self]?.addresses ?? own)].sort();
    if (own.length === 0 || own.join("\0") === known.join("\0")) return;
    try {
      await admission.updateAddresses(own);
    } catch (error) {
      log.debug("this node's addresses could not be told yet", { reason: errorText(error) });
    }
  };
  let offsetMs = clock.now() - clock.monotonic();
  /** A clock that was set: everybody is asked at once what they think of it. */
  const checkClock = (): void => {
    const before = offsetMs;
    offsetMs = clock.now() - clock.monotonic();
    const seconds = Math.round((offsetMs - before) / 1_000);
    if (Math.abs(offsetMs - before) <= LIMITS.clockSkewMs) return;
    log.warn("the clock of this host was set", { by_seconds: seconds });
    asked.clear();
    for (const peer of transport.connections()) void ask(peer);
  };
  const askSome = (): void => {
    const peers = transport.connections();
    const doubtful = new Set(warnings.list().map(({ node_id }) => node_id));
    const chosen = new Set(peers.filter((peer) => doubtful.has(members.nodeOf(peer) ?? peer)));
    const one = pickOne(parts.random, peers);
    if (one !== undefined) chosen.add(one);
    for (const peer of chosen) void ask(peer);
  };
  const ask = async (peer: PeerId): Promise<void> => {
    const last = asked.get(peer);
    // One that is about to join has nothing to say yet.
    if (members.nodeOf(peer) === undefined || peer === transport.peerId) return;
    if (last !== undefined && clock.monotonic() - last < AGAIN_MS) return;
    asked.set(peer, clock.monotonic());
    const node = members.nodeOf(peer) ?? peer;
    try {
      await admission.hello(peer);
      warnings.clear(`asked ${node}`);
    } catch (error) {
      if (judge("asked", node, error)) return;
      log.debug("a peer did not answer the first question", { node, reason: errorText(error) });
    }
  };
  /** @returns true when it is something that the operator has to know */
  const judge = (side: "asked" | "heard", node: string, error: unknown): boolean => {
    if (!isAppError(error)) return false;
    const { code, message: detail } = error;
    const advice = ADVICE[code];
    if (advice === undefined) return false;
    warnings.raise(`${side} ${node}`, { code, node_id: node, detail, advice });
    if (error.meta["newcomer"] === true) parts.onCopy(error);
    return true;
  };
  return {
    start() {
      off = transport.onConnection((peer, connected) => {
        if (connected) void ask(peer);
      });
      admission.onHello((peer, problem) => {
        const node = members.nodeOf(peer) ?? peer;
        if (problem === undefined) warnings.clear(`heard ${node}`);
        else judge("heard", node, problem);
      });
      every(0, ROUND_MS, askSome);
      every(1, CHECK_MS, () => {
        checkClock();
        return tellAddresses();
      });
      void tellAddresses();
    },
    stop() {
      stopped = true;
      for (const timer of timers) timer.cancel();
      timers = [];
      off();
    },
  };
}
