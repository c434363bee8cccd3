/**
 * Eager spreading: what this node has written is published at once, and what is written while a
 * message is under way goes together in the next. Gossip loses messages: this is only for speed.
 */
import { LIMITS, type Entry } from "../../domain/index.ts";
import type { Parts } from "../ports.ts";
import { encode, toWire, type WireEntry } from "./messages.ts";

/** Below the transport's limit for a message, with room for what wraps it. */
const BATCH_CHARACTERS = 128 * 1024;
/** Changes of one moment (a job's record and its facts) go together. */
const MOMENT_MS = 2;
/** After the last batch its hash is told once more: who lost the batch notices and pulls. */
const ECHO_MS = 1_000;
/** Written again soon anyway, and often: the next one tells the hash. */
const RECURRING: ReadonlySet<string> = new Set(["session", "job-progress"]);

const keyOf = ({ owner, kind, id }: Entry): string => `${kind}\0${id}\0${owner}`;

export class Eager {
  readonly #parts: Parts;
  readonly #pending = new Map<string, WireEntry>();
  /** When a progress fact may go again. */
  readonly #heldBack = new Map<string, { entry: Entry; timer: { cancel(): void } }>();
  readonly #sentAt = new Map<string, number>();
  #timer: { cancel(): void } | undefined;
  #echo: { cancel(): void } | undefined;
  #owesEcho = false;
  #publishing = false;
  #stopped = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  push(entry: Entry): void {
    if (this.#stopped || this.#parts.members.others().length === 0) return;
    if (entry.kind === "job-progress" && entry.value !== undefined) this.#pushSlowly(entry);
    else this.#pushNow(entry);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#echo?.cancel();
    for (const { timer } of this.#heldBack.values()) timer.cancel();
    this.#pending.clear();
  }

  #pushNow(entry: Entry): void {
    const key = keyOf(entry);
    this.#pending.delete(key);
    this.#pending.set(key, toWire(entry, this.#parts.clock.now()));
    this.#schedule();
  }

  /** Progress is written many times a second; others need no more than they can show. */
  #pushSlowly(entry: Entry): void {
    const { clock } = this.#parts;
    const key = keyOf(entry);
    const held = this.#heldBack.get(key);
    if (held !== undefined) return void (held.entry = entry);
    const leftMs =
      (this.#sentAt.get(key) ?? -Infinity) + LIMITS.progressSpreadMs - clock.monotonic();
    const send = (latest: Entry) => {
      this.#sentAt.delete(key);
      this.#sentAt.set(key, clock.monotonic());
      if (this.#sentAt.size > 1_000) this.#sentAt.delete(this.#sentAt.keys().next().value ?? "");
      this.#pushNow(latest);
    };
    if (leftMs <= 0) return send(entry);
    const timer = clock.after(leftMs, () => {
      const latest = this.#heldBack.get(key)?.entry ?? entry;
      this.#heldBack.delete(key);
      if (!this.#stopped) send(latest);
    });
    this.#heldBack.set(key, { entry, timer });
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#publishing || this.#stopped) return;
    this.#timer = this.#parts.clock.after(MOMENT_MS, () => {
      this.#timer = undefined;
      void this.#publish();
    });
  }

  #echoLater(): void {
    const { transport, catalog, clock, log } = this.#parts;
    this.#echo?.cancel();
    if (this.#stopped || !this.#owesEcho) return;
    this.#echo = clock.after(ECHO_MS, () => {
      this.#owesEcho = false;
      transport
        .publish("changes", encode({ v: 1, h: catalog.stateHash(), e: [] }))
        .catch((error: unknown) => log.debug("the state was not published", { err: error }));
    });
  }

  async #publish(): Promise<void> {
    const { transport, catalog, log } = this.#parts;
    this.#publishing = true;
    try {
      while (this.#pending.size > 0 && !this.#stopped) {
        const entries: WireEntry[] = [];
        let characters = 0;
        for (const [key, entry] of this.#pending) {
          const length = JSON.stringify(entry).length;
          if (entries.length > 0 && characters + length > BATCH_CHARACTERS) break;
          this.#pending.delete(key);
          this.#owesEcho ||= !RECURRING.has(entry.k);
          // One that no message can carry reaches the others by their pulling, after the echo.
          if (length > BATCH_CHARACTERS) continue;
          characters += length;
          entries.push(entry);
        }
        if (entries.length === 0) continue;
        await transport.publish("changes", encode({ v: 1, h: catalog.stateHash(), e: entries }));
      }
    } catch (error) {
      log.debug("changes were not published; the others will pull them", { err: error });
    } finally {
      this.#publishing = false;
      if (this.#pending.size > 0) this.#schedule();
      else this.#echoLater();
    }
  }
}
