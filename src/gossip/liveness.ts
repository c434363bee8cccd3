/**
 * Failure detector after SWIM (Das, Gupta, Motivala 2002) with Lifeguard's lessons: each period one
 * probe of the next member of a shuffled ring, indirect probes when it does not answer, then a
 * suspicion that the suspect can refute. Cost per node does not depend on the number of nodes.
 *
 * A member that was never heard starts as alive, and this node does not suspect it for GRACE_MS.
 */
import { z } from "zod";
import {
  AppError,
  errorText,
  LIVENESS_STATES,
  overrides,
  retransmits,
  suspicionMs,
  untilTick,
  type LivenessClaim,
  type LivenessState,
} from "../domain/index.ts";
import { decodeJson, encodeJson } from "./json-body.ts";
import type { Liveness, Parts, PeerId, ProbeLoad, Verdict } from "./ports.ts";
import { stateAnswerSchema } from "./sync/messages.ts";

const PERIOD_MS = 1_000;
/** Between two rounds: longer than what a busy host does to a process. */
const STOOD_STILL_MS = 5_000;
/** Until the next tick, at which this node wakes anyway: a timer wakes it also when cancelled. */
const ANSWER_MS = 1_000;
const HELPER_MS = 500;
const HELPERS = 3;
const CLAIMS_PER_MESSAGE = 8;
const GRACE_MS = 5_000;
/** Every so many periods one dead member is probed, so that it comes back by itself. */
const DEAD_EVERY = 5;
/** Lifeguard: a node whose own probes fail waits up to this many times longer. */
const HEALTH_MAX = 4;
const BODY_BYTES = 8_192;
const INCARNATION_KEY = "liveness.incarnation";

const claimSchema = z.object({
  node: z.string().max(256),
  state: z.enum(LIVENESS_STATES),
  incarnation: z
    .number()
    .int()
    .nonnegative()
    .max(2 ** 48),
  origin: z.string().max(256),
});
const probeSchema = z.looseObject({
  v: z.literal(1),
  incarnation: z
    .number()
    .int()
    .nonnegative()
    .max(2 ** 48),
  /** Node id to probe on behalf of the sender. */
  target: z.string().max(256).optional(),
  state: stateAnswerSchema.optional(),
  claims: z.array(claimSchema).max(CLAIMS_PER_MESSAGE + 1),
});
const ackSchema = z.looseObject({
  v: z.literal(1),
  /** Of an indirect probe: whether the target answered. */
  ok: z.boolean(),
  state: stateAnswerSchema.optional(),
  incarnation: z
    .number()
    .int()
    .nonnegative()
    .max(2 ** 48),
  claims: z.array(claimSchema).max(CLAIMS_PER_MESSAGE + 1),
});
const newsSchema = z.looseObject({ v: z.literal(1), claims: z.array(claimSchema).max(8) });

interface Peer {
  state: LivenessState;
  incarnation: number;
  since: number;
  knownAt: number;
  heard: boolean;
  origins: Set<string>;
  suspectedAt: number;
  timer: { cancel(): void } | undefined;
}

const encode = (body: object) => encodeJson({ v: 1, ...body });
const decode = <T>(schema: z.ZodType<T>, body: Uint8Array): T =>
  decodeJson(schema, body, "a liveness message", BODY_BYTES);

class Detector implements Liveness {
  readonly #parts: Parts;
  readonly #peers = new Map<string, Peer>();
  readonly #listeners = new Set<(nodeId: string, state: LivenessState) => void>();
  readonly #queue = new Map<string, { claim: LivenessClaim; left: number }>();
  readonly #probing = new Set<string>();
  readonly #loggedAt = new Map<PeerId, number>();
  readonly #startedWall: number;
  #ring: string[] = [];
  #incarnation = 0;
  #health = 0;
  #round = 0;
  #lastTick = 0;
  #running = false;
  #ready = false;
  #timer: { cancel(): void } | undefined;
  #off: (() => void)[] = [];
  #load: ProbeLoad | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#startedWall = parts.clock.now();
    this.#syncMembers();
    parts.transport.handle("probe", (from, body) => this.#onProbe(from, body));
    parts.transport.subscribe("liveness", (from, body) => this.#onNews(from, body));
  }

  stateOf(nodeId: string): LivenessState {
    if (nodeId === this.#parts.members.self) return "alive";
    return this.#peers.get(nodeId)?.state ?? "dead";
  }

  since(nodeId: string): number {
    return this.#peers.get(nodeId)?.since ?? this.#startedWall;
  }

  isUp(nodeId: string): boolean {
    return this.stateOf(nodeId) !== "dead";
  }

  onChange(listener: (nodeId: string, state: LivenessState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  carry(load: ProbeLoad): void {
    this.#load = load;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    const { clock, members, transport, log } = this.#parts;
    for (const peer of this.#peers.values()) peer.knownAt = clock.monotonic();
    this.#off = [
      members.onChange(() => this.#syncMembers()),
      transport.onConnection((peer, connected) => {
        const node = members.nodeOf(peer);
        if (!connected && node !== undefined && this.isUp(node)) void this.#probe(node);
      }),
    ];
    this.#restore()
      .then(() => {
        this.#ready = true;
        this.#lastTick = clock.monotonic();
        if (this.#running) this.#tickLater();
      })
      .catch((error: unknown) =>
        log.error("failure detector did not start", { reason: errorText(error) }),
      );
  }

  stop(): void {
    this.#running = false;
    this.#ready = false;
    this.#timer?.cancel();
    for (const peer of this.#peers.values()) peer.timer?.cancel();
    for (const off of this.#off.splice(0)) off();
  }

  async #restore(): Promise<void> {
    const stored = await this.#parts.catalog.table("setting").get(INCARNATION_KEY);
    this.#incarnation = (typeof stored === "number" ? stored : 0) + 1;
    await this.#persist();
  }

  async #persist(): Promise<void> {
    const write = { table: "setting", key: INCARNATION_KEY, value: this.#incarnation } as const;
    await this.#parts.catalog.merge([], { local: [write], sync: true });
  }

  #syncMembers(): void {
    const { members, clock } = this.#parts;
    const others = new Set(members.others());
    for (const [node, peer] of this.#peers) {
      if (others.has(node)) continue;
      peer.timer?.cancel();
      this.#peers.delete(node);
      this.#queue.delete(node);
    }
    for (const node of others) {
      if (this.#peers.has(node)) continue;
      this.#peers.set(node, {
        state: "alive",
        incarnation: 0,
        since: clock.now(),
        knownAt: clock.monotonic(),
        heard: false,
        origins: new Set(),
        suspectedAt: 0,
        timer: undefined,
      });
    }
  }

  #tickLater(): void {
    const { clock } = this.#parts;
    this.#timer = clock.after(untilTick(clock, PERIOD_MS), () => this.#tick());
  }

  #tick(): void {
    if (!this.#running) return;
    const { clock } = this.#parts;
    this.#tickLater();
    const gapMs = Math.round(clock.monotonic() - this.#lastTick);
    if (gapMs > STOOD_STILL_MS) {
      this.#parts.log.warn("this node stood still: the others may have taken it for dead", {
        gap_ms: gapMs,
      });
    }
    this.#lastTick = clock.monotonic();
    this.#round++;
    const next = this.#next();
    if (next !== undefined) void this.#probe(next);
    const dead = [...this.#peers.keys()].filter((node) => !this.isUp(node)).sort();
    const lazarus = this.#round % DEAD_EVERY === 0 ? this.#pick(dead, 1)[0] : undefined;
    if (lazarus !== undefined) void this.#probe(lazarus);
  }

  /** The next member of the ring; a full round before it is shuffled anew. */
  #next(): string | undefined {
    for (;;) {
      const node = this.#ring.pop();
      if (node === undefined) break;
      if (this.#peers.has(node) && this.isUp(node)) return node;
    }
    const up = [...this.#peers.keys()].filter((node) => this.isUp(node)).sort();
    this.#ring = this.#pick(up, up.length);
    return this.#ring.pop();
  }

  #pick(from: readonly string[], wanted: number): string[] {
    const left = [...from];
    const picked: string[] = [];
    while (picked.length < wanted && left.length > 0) {
      const bytes = this.#parts.random.bytes(4);
      const at = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) % left.length;
      picked.push(...left.splice(at, 1));
    }
    return picked;
  }

  async #probe(node: string): Promise<void> {
    if (!this.#ready || this.#probing.has(node)) return;
    this.#probing.add(node);
    const { clock, members } = this.#parts;
    try {
      const begun = clock.monotonic();
      const limit = ANSWER_MS * (1 + this.#health);
      const helperLimit = HELPER_MS * (1 + this.#health);
      if (await this.#ping(node, limit)) {
        this.#health = Math.max(0, this.#health - 1);
        return;
      }
      const helpers = this.#pick(
        [...this.#peers.keys()].filter((other) => other !== node && this.isUp(other)).sort(),
        HELPERS,
      );
      const answers = await Promise.all(
        helpers.map((helper) => this.#ask(helper, node, helperLimit)),
      );
      // No helper answered at all: perhaps it is this node that is slow or cut off.
      if (helpers.length > 0 && answers.every((answer) => answer === undefined)) {
        this.#health = Math.min(HEALTH_MAX, this.#health + 1);
      }
      const peer = this.#peers.get(node);
      const paused = clock.monotonic() - begun > limit + helperLimit + PERIOD_MS;
      if (peer === undefined || paused || !this.#ready || answers.includes(true)) return;
      if (!peer.heard && clock.monotonic() - peer.knownAt < GRACE_MS) return;
      const { incarnation } = peer;
      this.#apply({ node, state: "suspect", incarnation, origin: members.self });
    } finally {
      this.#probing.delete(node);
    }
  }

  async #ping(node: string, timeoutMs: number): Promise<boolean> {
    const ack = await this.#send(node, undefined, timeoutMs);
    return ack !== undefined;
  }

  /** Undefined: the helper itself did not answer. */
  async #ask(helper: string, target: string, timeoutMs: number): Promise<boolean | undefined> {
    const ack = await this.#send(helper, target, timeoutMs);
    return ack?.ok;
  }

  async #send(node: string, target: string | undefined, timeoutMs: number) {
    const { members, transport, log } = this.#parts;
    const peerId = members.peerOf(node);
    if (peerId === undefined) return undefined;
    try {
      const body = encode({
        incarnation: this.#incarnation,
        target,
        claims: this.#claimsFor(node),
        state: this.#load?.tell(),
      });
      const answer = await transport.request(peerId, "probe", body, { timeoutMs });
      const ack = decode(ackSchema, answer);
      this.#heard(node, ack.incarnation);
      if (ack.state !== undefined) this.#load?.hear(peerId, ack.state);
      ack.claims.forEach((claim) => this.#apply(claim));
      return ack;
    } catch (error) {
      log.debug("probe failed", { node_id: node, reason: errorText(error) });
      return undefined;
    }
  }

  async #onProbe(from: PeerId, body: Uint8Array): Promise<Uint8Array> {
    const node = this.#parts.members.nodeOf(from);
    if (node === undefined) throw new AppError("not_a_member", "a probe came from no member");
    if (!this.#ready) throw new AppError("peer_unreachable", "the failure detector is not started");
    const probe = this.#decoded(from, () => decode(probeSchema, body));
    // Before it counts as heard, so that the answer tells it what was believed of it.
    const claims = this.#claimsFor(node);
    this.#heard(node, probe.incarnation);
    if (probe.state !== undefined) this.#load?.hear(from, probe.state);
    probe.claims.forEach((claim) => this.#apply(claim));
    const target = probe.target;
    const known = target === undefined || this.#peers.has(target);
    const ok = target === undefined || (known && (await this.#ping(target, HELPER_MS / 2)));
    return encode({
      ok,
      incarnation: this.#incarnation,
      claims,
      state: this.#load?.tell(),
    });
  }

  #onNews(from: PeerId, body: Uint8Array): Verdict {
    if (this.#parts.members.nodeOf(from) === undefined) return "ignore";
    try {
      const news = this.#decoded(from, () => decode(newsSchema, body));
      news.claims.forEach((claim) => this.#apply(claim));
      return "accept";
    } catch {
      return "reject";
    }
  }

  /** Logs what is not valid at most once a minute for each peer. */
  #decoded<T>(from: PeerId, read: () => T): T {
    try {
      return read();
    } catch (error) {
      const now = this.#parts.clock.monotonic();
      if (now - (this.#loggedAt.get(from) ?? -60_000) >= 60_000) {
        this.#loggedAt.set(from, now);
        this.#parts.log.warn("invalid probe", { peer_id: from, reason: errorText(error) });
      }
      throw error;
    }
  }

  /** What is to be passed on, and first what the receiver must know of itself to refute it. */
  #claimsFor(receiver: string): LivenessClaim[] {
    const queued = [...this.#queue.values()]
      .sort((a, b) => b.left - a.left || (a.claim.node < b.claim.node ? -1 : 1))
      .slice(0, CLAIMS_PER_MESSAGE);
    for (const item of queued) {
      item.left--;
      if (item.left <= 0) this.#queue.delete(item.claim.node);
    }
    const claims = queued.map(({ claim }) => claim).filter(({ node }) => node !== receiver);
    const peer = this.#peers.get(receiver);
    if (peer === undefined || peer.state === "alive") return claims;
    const { state, incarnation } = peer;
    return [{ node: receiver, state, incarnation, origin: this.#parts.members.self }, ...claims];
  }

  /** Direct evidence: whatever was claimed, it is there. */
  #heard(node: string, incarnation: number): void {
    const peer = this.#peers.get(node);
    if (peer === undefined) return;
    peer.heard = true;
    const raised = incarnation > peer.incarnation;
    peer.incarnation = Math.max(peer.incarnation, incarnation);
    if (peer.state === "alive") return;
    this.#set(node, peer, "alive");
    if (raised) this.#spread({ node, state: "alive", incarnation, origin: node }, true);
  }

  #apply(claim: LivenessClaim): void {
    const { members } = this.#parts;
    if (claim.node === members.self) return this.#refute(claim);
    const peer = this.#peers.get(claim.node);
    if (peer === undefined) return;
    const confirms =
      claim.state === "suspect" &&
      peer.state === "suspect" &&
      claim.incarnation === peer.incarnation;
    if (confirms ? peer.origins.has(claim.origin) : !overrides(claim, peer)) return;
    peer.incarnation = claim.incarnation;
    if (!confirms) this.#set(claim.node, peer, claim.state);
    peer.origins.add(claim.origin);
    if (peer.state === "suspect") this.#arm(claim.node, peer);
    this.#spread(claim, claim.origin === members.self);
  }

  #refute(claim: LivenessClaim): void {
    if (claim.state === "alive" || claim.incarnation < this.#incarnation) return;
    const { members, log } = this.#parts;
    this.#incarnation = claim.incarnation + 1;
    this.#persist().catch((error: unknown) =>
      log.warn("incarnation was not stored", { reason: errorText(error) }),
    );
    const alive = { node: members.self, state: "alive", origin: members.self } as const;
    this.#spread({ ...alive, incarnation: this.#incarnation }, true);
  }

  #set(node: string, peer: Peer, state: LivenessState): void {
    peer.timer?.cancel();
    peer.timer = undefined;
    if (peer.state === state) return;
    peer.state = state;
    peer.since = this.#parts.clock.now();
    peer.origins = new Set();
    peer.suspectedAt = this.#parts.clock.monotonic();
    for (const listener of this.#listeners) listener(node, state);
  }

  #arm(node: string, peer: Peer): void {
    const { clock, members } = this.#parts;
    peer.timer?.cancel();
    const total = suspicionMs(members.nodes().length, PERIOD_MS, peer.origins.size - 1);
    const left = Math.max(0, peer.suspectedAt + total - clock.monotonic());
    const due = clock.monotonic() + left;
    peer.timer = clock.after(left, () => {
      // This node slept (SIGSTOP, a suspended host): the suspect gets its whole time again.
      const now = clock.monotonic();
      if (now - due > PERIOD_MS || now - this.#lastTick > 2 * PERIOD_MS) {
        peer.suspectedAt = now;
        return this.#arm(node, peer);
      }
      const own = peer.origins.has(members.self);
      const { incarnation } = peer;
      this.#set(node, peer, "dead");
      this.#spread({ node, state: "dead", incarnation, origin: members.self }, own);
    });
  }

  /** Passed on with probes, and at once by whoever says it first. */
  #spread(claim: LivenessClaim, publish: boolean): void {
    const { members, transport, log } = this.#parts;
    this.#queue.set(claim.node, { claim, left: retransmits(members.nodes().length) });
    if (!publish || !this.#running) return;
    transport
      .publish("liveness", encode({ claims: [claim] }))
      .catch((error: unknown) =>
        log.debug("liveness news not published", { reason: errorText(error) }),
      );
  }
}

/** The failure detector; it takes the handlers of protocol "probe" and topic "liveness". */
export function createLiveness(parts: Parts): Liveness & { start(): void; stop(): void } {
  return new Detector(parts);
}
