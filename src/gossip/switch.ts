/**
 * A transport that can be put in and taken out while the node runs: alone it has none, in a cluster
 * the real one. Handlers are registered once, and follow.
 */
import { AppError } from "../domain/index.ts";
import type { PeerId, Protocol, Topic, Transport, Verdict } from "./ports.ts";

export interface TransportSwitch extends Transport {
  attach(real: Transport): void;
  /** Closes the real one; the node is alone again. */
  detach(): Promise<void>;
  readonly isAttached: boolean;
}

type MessageHandler = (from: PeerId, body: Uint8Array) => Verdict;
type RequestHandler = (from: PeerId, body: Uint8Array) => Promise<Uint8Array>;

export function createTransportSwitch(): TransportSwitch {
  let real: Transport | undefined;
  let off: () => void = () => undefined;
  const topics = new Map<Topic, MessageHandler>();
  const protocols = new Map<Protocol, RequestHandler>();
  const listeners = new Set<(peer: PeerId, connected: boolean) => void>();
  const alone = () =>
    new AppError("peer_unreachable", "this node is alone: it has no connection to others");

  return {
    get peerId() {
      return real?.peerId ?? "";
    },
    get isAttached() {
      return real !== undefined;
    },
    attach(next) {
      real = next;
      for (const [topic, handler] of topics) next.subscribe(topic, handler);
      for (const [protocol, handler] of protocols) next.handle(protocol, handler);
      off = next.onConnection((peer, connected) => {
        for (const listener of listeners) listener(peer, connected);
      });
    },
    async detach() {
      const last = real;
      real = undefined;
      off();
      await last?.close();
    },
    addresses: () => real?.addresses() ?? [],
    publish: async (topic, body) => real?.publish(topic, body),
    subscribe(topic, handler) {
      topics.set(topic, handler);
      real?.subscribe(topic, handler);
    },
    async request(to, protocol, body, options) {
      if (real === undefined) throw alone();
      return real.request(to, protocol, body, options);
    },
    handle(protocol, handler) {
      protocols.set(protocol, handler);
      real?.handle(protocol, handler);
    },
    setMembers: (members, removed) => real?.setMembers(members, removed),
    async dial(addresses, options) {
      if (real === undefined) throw alone();
      return real.dial(addresses, options);
    },
    connections: () => real?.connections() ?? [],
    onConnection(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    counters: () => real?.counters() ?? {},
    traffic: () => real?.traffic() ?? [],
    close: async () => real?.close(),
  };
}
