/**
 * Tombstones are not kept for ever (design §3): each node drops one that it has had for long
 * enough, after every member has said that it holds nothing older. A member that is away holds
 * the purge up until it is back or removed, so that nobody can come back with what was deleted.
 *
 * Why asking is enough: what a member answers stays true. It would have to get an older version
 * later, from somebody who holds one; but all members have answered, and messages do not travel
 * for as long as a tombstone is kept.
 */
import { LIMITS, errorText, isRecordKind, type Entry, type EntryKind } from "../../domain/index.ts";
import type { Parts, PeerId, RequestOptions } from "../ports.ts";
import { decode, encode, settledAnswerSchema } from "./messages.ts";

export interface PurgeTimes {
  /** How long a tombstone is kept at least. */
  readonly ageMs: number;
  readonly roundMs: number;
}

/** A voter's side: what its registers have of a record, and dropping that. */
export interface SettledRegisters {
  /** True when this voter could not bring back anything older than that version. */
  isSettled(kind: EntryKind, id: string, version: number): boolean;
  /** Takes the records' tombstones out of the catalog and the registers, where both are at rest. */
  purge(tombstones: readonly Entry[], times: { quietMs: number; ageMs: number }): Promise<number>;
}

export interface PurgeParts extends Parts {
  readonly registers: SettledRegisters;
  readonly purge?: PurgeTimes;
}

/** The catalog's newest change at a time: what comes up to it is at least as old. */
interface Mark {
  readonly at: number;
  readonly sequence: number;
}

const MARKS_ROW = "@marks";
/** Marks in the age of a tombstone. */
const MARKS_AN_AGE = 12;
/** Tombstones that are asked about at once. */
const AT_ONCE = 1_000;
/** No proposal is under way for so long; ballots that are older may be forgotten. */
const QUIET_MS = 60 * 60_000;

export class Purge {
  readonly #parts: PurgeParts;
  readonly #times: PurgeTimes;
  #marks: Mark[] = [];
  #loaded = false;
  #purged = 0;
  #timer: { cancel(): void } | undefined;
  #stopped = false;

  constructor(parts: PurgeParts) {
    this.#parts = parts;
    this.#times = parts.purge ?? {
      ageMs: LIMITS.tombstoneAgeMs,
      roundMs: LIMITS.tombstoneRoundMs,
    };
  }

  start(): void {
    const { clock, random, log } = this.#parts;
    const [byte = 0] = random.bytes(1);
    // Not all nodes at once.
    this.#timer = clock.after(this.#times.roundMs * (0.75 + byte / 512), () => {
      this.round()
        .catch((error: unknown) => {
          log.debug("tombstones stay for now", { reason: errorText(error) });
        })
        .finally(() => {
          if (!this.#stopped) this.start();
        });
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Tombstones that were dropped since start. */
  get purged(): number {
    return this.#purged;
  }

  /** What of these this node could bring back in no older version. */
  settled(keys: readonly (readonly [string, string, string, number])[]): boolean[] {
    const { catalog, registers } = this.#parts;
    return keys.map(([owner, kind, id, version]) => {
      const held = catalog.get(owner, kind as EntryKind, id);
      if (held !== undefined) return held.version >= version;
      return !isRecordKind(kind) || registers.isSettled(kind, id, version);
    });
  }

  /** @returns how many tombstones went */
  async round(): Promise<number> {
    const { catalog, log, registers } = this.#parts;
    await this.#mark();
    const old = await this.#old();
    const { ageMs } = this.#times;
    const times = { ageMs, quietMs: Math.min(ageMs, QUIET_MS) };
    if (old.length === 0) return registers.purge([], times);
    const agreed = await this.#agreed(old);
    const facts = agreed.filter(({ kind }) => !isRecordKind(kind));
    const records = agreed.filter(({ kind }) => isRecordKind(kind));
    await catalog.purge(facts);
    this.#purged += facts.length;
    const goneRecords = await registers.purge(records, times);
    this.#purged += goneRecords;
    const gone = facts.length + goneRecords;
    if (gone > 0) log.debug("tombstones are dropped", { count: gone });
    return gone;
  }

  /** Remembers now and then how far the catalog had come, over restarts too. */
  async #mark(): Promise<void> {
    const { catalog, clock } = this.#parts;
    const table = catalog.table("checkpoint");
    if (!this.#loaded) {
      const known = await table.get(MARKS_ROW);
      this.#marks = Array.isArray(known) ? (known as Mark[]) : [];
      this.#loaded = true;
    }
    const now = clock.now();
    // A clock that was set back: what was marked in its future says nothing.
    const marks = this.#marks.filter(({ at }) => at <= now);
    const last = marks.at(-1);
    if (last !== undefined && now - last.at < this.#times.ageMs / MARKS_AN_AGE) return;
    marks.push({ at: now, sequence: catalog.sequence() });
    this.#marks = marks.slice(-2 * MARKS_AN_AGE);
    await catalog.merge([], {
      local: [{ table: "checkpoint", key: MARKS_ROW, value: this.#marks }],
      sync: false,
    });
  }

  /** Tombstones that have been here for long enough. */
  async #old(): Promise<Entry[]> {
    const { catalog, clock } = this.#parts;
    const before = clock.now() - this.#times.ageMs;
    const mark = this.#marks.filter(({ at }) => at <= before).at(-1);
    return mark === undefined ? [] : catalog.tombstones(mark.sequence, AT_ONCE);
  }

  /** Those of which every member says that it holds nothing older. */
  async #agreed(tombstones: readonly Entry[]): Promise<readonly Entry[]> {
    const { members } = this.#parts;
    const keys = tombstones.map(({ owner, kind, id, version }) => [owner, kind, id, version]);
    const peers = members.others().map((nodeId) => members.peerOf(nodeId));
    const answers = await Promise.all(
      peers.map((peer) => {
        if (peer === undefined) throw new Error("a member's peer id is not known");
        return this.#ask(peer, keys, { timeoutMs: 5_000 });
      }),
    );
    // Members that came while the others answered have not been asked.
    const asked = new Set(peers);
    if (members.others().some((nodeId) => !asked.has(members.peerOf(nodeId)))) return [];
    return tombstones.filter((_, index) => answers.every((answer) => answer[index] === true));
  }

  async #ask(peer: PeerId, keys: unknown, options: RequestOptions): Promise<readonly boolean[]> {
    const question = encode({ v: 1, q: "settled", keys });
    const answer = await this.#parts.transport.request(peer, "feed", question, options);
    return decode(settledAnswerSchema, answer).ok;
  }
}
