/** The `Transport` over libp2p: TCP, pre-shared key, noise, yamux, identify, gossipsub. */
import type { GossipSub } from "@chainsafe/libp2p-gossipsub";
import { noise } from "@libp2p/noise";
import { identify } from "@libp2p/identify";
import type { Connection, PrivateKey, Stream } from "@libp2p/interface";
import { peerIdFromString } from "@libp2p/peer-id";
import { tcp } from "@libp2p/tcp";
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr";
import { createLibp2p, type Libp2p } from "libp2p";
import { AppError, errorText, type Clock, type Log, type Random } from "../../domain/index.ts";
import { Counts } from "../counts.ts";
import type {
  PeerId,
  Protocol,
  RequestOptions,
  Topic,
  Traffic,
  Transport,
  Verdict,
} from "../ports.ts";
import { createThrottle } from "../throttle.ts";
import { DirectStreams, type Message } from "./direct.ts";
import { Caller, FRAME_BYTES, asError, serve } from "./frames.ts";
import { muxer } from "./muxer.ts";
import { networkKey } from "./network-key.ts";
import { MESSAGES, PROTOCOLS, protocolId } from "./protocols.ts";
import { TOPIC_PREFIX, followTopics, forgetScores, pubsub } from "./pubsub.ts";
import { TrafficMeter } from "./traffic.ts";
import { warmCipher } from "./warm-cipher.ts";

export interface TransportOptions {
  readonly privateKey: PrivateKey;
  /** 64 hex digits. */
  readonly presharedKey: string;
  readonly listen: readonly string[];
  /** What others are told instead of the addresses that this node listens on. */
  readonly announce: readonly string[];
  /** True while join tokens are known: then a peer that is no member may knock. */
  readonly admitStrangers: () => boolean;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
}

type Handler = (from: PeerId, body: Uint8Array) => Promise<Uint8Array>;

/** A batch of changes is at most half of it. */
const MESSAGE_BYTES = 256 * 1024;
/** Every member keeps one to every other: libp2p's own 300 would cut a larger cluster's again. */
const CONNECTIONS_MOST = 10_000;
const STRANGERS_MOST = 16;
const STRANGER_MS = 30_000;
const STRANGER_FRAME_BYTES = 64 * 1024;
/** Answers under way go out before a connection that is not wanted any more is cut. */
const CUT_MS = 1_000;
const REDIAL_MS = { first: 1_000, most: 30_000, second: 3_000 } as const;
const DIAL_MS = 5_000;

export async function createTransport(options: TransportOptions): Promise<Transport> {
  const transport = new Libp2pTransport(options);
  await transport.start();
  return transport;
}

/** Once a process. */
let cipherWarm = false;

class Libp2pTransport implements Transport {
  readonly #options: TransportOptions;
  readonly #handlers = new Map<Protocol, Handler>();
  readonly #topics = new Map<Topic, (from: PeerId, body: Uint8Array) => Verdict>();
  /** By peer and protocol: the stream that carries this node's requests, or its opening. */
  readonly #callers = new Map<string, Promise<Caller>>();
  readonly #counts = new Counts();
  readonly #traffic = new TrafficMeter();
  readonly #listeners = new Set<(peer: PeerId, connected: boolean) => void>();
  /** Libp2p knows them too, and writes out all their names at each question. */
  readonly #connected = new Set<PeerId>();
  readonly #redials = new Map<PeerId, { cancel(): void }>();
  #members: ReadonlyMap<PeerId, readonly string[]> = new Map();
  #removed: ReadonlyMap<PeerId, string> = new Map();
  /** Addresses at which another network key was found, and when (monotonic). */
  readonly #foreign = new Map<string, number>();
  readonly #mayTell: (key: string) => boolean;
  readonly #direct: DirectStreams;
  #node: Libp2p<{ pubsub: GossipSub }> | undefined;
  #closed = false;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#mayTell = createThrottle(options.clock);
    this.#direct = new DirectStreams({
      clock: options.clock,
      open: (peer) => this.#newStream(peer, MESSAGES),
      onUnsent: (message) => void this.#gossip(message).catch(() => undefined),
    });
  }

  async start(): Promise<void> {
    const { privateKey, presharedKey, listen, announce, log } = this.#options;
    if (!cipherWarm) warmCipher();
    cipherWarm = true;
    try {
      this.#node = await createLibp2p({
        privateKey,
        addresses: { listen: [...listen], announce: [...announce] },
        transports: [tcp()],
        connectionProtector: networkKey(presharedKey, (address, direction) =>
          this.#onForeign(address, direction),
        ),
        connectionEncrypters: [noise()],
        streamMuxers: [muxer()],
        connectionGater: {
          denyDialMultiaddr: () => false,
          denyInboundEncryptedConnection: (peer) => this.#isDenied(peer.toString()),
        },
        connectionManager: {
          maxConnections: CONNECTIONS_MOST,
          inboundConnectionThreshold: 1_000,
          maxIncomingPendingConnections: 100,
        },
        // Its ping of every connection is most of what an idle node would cost; the failure
        // detector does that work.
        connectionMonitor: { enabled: false },
        services: {
          identify: identify({ runOnConnectionOpen: true }),
          pubsub: pubsub((peer) => this.#members.has(peer)),
        },
      });
    } catch (cause) {
      throw new AppError(
        "config_invalid",
        `p2p_listen = ${listen.join(", ")}: this node cannot listen there`,
        { cause },
      );
    }
    const node = this.node;
    for (const protocol of PROTOCOLS) {
      await node.handle(
        protocolId(protocol),
        (stream, connection) => this.#serve(protocol, stream, connection),
        { maxInboundStreams: 4, maxOutboundStreams: 4 },
      );
    }
    await node.handle(protocolId(MESSAGES), (stream, { remotePeer }) => {
      const from = remotePeer.toString();
      this.#direct.receive(
        stream,
        () => MESSAGE_BYTES,
        (message) => this.#hear(from, message),
      );
    });
    node.addEventListener("peer:connect", (event) => this.#onPeer(event.detail.toString(), true));
    node.addEventListener("peer:disconnect", (event) =>
      this.#onPeer(event.detail.toString(), false),
    );
    followTopics(node.services.pubsub, (topic, from, body) => this.#judge(topic, from, body));
    log.info("listening for members", { addresses: this.addresses().join(", ") });
  }

  get node(): Libp2p<{ pubsub: GossipSub }> {
    if (this.#node === undefined) throw new AppError("peer_unreachable", "libp2p has not started");
    return this.#node;
  }

  get peerId(): PeerId {
    return this.node.peerId.toString();
  }

  addresses(): readonly string[] {
    return this.node.getMultiaddrs().map((address) => withoutPeer(address));
  }

  async publish(topic: Topic, body: Uint8Array): Promise<void> {
    if (this.#closed) return;
    if (body.length > MESSAGE_BYTES) {
      throw new AppError("wire_invalid", `a message of ${body.length} bytes is over the limit`);
    }
    this.#counts.add(`${topic}:published`);
    this.#traffic.add(topic, "sent", body);
    const others = [...this.#members.keys()].filter((peer) => peer !== this.peerId);
    const message = { topic, body };
    if (!this.#direct.publish(message, others)) await this.#gossip(message);
  }

  subscribe(topic: Topic, handler: (from: PeerId, body: Uint8Array) => Verdict): void {
    this.#topics.set(topic, handler);
  }

  handle(protocol: Protocol, handler: Handler): void {
    this.#handlers.set(protocol, handler);
  }

  async request(
    to: PeerId,
    protocol: Protocol,
    body: Uint8Array,
    { timeoutMs, signal }: RequestOptions,
  ): Promise<Uint8Array> {
    signal?.throwIfAborted();
    if (this.#closed) throw new AppError("peer_unreachable", "this node is stopping");
    if (to === this.peerId) return this.#handle(protocol, to, body);
    const { clock } = this.#options;
    const began = clock.monotonic();
    const caller = await this.#within(this.#caller(to, protocol), to, timeoutMs, signal);
    const leftMs = Math.max(1, timeoutMs - (clock.monotonic() - began));
    this.#counts.add(`request:${protocol}`);
    this.#traffic.add(protocol, "sent", body);
    const answer = await caller.request(body, leftMs, signal);
    this.#direct.heard(to);
    this.#traffic.add(protocol, "received", answer);
    return answer;
  }

  /** The opening is shared; how long one waits for it is the business of each. */
  #within<T>(
    opening: Promise<T>,
    to: PeerId,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = () => finish(() => reject(asError(signal?.reason)));
      const timer = this.#options.clock.after(timeoutMs, () =>
        finish(() =>
          reject(new AppError("peer_unreachable", `no connection to ${to} in ${timeoutMs} ms`)),
        ),
      );
      const finish = (settle: () => void) => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      signal?.addEventListener("abort", onAbort);
      opening.then(
        (value) => finish(() => resolve(value)),
        (error: unknown) => finish(() => reject(asError(error))),
      );
    });
  }

  setMembers(
    members: ReadonlyMap<PeerId, readonly string[]>,
    removed: ReadonlyMap<PeerId, string>,
  ): void {
    const before = this.#members;
    this.#members = members;
    this.#removed = removed;
    if (this.#node !== undefined) forgetScores(this.#node.services.pubsub);
    for (const peer of this.connections()) {
      // A stranger that is joining keeps the time it was given when it connected.
      const wasWanted = before.size === 0 || before.has(peer);
      if (wasWanted && !members.has(peer)) this.#cutLater(peer, CUT_MS);
    }
    for (const peer of members.keys()) this.#keepConnected(peer);
  }

  async dial(addresses: readonly string[], { timeoutMs }: RequestOptions): Promise<PeerId> {
    const causes: string[] = [];
    let foreign = false;
    for (const address of addresses) {
      const began = this.#options.clock.monotonic();
      const target = multiaddr(address);
      try {
        const connection = await this.node.dial(target, {
          signal: AbortSignal.timeout(timeoutMs),
        });
        return connection.remotePeer.toString();
      } catch (error) {
        const isForeign = (this.#foreign.get(withoutPeer(target)) ?? -1) >= began;
        foreign ||= isForeign;
        const reason = isForeign ? "a node of another cluster answers" : errorText(error);
        causes.push(`${withoutPeer(target)}: ${reason}`);
      }
    }
    throw foreign
      ? new AppError("cluster_mismatch", `the cluster is not where it was: ${causes.join("; ")}`)
      : new AppError(
          "peer_unreachable",
          `none of the addresses lets this node in: ${causes.join("; ")}`,
        );
  }

  connections(): readonly PeerId[] {
    return [...this.#connected];
  }

  onConnection(listener: (peer: PeerId, connected: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  counters(): Readonly<Record<string, number>> {
    return this.#counts.all();
  }

  traffic(): readonly Traffic[] {
    return this.#traffic.all();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#redials.values()) timer.cancel();
    const stopped = Promise.resolve(this.#node?.stop());
    await Promise.race([stopped, this.#options.clock.sleep(2_000)]).catch(() => undefined);
  }

  /* ---- gossip ------------------------------------------------------------------------------ */

  #judge(topic: Topic, from: PeerId, body: Uint8Array): Verdict {
    this.#traffic.add(topic, "received", body);
    if (!this.#members.has(from)) {
      this.#counts.add(`${topic}:ignored:stranger`);
      return "ignore";
    }
    if (body.length > MESSAGE_BYTES) {
      this.#counts.add(`${topic}:rejected:size`);
      return "reject";
    }
    const verdict = this.#topics.get(topic)?.(from, body) ?? "ignore";
    this.#counts.add(`${topic}:${verdict}ed`.replace("ignoreed", "ignored"));
    return verdict;
  }

  async #gossip({ topic, body }: Message): Promise<void> {
    if (!this.#closed) await this.node.services.pubsub.publish(TOPIC_PREFIX + topic, body);
  }

  /** What came straight from a member. */
  #hear(from: PeerId, { topic, body }: Message): void {
    this.#direct.heard(from);
    try {
      this.#judge(topic, from, body);
    } catch (error) {
      // Not the sender's fault: its stream goes on.
      this.#options.log.error("a message could not be handled", { topic, err: error });
    }
  }

  /* ---- requests ---------------------------------------------------------------------------- */

  #caller(to: PeerId, protocol: Protocol): Promise<Caller> {
    const key = `${to} ${protocol}`;
    const known = this.#callers.get(key);
    if (known !== undefined) return known;
    const opening = this.#open(to, protocol, () => {
      if (this.#callers.get(key) === opening) this.#callers.delete(key);
    });
    this.#callers.set(key, opening);
    opening.catch(() => {
      if (this.#callers.get(key) === opening) this.#callers.delete(key);
    });
    return opening;
  }

  async #open(to: PeerId, protocol: Protocol, onEnd: () => void): Promise<Caller> {
    try {
      const stream = await this.#newStream(to, protocol);
      return new Caller(to, stream, this.#options.clock, onEnd);
    } catch (cause) {
      if (cause instanceof AppError) throw cause;
      throw new AppError("peer_unreachable", `peer ${to} cannot be reached`, { cause });
    }
  }

  async #newStream(to: PeerId, protocol: Protocol | typeof MESSAGES): Promise<Stream> {
    const signal = AbortSignal.timeout(DIAL_MS);
    const [open] = this.node.getConnections(peerIdFromString(to));
    const connection = open ?? (await this.#dialMember(to, DIAL_MS));
    return connection.newStream(protocolId(protocol), { signal });
  }

  async #dialMember(to: PeerId, timeoutMs: number): Promise<Connection> {
    const addresses = this.#members.get(to) ?? [];
    if (addresses.length === 0) {
      throw new AppError("peer_unreachable", `peer ${to} is not connected`);
    }
    const targets = addresses.map((address) =>
      multiaddr(`${withoutPeer(multiaddr(address))}/p2p/${to}`),
    );
    return this.node.dial(targets, { signal: AbortSignal.timeout(timeoutMs) });
  }

  #serve(protocol: Protocol, stream: Stream, connection: Connection): void {
    const from = connection.remotePeer.toString();
    serve(
      stream,
      async (body) => {
        this.#direct.heard(from);
        this.#traffic.add(protocol, "received", body);
        const answer = await this.#handle(protocol, from, body);
        this.#traffic.add(protocol, "sent", answer);
        return answer;
      },
      (reason) => {
        if (reason instanceof AppError) this.#counts.add(`request:refused:${reason.code}`);
      },
      // Who is no member has little to say; it may become one while the stream is open.
      () =>
        this.#members.has(from) || this.#members.size === 0 ? FRAME_BYTES : STRANGER_FRAME_BYTES,
    );
  }

  async #handle(protocol: Protocol, from: PeerId, body: Uint8Array): Promise<Uint8Array> {
    const isMember = this.#members.has(from) || from === this.peerId;
    if (!isMember && protocol !== "join") {
      this.#counts.add(`request:refused:stranger`);
      const removed = this.#removed.get(from);
      const refusal =
        removed === undefined
          ? new AppError("not_a_member", `${from} is no member of this cluster`)
          : new AppError("node_removed", removed);
      if (this.#mayTell(`${from} ${refusal.code}`)) {
        const fields = { peer: from, protocol, code: refusal.code, reason: refusal.message };
        this.#options.log.warn("a request of a node that is no member was refused", fields);
      }
      throw refusal;
    }
    const handler = this.#handlers.get(protocol);
    if (handler === undefined) {
      throw new AppError("not_found", `nobody answers ${protocol} here`);
    }
    return handler(from, body);
  }

  /* ---- connections ------------------------------------------------------------------------- */

  #onForeign(address: string, direction: "inbound" | "outbound"): void {
    const plain = withoutPeer(multiaddr(address));
    this.#counts.add(`connection:foreign:${direction}`);
    if (direction === "outbound") this.#foreign.set(plain, this.#options.clock.monotonic());
    // Ports of callers change with each call.
    if (!this.#mayTell(`foreign ${plain.replace(/\/tcp\/\d+$/, "")}`)) return;
    this.#options.log.warn(
      "a connection was refused: the other side has another network key, so it is of another " +
        "cluster or no node at all",
      { address: plain, direction, code: "cluster_mismatch" },
    );
  }

  #isDenied(peer: PeerId): boolean {
    if (this.#members.has(peer)) return false;
    // A node without members is about to join: it is the one that dials.
    const strangers = this.connections().filter((one) => !this.#members.has(one));
    const removed = strangers.filter((one) => this.#removed.has(one)).length;
    // Those that were removed and come to hear it must not keep others from joining.
    if (this.#removed.has(peer)) return removed >= STRANGERS_MOST;
    return strangers.length - removed >= STRANGERS_MOST || !this.#options.admitStrangers();
  }

  #onPeer(peer: PeerId, connected: boolean): void {
    if (connected) this.#connected.add(peer);
    else this.#connected.delete(peer);
    this.#direct.onPeer(peer, connected);
    if (connected && this.#members.size > 0 && !this.#members.has(peer)) {
      this.#cutLater(peer, STRANGER_MS);
    }
    if (!connected) {
      for (const key of [...this.#callers.keys()]) {
        if (key.startsWith(`${peer} `)) this.#callers.delete(key);
      }
      this.#keepConnected(peer);
    }
    for (const listener of [...this.#listeners]) listener(peer, connected);
  }

  #cutLater(peer: PeerId, milliseconds: number): void {
    this.#options.clock.after(milliseconds, () => {
      if (this.#closed || this.#members.has(peer)) return;
      this.node.hangUp(peerIdFromString(peer)).catch(() => undefined);
    });
  }

  /** Dials a member that is not connected, again and again; the lower peer id begins. */
  #keepConnected(peer: PeerId, pauseMs = 0): void {
    const { clock, random } = this.#options;
    if (this.#closed || peer === this.peerId || !this.#members.has(peer)) return;
    if (this.#redials.has(peer)) return;
    const [byte = 0] = random.bytes(1);
    const waitMs =
      (pauseMs === 0 && this.peerId > peer ? REDIAL_MS.second : pauseMs) * (1 + byte / 512);
    const timer = clock.after(waitMs, () => {
      this.#redials.delete(peer);
      if (this.#closed || !this.#members.has(peer) || this.#isConnected(peer)) return;
      this.#dialMember(peer, DIAL_MS).catch(() => {
        this.#keepConnected(peer, Math.min(Math.max(pauseMs * 2, REDIAL_MS.first), REDIAL_MS.most));
      });
    });
    this.#redials.set(peer, timer);
  }

  #isConnected(peer: PeerId): boolean {
    return this.node.getConnections(peerIdFromString(peer)).length > 0;
  }
}

const withoutPeer = (address: Multiaddr): string => address.toString().replace(/\/p2p\/[^/]+$/, "");
