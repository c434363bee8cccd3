/** This node's own session: started when the first lease is wanted, renewed while one is held. */
import {
  AppError,
  errorText,
  isAppError,
  renewalIntervalMs,
  sessionValidityMs,
  type Clock,
  type Log,
  type SessionRecord,
} from "../domain/index.ts";
import type { Registers } from "./ports.ts";

export interface OwnSessionParts {
  readonly nodeId: string;
  readonly registers: Registers;
  readonly clock: Clock;
  readonly log: Log;
  readonly termMs: number;
  /** True while leases are held: else the session is let go after a while. */
  readonly isUsed: () => boolean;
  /** The session has ended, by time or by another node. */
  readonly onLost: () => void;
}

interface Held {
  readonly incarnation: number;
  validUntilMs: number;
}

/** Terms without a lease before a session is ended: an idle node is to write nothing. */
const IDLE_TERMS = 2;
/** A renewal that failed is tried again after this share of the term. */
const RETRY_SHARE = 1 / 32;

export class OwnSession {
  readonly #parts: OwnSessionParts;
  #held: Held | undefined;
  #starting: Promise<number> | undefined;
  #renewal: { cancel(): void } | undefined;
  #expiry: { cancel(): void } | undefined;
  #usedAtMs = 0;

  constructor(parts: OwnSessionParts) {
    this.#parts = parts;
  }

  /** True while this node may believe in that incarnation: the clock itself is asked each time. */
  holds(incarnation: number): boolean {
    const held = this.#held;
    return held?.incarnation === incarnation && this.#parts.clock.monotonic() < held.validUntilMs;
  }

  /** The incarnation of a valid session, begun when there is none. @throws AppError no_quorum */
  ensure(): Promise<number> {
    const held = this.#held;
    if (held !== undefined && this.holds(held.incarnation)) {
      return Promise.resolve(held.incarnation);
    }
    this.#starting ??= this.#begin().finally(() => (this.#starting = undefined));
    return this.#starting;
  }

  /** Lets the session go, so that others need not wait for its end. Best effort. */
  async end(): Promise<void> {
    const held = this.#held;
    this.#drop();
    if (held === undefined) return;
    const { registers, nodeId } = this.#parts;
    await registers.update(
      "session",
      nodeId,
      (current) =>
        current?.incarnation === held.incarnation && !current.ended
          ? { ...current, ended: true }
          : undefined,
      { timeoutMs: 2_000 },
    );
  }

  /** For a node that stops without a word: timers end, nothing is written. */
  abandon(): void {
    this.#drop();
  }

  async #begin(): Promise<number> {
    const { registers, nodeId, clock, termMs } = this.#parts;
    if (this.#held !== undefined) this.#lose();
    // Before the first message of it is sent, so that the term counts from there or earlier.
    const sentMs = clock.monotonic();
    const entry = await registers.update("session", nodeId, (current): SessionRecord => {
      // Never an incarnation of a former life: what that claimed is over.
      const incarnation = (current?.incarnation ?? 0) + 1;
      return { node_id: nodeId, incarnation, beat: 0, term_ms: termMs, ended: false };
    });
    const incarnation = entry?.value?.incarnation;
    if (incarnation === undefined) throw new AppError("leadership_lost", "the session was ended");
    this.#held = { incarnation, validUntilMs: sentMs + sessionValidityMs(termMs) };
    this.#usedAtMs = clock.monotonic();
    this.#watchExpiry();
    this.#renewAfter(renewalIntervalMs(termMs));
    return incarnation;
  }

  #renewAfter(milliseconds: number): void {
    this.#renewal?.cancel();
    this.#renewal = this.#parts.clock.after(milliseconds, () => void this.#renew());
  }

  async #renew(): Promise<void> {
    const { registers, nodeId, clock, log, termMs } = this.#parts;
    const held = this.#held;
    if (held === undefined) return;
    const sentMs = clock.monotonic();
    if (this.#parts.isUsed()) this.#usedAtMs = sentMs;
    else if (sentMs - this.#usedAtMs > IDLE_TERMS * termMs) {
      await this.end().catch((error: unknown) => {
        log.debug("an idle session runs out by itself", { reason: errorText(error) });
      });
      return;
    }
    try {
      const timeoutMs = Math.max(50, held.validUntilMs - sentMs);
      await registers.update(
        "session",
        nodeId,
        (current) => {
          // Any beat of this incarnation: a renewal with an unknown outcome may have come through.
          if (current?.incarnation === held.incarnation && !current.ended) {
            return { ...current, beat: current.beat + 1 };
          }
          throw new AppError("leadership_lost", `the session of ${nodeId} was ended by another`);
        },
        { timeoutMs },
      );
      if (this.#held !== held) return;
      held.validUntilMs = sentMs + sessionValidityMs(termMs);
      this.#watchExpiry();
      this.#renewAfter(renewalIntervalMs(termMs));
    } catch (error) {
      if (this.#held !== held) return;
      if (isAppError(error, "leadership_lost")) return this.#lose();
      log.debug("a session could not be renewed", { reason: errorText(error) });
      this.#renewAfter(termMs * RETRY_SHARE);
    }
  }

  #watchExpiry(): void {
    const { clock } = this.#parts;
    this.#expiry?.cancel();
    const held = this.#held;
    if (held === undefined) return;
    this.#expiry = clock.after(Math.max(0, held.validUntilMs - clock.monotonic()), () => {
      if (this.#held !== held) return;
      // A timer may be early by a fraction of a millisecond.
      if (this.holds(held.incarnation)) this.#watchExpiry();
      else this.#lose();
    });
  }

  #lose(): void {
    this.#parts.log.info("this node's session has ended", { node: this.#parts.nodeId });
    this.#drop();
    this.#parts.onLost();
  }

  #drop(): void {
    this.#held = undefined;
    this.#renewal?.cancel();
    this.#expiry?.cancel();
  }
}
