/**
 * Who leads a template (design §4). Candidates are ordered by rendezvous hash over the members that
 * are up and not drained; the first claims as soon as nobody leads validly, each next one a little
 * later, so that a first one that only seems to live does not stand in the way. Leadership moves
 * only when its holder gives it up or its session is over.
 */
import {
  AppError,
  CLUSTER,
  candidateOrder,
  endWatched,
  errorText,
  isOver,
  watchLeftMs,
  watchSession,
  type Entry,
  type LeaderRecord,
  type SessionRecord,
  type WatchedSession,
} from "../domain/index.ts";
import type { Leadership, Lease, Liveness, Parts, Registers } from "./ports.ts";
import { OwnSession } from "./sessions.ts";

export interface LeadershipParts extends Parts {
  readonly registers: Registers;
  readonly liveness: Liveness;
  /** Of this node's own sessions. */
  readonly termMs: number;
}

/** How long the next candidate leaves the one before it alone: this share of the term, at most. */
const TURN_SHARE = 1 / 8;
const TURN_MS = 1_000;

interface HeldLease extends Lease {
  end(reason: AppError): void;
}

export function createLeadership(
  parts: LeadershipParts,
): Leadership & { start(): void; stop(): Promise<void> } {
  return new Leaders(parts);
}

class Leaders implements Leadership {
  readonly #parts: LeadershipParts;
  readonly #session: OwnSession;
  readonly #leases = new Map<string, HeldLease>();
  readonly #claims = new Map<string, Promise<Lease | undefined>>();
  readonly #watches = new Map<string, WatchedSession>();
  /** Template id → when it was first found free here, and by which leader record. */
  readonly #free = new Map<string, { epoch: number; sinceMs: number }>();
  readonly #timers = new Map<string, { cancel(): void }>();
  readonly #listeners = new Set<(templateId: string) => void>();
  #unsubscribe: () => void = () => undefined;
  #stopping = false;

  constructor(parts: LeadershipParts) {
    this.#parts = parts;
    this.#session = new OwnSession({
      ...parts,
      nodeId: parts.members.self,
      isUsed: () => this.#leases.size > 0,
      onLost: () => this.#endAll("this node's session has ended"),
    });
  }

  start(): void {
    const { catalog } = this.#parts;
    for (const { value } of catalog.list("session", { owner: CLUSTER })) {
      if (value !== undefined) this.#watch(value);
    }
    this.#unsubscribe = catalog.subscribe((entry) => this.#hear(entry));
  }

  /** Hands over what it can in a moment; what is left runs out with the session. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#unsubscribe();
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    await this.releaseAll().catch((error: unknown) => {
      this.#parts.log.info("leaderships could not be handed over", { reason: errorText(error) });
    });
    this.#session.abandon();
  }

  acquire(templateId: string): Promise<Lease | undefined> {
    const held = this.lease(templateId);
    if (held !== undefined) return Promise.resolve(held);
    const known = this.#claims.get(templateId);
    if (known !== undefined) return known;
    const claim = this.#acquire(templateId).finally(() => this.#claims.delete(templateId));
    this.#claims.set(templateId, claim);
    return claim;
  }

  lease(templateId: string): Lease | undefined {
    const lease = this.#leases.get(templateId);
    return lease?.isValid() === true ? lease : undefined;
  }

  async release(templateId: string): Promise<void> {
    const lease = this.#leases.get(templateId);
    if (lease === undefined) return;
    this.#leases.delete(templateId);
    lease.end(new AppError("leadership_lost", `the leadership of ${templateId} was given up`));
    const { registers, members } = this.#parts;
    await registers.update("leader", templateId, (current) =>
      current?.node_id === members.self && current.epoch === lease.epoch && !current.released
        ? { ...current, released: true }
        : undefined,
    );
  }

  async releaseAll(): Promise<void> {
    const held = [...this.#leases.keys()];
    const released = await Promise.allSettled(held.map((id) => this.release(id)));
    await this.#session.end();
    const failed = released.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  onOpportunity(listener: (templateId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /* ---- claiming --------------------------------------------------------------------------- */

  async #acquire(templateId: string): Promise<Lease | undefined> {
    const { catalog, members } = this.#parts;
    if (this.#stopping || members.isDrained(members.self)) return undefined;
    const leader = catalog.get(CLUSTER, "leader", templateId)?.value;
    if (leader !== undefined && !(await this.#isFree(leader))) {
      this.#free.delete(templateId);
      return undefined;
    }
    if (!this.#isTurn(templateId, leader?.epoch ?? 0)) return undefined;
    return this.#claim(templateId, leader);
  }

  /** True when nobody can believe to lead under that record; a session that is silent is ended. */
  async #isFree(leader: LeaderRecord): Promise<boolean> {
    const { catalog, members, registers, clock } = this.#parts;
    // This node's own lease is not there any more, or it was claimed in a former life.
    if (leader.released || leader.node_id === members.self) return true;
    const session =
      catalog.get(CLUSTER, "session", leader.node_id)?.value ??
      (await registers.read("session", leader.node_id))?.value;
    if (isOver(leader, session)) return true;
    // A claim follows the session it is made under: a majority has no such session.
    if (session === undefined) return true;
    const watched = this.#watch(session);
    const leftMs = watchLeftMs(watched, session.term_ms, clock.monotonic());
    if (leftMs > 0) {
      this.#wake(leader.template_id, leftMs);
      return false;
    }
    const ended = await registers.update("session", leader.node_id, (current) =>
      endWatched(current, watched),
    );
    if (isOver(leader, ended?.value)) return true;
    if (ended?.value !== undefined) this.#watch(ended.value);
    this.#wake(leader.template_id, session.term_ms);
    return false;
  }

  /** True when this node is the first candidate, or those before it have let their turns pass. */
  #isTurn(templateId: string, epoch: number): boolean {
    const { members, liveness, clock, termMs } = this.#parts;
    const candidates = members
      .nodes()
      .filter((node) => node === members.self || liveness.isUp(node))
      .filter((node) => !members.isDrained(node));
    const rank = candidateOrder(templateId, candidates).indexOf(members.self);
    if (rank === 0) return true;
    const nowMs = clock.monotonic();
    const known = this.#free.get(templateId);
    const sinceMs = known?.epoch === epoch ? known.sinceMs : nowMs;
    this.#free.set(templateId, { epoch, sinceMs });
    const leftMs = sinceMs + rank * Math.min(termMs * TURN_SHARE, TURN_MS) - nowMs;
    if (leftMs <= 0) return true;
    this.#wake(templateId, leftMs);
    return false;
  }

  async #claim(templateId: string, seen: LeaderRecord | undefined): Promise<Lease | undefined> {
    const { registers, members, clock } = this.#parts;
    const incarnation = await this.#session.ensure();
    const claimed = await registers.update("leader", templateId, (current) => {
      // Somebody else was quicker, or gave it up meanwhile: look again.
      if (current?.epoch !== seen?.epoch || current?.node_id !== seen?.node_id) return undefined;
      return {
        template_id: templateId,
        node_id: members.self,
        incarnation,
        epoch: (current?.epoch ?? 0) + 1,
        released: false,
        since: new Date(clock.now()).toISOString(),
      };
    });
    this.#free.delete(templateId);
    const record = claimed?.value;
    const isOurs =
      record?.node_id === members.self &&
      record.incarnation === incarnation &&
      record.epoch === (seen?.epoch ?? 0) + 1 &&
      !record.released;
    if (!isOurs || !this.#session.holds(incarnation)) return undefined;
    return this.#hold(templateId, incarnation, record.epoch);
  }

  #hold(templateId: string, incarnation: number, epoch: number): Lease {
    const controller = new AbortController();
    const session = this.#session;
    let operation = 0;
    const isValid = () => !controller.signal.aborted && session.holds(incarnation);
    const lease: HeldLease = {
      templateId,
      epoch,
      isValid,
      token() {
        if (!isValid()) {
          throw new AppError("leadership_lost", `the leadership of ${templateId} has ended`);
        }
        return { epoch, operation: ++operation };
      },
      signal: controller.signal,
      end: (reason) => controller.abort(reason),
    };
    this.#leases.set(templateId, lease);
    return lease;
  }

  #endAll(why: string): void {
    const held = [...this.#leases.values()];
    this.#leases.clear();
    for (const lease of held) {
      lease.end(new AppError("leadership_lost", `the leadership has ended: ${why}`));
    }
    for (const { templateId } of held) this.#wake(templateId, 0);
  }

  /* ---- watching --------------------------------------------------------------------------- */

  #watch(session: SessionRecord): WatchedSession {
    const nowMs = this.#parts.clock.monotonic();
    const watched = watchSession(this.#watches.get(session.node_id), session, nowMs);
    this.#watches.set(session.node_id, watched);
    return watched;
  }

  #hear(entry: Entry): void {
    if (entry.kind === "session") {
      const session = entry.value as SessionRecord | undefined;
      if (session === undefined) return void this.#watches.delete(entry.id);
      const former = this.#watches.get(session.node_id);
      this.#watch(session);
      if (session.ended || (former?.incarnation ?? 0) < session.incarnation) {
        this.#tellFreed(session);
      }
    } else if (entry.kind === "leader") {
      const leader = entry.value as LeaderRecord | undefined;
      if (leader?.released === true) this.#wake(leader.template_id, 0);
    }
  }

  /** Templates that the ended session led have become free. */
  #tellFreed(session: SessionRecord): void {
    for (const { value } of this.#parts.catalog.list("leader", { owner: CLUSTER })) {
      if (value?.node_id !== session.node_id || value.released) continue;
      if (isOver(value, session)) this.#wake(value.template_id, 0);
    }
  }

  /** Tells listeners after a while that it may be worth trying; the latest reckoning counts. */
  #wake(templateId: string, milliseconds: number): void {
    if (this.#stopping) return;
    this.#timers.get(templateId)?.cancel();
    const timer = this.#parts.clock.after(Math.max(0, Math.ceil(milliseconds)), () => {
      this.#timers.delete(templateId);
      for (const listener of [...this.#listeners]) listener(templateId);
    });
    this.#timers.set(templateId, timer);
  }
}

export { fenced } from "./fence.ts";
