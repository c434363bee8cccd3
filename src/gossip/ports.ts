/**
 * What the parts of this folder need of each other and of the outside. Only `libp2p/` knows libp2p;
 * everything else runs against these interfaces, in the simulator as in the daemon.
 */
import type {
  ArtifactRecord,
  Catalog,
  ClusterConfig,
  Clock,
  Divergence,
  Entry,
  LivenessState,
  Log,
  Random,
  RecordKind,
  RecordValues,
  SwarmView,
  VoterConfig,
} from "../domain/index.ts";

/** libp2p peer id in its text form. */
export type PeerId = string;

/* ---- transport ------------------------------------------------------------------------------- */

/** What gossip does with a message: pass it on, drop it, or drop it and blame the sender. */
export type Verdict = "accept" | "ignore" | "reject";

export type Topic = "changes" | "liveness";

/** One protocol id each; a request is one message there and one back on a kept stream. */
export type Protocol =
  /** Join and hello: also answered to peers that are no members. */
  | "join"
  /** Failure detector. */
  | "probe"
  /** Registers: prepare, accept, dump. */
  | "register"
  /** Change feed and divergence. */
  | "feed"
  /** Swarm: have-maps, manifests and chunks. */
  | "swarm"
  /** Questions of the daemon: logs, credentials, details that live on one node. */
  | "ask"
  /** Runtime refs, which live on the sandbox's node. */
  | "refs"
  /** Scans and baselines of compat, which each node writes itself. */
  | "compat"
  /** The disk of one node: how full it is. */
  | "storage"
  /** Exports that another node passes on, a piece at a time. */
  | "bundle";

/** What went over one topic or protocol in one direction, since the transport started. */
export interface Traffic {
  readonly channel: Topic | Protocol;
  readonly direction: "sent" | "received";
  readonly messages: number;
  /** Of the bodies: without frames, encryption, and copies to several neighbours. */
  readonly bytes: number;
}

export interface RequestOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Messages are bytes; their schemas are the business of who sends them. Never delivers a message
 * of a peer that is no member, except "join".
 */
export interface Transport {
  readonly peerId: PeerId;
  /** Multiaddrs at which others reach this node, without the peer id. */
  addresses(): readonly string[];
  /** To all members, best effort; resolves when it has been handed to the network. */
  publish(topic: Topic, body: Uint8Array): Promise<void>;
  /** One handler a topic. `from` is who published it, who may not be the neighbour it came from. */
  subscribe(topic: Topic, handler: (from: PeerId, body: Uint8Array) => Verdict): void;
  /**
   * @throws AppError peer_unreachable (no connection, no answer in time, cut), not_a_member,
   *   node_removed, wire_invalid (too large, no frame); and what the handler there threw, with its
   *   code.
   */
  request(
    to: PeerId,
    protocol: Protocol,
    body: Uint8Array,
    options: RequestOptions,
  ): Promise<Uint8Array>;
  /** One handler a protocol. What it throws is thrown at the asking side. */
  handle(
    protocol: Protocol,
    handler: (from: PeerId, body: Uint8Array) => Promise<Uint8Array>,
  ): void;
  /** Who is a member and where it listens; others are cut off. */
  setMembers(
    members: ReadonlyMap<PeerId, readonly string[]>,
    removed: ReadonlyMap<PeerId, string>,
  ): void;
  /** Connects by address, for joining. @throws AppError peer_unreachable */
  dial(addresses: readonly string[], options: RequestOptions): Promise<PeerId>;
  connections(): readonly PeerId[];
  onConnection(listener: (peer: PeerId, connected: boolean) => void): () => void;
  /** Since start, by outcome: `changes:accepted`, `changes:rejected:schema`, `request:feed`, … */
  counters(): Readonly<Record<string, number>>;
  /** Requests and answers count alike: each is a message. */
  traffic(): readonly Traffic[];
  close(): Promise<void>;
}

/* ---- who is there ---------------------------------------------------------------------------- */

/** The member list as `cluster/config` has it, by node id and by peer id. */
export interface Members {
  readonly self: string;
  config(): ClusterConfig | undefined;
  /** Node ids of all members, sorted; only this node when it is alone. */
  nodes(): readonly string[];
  others(): readonly string[];
  has(nodeId: string): boolean;
  peerOf(nodeId: string): PeerId | undefined;
  nodeOf(peer: PeerId): string | undefined;
  isDrained(nodeId: string): boolean;
  voters(): VoterConfig | undefined;
  onChange(listener: () => void): () => void;
}

/** A catalog at one moment. */
export interface StateMark {
  /** State hash. */
  readonly h: string;
  /** Names the feed: another one when the catalog is not the one it was. */
  readonly feed: string;
  /** Of the newest change in it. */
  readonly seq: number;
}

/** What probes and their answers carry besides. */
export interface ProbeLoad {
  /** This node's catalog now; undefined: it has nothing to say. */
  tell(): StateMark | undefined;
  hear(peer: PeerId, mark: StateMark): void;
}

/** This node's opinion of the others: the failure detector's. */
export interface Liveness {
  stateOf(nodeId: string): LivenessState;
  /** Wall-clock milliseconds. */
  since(nodeId: string): number;
  /** Alive, or only suspected. Always true of this node itself. */
  isUp(nodeId: string): boolean;
  onChange(listener: (nodeId: string, state: LivenessState) => void): () => void;
  /** The two meet every few seconds anyway: so it costs no messages of its own. */
  carry(load: ProbeLoad): void;
}

/* ---- records --------------------------------------------------------------------------------- */

export type Change<K extends RecordKind> = (
  current: RecordValues[K] | undefined,
) => RecordValues[K] | null | undefined;

export interface RegisterCounts {
  /** Updates and reads of this node: `written`, `unchanged`, `no_quorum`, `refused`. */
  readonly updates: Readonly<Record<string, number>>;
  /** What this node did as a voter: `prepare:ok`, `accept:refused`, `accept:not_served`, … */
  readonly served: Readonly<Record<string, number>>;
}

export interface Registers {
  /**
   * One CASPaxos round trip pair: reads the latest accepted value from a majority of voters,
   * applies `change` (the new value, `null` for a tombstone, `undefined` to leave it), has a
   * majority accept it, merges it into the catalog, and answers the entry as it is then. `change`
   * may be called several times; what it throws is thrown here and nothing is written.
   * @param options.isNew the caller has just made the id, by chance: it is written without asking
   * @throws AppError no_quorum when no majority answered in time: the change may have happened
   */
  update<K extends RecordKind>(
    kind: K,
    id: string,
    change: Change<K>,
    options?: { timeoutMs?: number; signal?: AbortSignal; isNew?: boolean },
  ): Promise<Entry<K> | undefined>;
  /** The latest chosen value, confirmed by a majority. @throws AppError no_quorum */
  read<K extends RecordKind>(
    kind: K,
    id: string,
    options?: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Entry<K> | undefined>;
  /** What this voter serves: the newest configuration it knows, and whether it is active in it. */
  status(): { readonly number: number; readonly active: boolean };
  /** Since start. */
  counts(): RegisterCounts;
}

/* ---- sessions and leaders -------------------------------------------------------------------- */

/**
 * (epoch, operation number), compared as a pair; a node obeys only what is above all it has seen.
 */
export interface FenceToken {
  readonly epoch: number;
  readonly operation: number;
}

export interface Lease {
  readonly templateId: string;
  readonly epoch: number;
  /** By this node's own monotonic clock, margin included. */
  isValid(): boolean;
  /** A new token, above all before. @throws AppError leadership_lost */
  token(): FenceToken;
  /** Aborts when the leadership has ended. */
  readonly signal: AbortSignal;
}

export interface Leadership {
  /**
   * Claims the template when this node is the first live candidate and nobody leads it validly, or
   * answers the lease that it has. Undefined: another node leads or is to lead.
   * @throws AppError no_quorum
   */
  acquire(templateId: string): Promise<Lease | undefined>;
  /** The lease when this node leads the template now. */
  lease(templateId: string): Lease | undefined;
  release(templateId: string): Promise<void>;
  /** Hands over everything: for draining and for a daemon that stops. */
  releaseAll(): Promise<void>;
  /**
   * Tells which templates have become free or have lost a leader that this node could be next of.
   */
  onOpportunity(listener: (templateId: string) => void): () => void;
}

/* ---- replication ----------------------------------------------------------------------------- */

export interface PeerSync {
  readonly nodeId: string;
  /** Null before the first comparison. */
  readonly inSync: boolean | null;
  /** Wall-clock milliseconds of the last comparison; 0 before it. */
  readonly comparedAt: number;
  /** Since when the hashes have differed, wall clock; 0 while they agree. */
  readonly divergedSince: number;
  /** Milliseconds from a change being made there to its being applied here, moving median. */
  readonly lagMs: number | undefined;
}

export interface ReplicationCounts {
  /** Entries of others: `merged`, or the reason why they were refused. */
  readonly entries: Readonly<Record<string, number>>;
  /** Comparisons that this node began: `in_sync`, `differs`, `failed`. */
  readonly comparisons: Readonly<Record<string, number>>;
  /** Tombstones that were dropped. */
  readonly purged: number;
}

export interface Replication {
  peers(): readonly PeerSync[];
  /** Since start. */
  counts(): ReplicationCounts;
  divergence(): readonly Divergence[];
  /** Resolves when everything that the peer had at the call is here. For joining and for tests. */
  syncWith(nodeId: string, options: RequestOptions): Promise<void>;
}

/* ---- swarm ----------------------------------------------------------------------------------- */

export interface Swarm {
  /**
   * Fetches the artifact's bytes from whoever holds chunks of it and publishes them in the store;
   * returns at once when they are there. Goes on where an earlier fetch was cut.
   * @throws AppError fetch_failed when no holder is left, disk_space_low, and the signal's reason
   */
  fetch(
    artifact: ArtifactRecord,
    options: { signal: AbortSignal; onProgress?: (done: number, total: number) => void },
  ): Promise<void>;
  views(): readonly SwarmView[];
  /** Since start: `sent_bytes`, `received_bytes`, `chunk_mismatch`, `wire_invalid`. */
  counters(): Readonly<Record<string, number>>;
}

/* ---- what every part is given ---------------------------------------------------------------- */

export interface Parts {
  readonly transport: Transport;
  readonly members: Members;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}
