/**
 * The first words on every new connection: do you know me? A node that was removed, or whose data
 * directory runs twice, learns it here, and says it where its operator looks.
 */
import { errorText, isAppError, type ErrorCode } from "../domain/index.ts";
import type { Admission } from "./admission.ts";
import { pickOne } from "./pick.ts";
import type { Parts, PeerId } from "./ports.ts";

/** A peer that reconnects over and over is asked again after this. */
const AGAIN_MS = 5_000;
/** One peer is asked again each time: of two daemons with one identity, the other shows up then. */
const ROUND_MS = 60_000;
/** Until this node's new addresses are in the configuration. */
const ADDRESSES_MS = 5_000;

const ADVICE: Partial<Record<ErrorCode, string>> = {
  node_removed: "`templatecenter cluster leave` makes it a node of its own again",
  not_a_member: "`templatecenter cluster leave` makes it a node of its own again",
  cluster_mismatch: "the addresses of this node's members lead to another cluster",
  identity_copied: "two daemons run with one identity: stop the copy and remove its identity.key",
};

export function createWelcome(parts: Parts & { readonly admission: Admission }): {
  start(): void;
  stop(): void;
} {
  const { transport, members, clock, log, admission } = parts;
  const asked = new Map<PeerId, number>();
  let off: () => void = () => undefined;
  let timers: { cancel(): void }[] = [];
  let stopped = false;
  const every = (index: number, milliseconds: number, work: () => unknown): void => {
    if (stopped) return;
    timers[index] = clock.after(milliseconds, () => {
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
  const askOne = (): void => {
    const peer = pickOne(parts.random, transport.connections());
    if (peer !== undefined) void ask(peer);
  };
  const ask = async (peer: PeerId): Promise<void> => {
    const last = asked.get(peer);
    // One that is about to join has nothing to say yet.
    if (members.nodeOf(peer) === undefined || peer === transport.peerId) return;
    if (last !== undefined && clock.monotonic() - last < AGAIN_MS) return;
    asked.set(peer, clock.monotonic());
    try {
      await admission.hello(peer);
    } catch (error) {
      const code = isAppError(error) ? error.code : "internal";
      const advice = ADVICE[code];
      const fields = { peer, node: members.nodeOf(peer) ?? "", reason: errorText(error) };
      if (advice === undefined) log.debug("a peer did not answer the first question", fields);
      else log.error("this node is not welcome at a peer", { ...fields, code, advice });
    }
  };
  return {
    start() {
      off = transport.onConnection((peer, connected) => {
        if (connected) void ask(peer);
      });
      every(0, ROUND_MS, askOne);
      every(1, ADDRESSES_MS, tellAddresses);
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
