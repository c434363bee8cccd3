/** Replication (design §3): eager spreading for speed, the change feed so that all converge. */
import { CLUSTER, untilTick, type Divergence, type EntryKind } from "../../domain/index.ts";
import { pickOne } from "../pick.ts";
import type {
  Liveness,
  PeerId,
  PeerSync,
  Replication,
  ReplicationCounts,
  RequestOptions,
  StateMark,
} from "../ports.ts";
import { Eager } from "./eager.ts";
import { Feed, assertPeer } from "./feed.ts";
import { Intake, type IntakeParts } from "./intake.ts";
import { batchSchema, decode } from "./messages.ts";
import { Purge, type PurgeParts } from "./purge.ts";

export type ReplicationParts = PurgeParts & IntakeParts & { readonly liveness: Liveness };

/**
 * Without comparisons for so long, one is made with a peer chosen by chance; with its jitter of a
 * quarter below 5 s. Mostly none is due: probes carry state hashes.
 */
const ROUND_MS = 3_500;
/** A difference that gossip did not close by itself is pulled after this. */
const SETTLE_MS = 500;
/** From one peer, at most so often. */
const PULL_GAP_MS = 1_000;
const REQUEST_MS = 3_000;
/** Differences that probes tell of are pulled at most so often. */
const PROBE_GAP_MS = 1_000;
/** A difference that lasts longer is reported. */
const DIVERGED_MS = 10_000;
const LAGS_KEPT = 21;

interface PeerState {
  inSync: boolean | null;
  comparedAt: number;
  divergedSince: number;
  pulledAtMs: number;
  lags: number[];
}

export function createReplication(
  parts: ReplicationParts,
): Replication & { start(): void; stop(): Promise<void> } {
  return new Replicator(parts);
}

class Replicator implements Replication {
  readonly #parts: ReplicationParts;
  readonly #eager: Eager;
  readonly #intake: Intake;
  readonly #feed: Feed;
  readonly #purge: Purge;
  readonly #peers = new Map<string, PeerState>();
  readonly #planned = new Map<PeerId, { cancel(): void }>();
  readonly #off: (() => void)[] = [];
  #round: { cancel(): void } | undefined;
  /** When probes last told of a peer's state, and when that was reason to pull (monotonic). */
  #heardAtMs = -Infinity;
  #probedAtMs = -Infinity;
  #stopped = false;

  constructor(parts: ReplicationParts) {
    this.#parts = parts;
    this.#eager = new Eager(parts);
    this.#intake = new Intake(parts);
    this.#purge = new Purge(parts);
    this.#feed = new Feed(parts, this.#intake, {
      onPoke: (peer) => this.#plan(peer, 0),
      onAgreement: (peer) => this.#agreed(peer),
      settled: (keys) => this.#purge.settled(keys),
    });
    parts.transport.subscribe("changes", (from, body) => this.#receive(from, body));
    parts.liveness.carry({
      tell: () => (this.#stopped ? undefined : this.#feed.mark()),
      hear: (peer, mark) => this.#hear(peer, mark),
    });
  }

  start(): void {
    const { catalog, transport, members } = this.#parts;
    this.#off.push(
      catalog.subscribe((entry) => {
        if (!this.#intake.cameIn(entry)) this.#eager.push(entry);
      }),
      transport.onConnection((peer, connected) => {
        if (connected) this.#plan(peer, 0);
      }),
      members.onChange(() => {
        this.#feed.forgetFruitless();
        void this.#dropStrangers();
      }),
    );
    for (const peer of transport.connections()) this.#plan(peer, 0);
    this.#nextRound();
    this.#purge.start();
    void this.#dropStrangers();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#round?.cancel();
    for (const timer of this.#planned.values()) timer.cancel();
    for (const off of this.#off) off();
    this.#eager.stop();
    this.#purge.stop();
  }

  peers(): readonly PeerSync[] {
    return this.#parts.members.others().map((nodeId) => {
      const state = this.#peers.get(nodeId);
      return {
        nodeId,
        inSync: state?.inSync ?? null,
        comparedAt: state?.comparedAt ?? 0,
        divergedSince: state?.divergedSince ?? 0,
        lagMs: median(state?.lags ?? []),
      };
    });
  }

  counts(): ReplicationCounts {
    return {
      entries: this.#intake.counts(),
      comparisons: this.#feed.comparisons(),
      purged: this.#purge.purged,
    };
  }

  divergence(): readonly Divergence[] {
    const { members, clock } = this.#parts;
    return members.others().flatMap((nodeId) => {
      const state = this.#peers.get(nodeId);
      const peer = members.peerOf(nodeId);
      const since = state?.divergedSince ?? 0;
      if (peer === undefined || since === 0 || clock.now() - since < DIVERGED_MS) return [];
      const { count, entries } = this.#feed.difference(peer) ?? { count: 0, entries: [] };
      return [{ node_id: nodeId, since: new Date(since).toISOString(), count, entries }];
    });
  }

  async syncWith(nodeId: string, options: RequestOptions): Promise<void> {
    const peer = assertPeer(this.#parts.members.peerOf(nodeId), nodeId);
    await this.#compare(peer, options, true);
  }

  #receive(from: PeerId, body: Uint8Array): "accept" | "ignore" | "reject" {
    const { members, catalog, log } = this.#parts;
    const signer = members.nodeOf(from);
    if (signer === undefined) return "ignore";
    let batch;
    try {
      batch = decode(batchSchema, body);
    } catch {
      this.#intake.malformed(signer);
      return "reject";
    }
    const { good, bad } = this.#intake.check(batch.e, signer, signer);
    for (const { o, at } of batch.e) {
      if (at !== undefined && (o === signer || o === CLUSTER)) this.#noteLag(signer, at);
    }
    this.#intake
      .merge(good)
      .then(() => {
        if (catalog.stateHash() !== batch.h) this.#plan(from, SETTLE_MS, batch.h);
      })
      .catch((error: unknown) => log.debug("a batch could not be merged", { err: error }));
    return bad ? "reject" : "accept";
  }

  #noteLag(nodeId: string, at: number): void {
    const { lags } = this.#state(nodeId);
    lags.push(Math.max(0, this.#parts.clock.now() - at));
    if (lags.length > LAGS_KEPT) lags.shift();
  }

  #state(nodeId: string): PeerState {
    const known = this.#peers.get(nodeId);
    if (known !== undefined) return known;
    const state = {
      inSync: null,
      comparedAt: 0,
      divergedSince: 0,
      pulledAtMs: -Infinity,
      lags: [],
    };
    this.#peers.set(nodeId, state);
    return state;
  }

  /** Compares with the peer after a while, unless its hash has become ours by then. */
  #plan(peer: PeerId, milliseconds: number, hash?: string): void {
    const { members, clock, catalog, log } = this.#parts;
    const nodeId = members.nodeOf(peer);
    if (this.#stopped || nodeId === undefined || this.#planned.has(peer)) return;
    const pauseMs = PULL_GAP_MS * this.#feed.patience(peer);
    const gapMs = this.#state(nodeId).pulledAtMs + pauseMs - clock.monotonic();
    const timer = clock.after(Math.max(0, milliseconds, gapMs), () => {
      this.#planned.delete(peer);
      if (this.#stopped || (hash !== undefined && catalog.stateHash() === hash)) return;
      this.#compare(peer, { timeoutMs: REQUEST_MS }).catch((error: unknown) => {
        log.debug("a peer's changes could not be pulled", { node: nodeId, err: error });
      });
    });
    this.#planned.set(peer, timer);
  }

  /** What a probe or its answer told of the peer's catalog. */
  #hear(peer: PeerId, mark: StateMark): void {
    if (this.#stopped) return;
    const now = this.#parts.clock.monotonic();
    this.#heardAtMs = now;
    if (this.#feed.heard(peer, mark)) return this.#agreed(peer);
    if (now - this.#probedAtMs < PROBE_GAP_MS) return;
    this.#probedAtMs = now;
    this.#plan(peer, SETTLE_MS, mark.h);
  }

  #agreed(peer: PeerId): void {
    const nodeId = this.#parts.members.nodeOf(peer);
    if (nodeId === undefined) return;
    const state = this.#state(nodeId);
    state.inSync = true;
    state.comparedAt = this.#parts.clock.now();
    state.divergedSince = 0;
  }

  async #compare(peer: PeerId, options: RequestOptions, isAnew = false): Promise<void> {
    const { members, clock } = this.#parts;
    const nodeId = members.nodeOf(peer);
    if (nodeId === undefined) return;
    const state = this.#state(nodeId);
    state.pulledAtMs = clock.monotonic();
    const { inSync } = isAnew
      ? await this.#feed.compareAnew(peer, options)
      : await this.#feed.compare(peer, options);
    state.inSync = inSync;
    state.comparedAt = clock.now();
    if (inSync) state.divergedSince = 0;
    else if (state.divergedSince === 0) state.divergedSince = clock.now();
  }

  #nextRound(): void {
    const { clock, random } = this.#parts;
    if (this.#stopped) return;
    const [byte = 0] = random.bytes(1);
    const waitMs = ROUND_MS * (0.75 + byte / 512);
    // While probes tell there is little to do, and no reason to wake for it alone.
    const isTold = () => clock.monotonic() - this.#heardAtMs < ROUND_MS;
    this.#round = clock.after(isTold() ? untilTick(clock, waitMs) : waitMs, () => {
      const peer = isTold() ? undefined : pickOne(random, this.#reachable());
      if (peer !== undefined) this.#plan(peer, 0);
      this.#nextRound();
    });
  }

  #reachable(): PeerId[] {
    const { members, liveness, transport } = this.#parts;
    const connected = new Set(transport.connections());
    return members.others().flatMap((nodeId) => {
      const peer = members.peerOf(nodeId);
      return peer !== undefined && connected.has(peer) && liveness.isUp(nodeId) ? [peer] : [];
    });
  }

  /** A removed node's facts go with its member record. */
  async #dropStrangers(): Promise<void> {
    const { catalog, members, log } = this.#parts;
    if (members.config() === undefined) return;
    const gone: { owner: string; kind: EntryKind; id: string }[] = [];
    for (const kind of FACT_KINDS) {
      for (const { owner, id } of catalog.list(kind)) {
        if (!members.has(owner) && owner !== members.self) gone.push({ owner, kind, id });
      }
    }
    await catalog.purge(gone).catch((error: unknown) => {
      log.debug("facts of former members stay for now", { err: error });
    });
  }
}

const FACT_KINDS = ["node", "replica", "holding", "job-progress", "refs"] as const;

function median(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
