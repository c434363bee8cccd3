/**
 * The change feed (design §3.2), which is what makes catalogs converge: a node compares state
 * hashes with a peer, and where they differ pulls the headers of what has changed there since it
 * last did, asks for the values that it lacks, and remembers how far it has come after they are
 * merged.
 */
import {
  AppError,
  ENTRY_SCHEMAS,
  isRecordKind,
  supersedes,
  type Divergence,
  type EntryKind,
} from "../../domain/index.ts";
import { Counts } from "../counts.ts";
import type { Parts, PeerId, RequestOptions, StateMark } from "../ports.ts";
import type { Intake } from "./intake.ts";
import {
  decode,
  encode,
  headersAnswerSchema,
  questionSchema,
  stateAnswerSchema,
  toWire,
  valuesAnswerSchema,
  type Question,
  type WireEntry,
  type WireHeader,
} from "./messages.ts";

const PAGE_HEADERS = 2_000;
const PAGE_KEYS = 500;
const PAGE_CHARACTERS = 1024 * 1024;
const FEED_ROW = "@feed";
/**
 * Comparisons in a row that found a difference and nothing to pull: then everything is compared.
 */
const FRUITLESS = 2;
const ENTRIES_SHOWN = 10;
/** Doublings of the pause between comparisons that find nothing to pull. */
const PAUSE_DOUBLINGS = 4;

interface Checkpoint {
  readonly feed: string;
  readonly seq: number;
}

interface Pulled {
  readonly pulled: number;
  /** Versions of all that the peer has, when everything was exchanged. */
  readonly seen: ReadonlyMap<string, number> | undefined;
}

export interface Comparison {
  readonly inSync: boolean;
  readonly pulled: number;
}

const isHeld = (kind: string): kind is EntryKind => HELD_KINDS.has(kind);
const HELD_KINDS: ReadonlySet<string> = new Set(Object.keys(ENTRY_SCHEMAS));

export interface FeedListener {
  /** A peer says it has something that this node lacks. */
  onPoke(peer: PeerId): void;
  /** A peer asked with the hash that this catalog has: the two agree. */
  onAgreement(peer: PeerId): void;
  /** Which of these deletions this node could not undo. */
  settled(keys: readonly (readonly [string, string, string, number])[]): readonly boolean[];
}

export class Feed {
  readonly #parts: Parts;
  readonly #intake: Intake;
  readonly #running = new Map<PeerId, Promise<Comparison>>();
  readonly #fruitless = new Map<PeerId, number>();
  readonly #comparisons = new Counts();
  readonly #differences = new Map<PeerId, Pick<Divergence, "count" | "entries">>();
  /** One whole exchange at a time: with several they would all ask for the same. */
  #whole: Promise<unknown> = Promise.resolve();
  readonly #listener: FeedListener;
  #feedId: Promise<string> | undefined;
  #feedName: string | undefined;
  /** What each peer told last, as far as its checkpoint is stored: mostly nothing has changed. */
  readonly #told = new Map<PeerId, Checkpoint>();

  constructor(parts: Parts, intake: Intake, listener: FeedListener) {
    this.#parts = parts;
    this.#intake = intake;
    this.#listener = listener;
    parts.transport.handle("feed", async (from, body) => {
      return encode(await this.#answer(from, decode(questionSchema, body)));
    });
  }

  /** What differed when everything was compared last; undefined when that was not needed. */
  difference(peer: PeerId): Pick<Divergence, "count" | "entries"> | undefined {
    return this.#differences.get(peer);
  }

  /** Comparisons begun here, by result. */
  comparisons(): Readonly<Record<string, number>> {
    return this.#comparisons.all();
  }

  /** This catalog now; undefined until the name of its feed has been read. */
  mark(): StateMark | undefined {
    const { catalog } = this.#parts;
    if (this.#feedName === undefined) {
      this.#ownFeed().catch(() => undefined);
      return undefined;
    }
    return { h: catalog.stateHash(), feed: this.#feedName, seq: catalog.sequence() };
  }

  /** A peer's catalog as it was a moment ago. @returns true when this one is the same */
  heard(peer: PeerId, { h, feed, seq }: StateMark): boolean {
    if (h !== this.#parts.catalog.stateHash()) return false;
    this.#comparisons.add("in_sync");
    this.#settle(peer);
    const told = this.#told.get(peer);
    if (told?.feed === feed && told.seq === seq) return true;
    this.#advance(peer, { feed, seq }).then(
      () => this.#told.set(peer, { feed, seq }),
      (error: unknown) => {
        this.#parts.log.debug("a checkpoint was not stored", { peer, err: error });
      },
    );
    return true;
  }

  /** How much longer than usual to wait before the next comparison: a power of two. */
  patience(peer: PeerId): number {
    const fruitless = Math.max(0, (this.#fruitless.get(peer) ?? 0) - FRUITLESS);
    return 2 ** Math.min(fruitless, PAUSE_DOUBLINGS);
  }

  /** What was refused may be taken now: differences that stayed are looked at soon. */
  forgetFruitless(): void {
    this.#fruitless.clear();
  }

  /** As `compare`, but one that begins after this call. @throws as compare */
  async compareAnew(peer: PeerId, options: RequestOptions): Promise<Comparison> {
    await this.#running.get(peer)?.catch(() => undefined);
    return this.compare(peer, options);
  }

  /** One at a time per peer. @throws AppError peer_unreachable, wire_invalid, catalog_degraded */
  compare(peer: PeerId, options: RequestOptions): Promise<Comparison> {
    const running = this.#running.get(peer);
    if (running !== undefined) return running;
    const work = this.#counted(this.#compare(peer, options)).finally(() =>
      this.#running.delete(peer),
    );
    this.#running.set(peer, work);
    return work;
  }

  async #counted(comparison: Promise<Comparison>): Promise<Comparison> {
    try {
      const result = await comparison;
      this.#comparisons.add(result.inSync ? "in_sync" : "differs");
      return result;
    } catch (error) {
      this.#comparisons.add("failed");
      throw error;
    }
  }

  async #compare(peer: PeerId, options: RequestOptions): Promise<Comparison> {
    const { catalog } = this.#parts;
    const before = await this.#askState(peer, options);
    if (before.h === catalog.stateHash()) {
      await this.#advance(peer, { feed: before.feed, seq: before.seq });
      this.#settle(peer);
      return { inSync: true, pulled: 0 };
    }
    const table = catalog.table("checkpoint");
    const known = (await table.get(peer)) as Checkpoint | undefined;
    const fruitless = this.#fruitless.get(peer) ?? 0;
    // A difference that stays is looked at as a whole at the 2nd, 4th, 8th … time only.
    const isWhole =
      known?.feed !== before.feed ||
      (fruitless >= FRUITLESS && Number.isInteger(Math.log2(fruitless)));
    const { pulled, seen } = isWhole
      ? await this.#pullWhole(peer, before, options)
      : await this.#pull(peer, before.feed, known.seq, options);
    const after = await this.#askState(peer, options);
    if (after.h === catalog.stateHash()) {
      this.#settle(peer);
      return { inSync: true, pulled };
    }
    this.#fruitless.set(peer, pulled === 0 ? (this.#fruitless.get(peer) ?? 0) + 1 : 0);
    if (seen !== undefined) this.#differences.set(peer, this.#differencesTo(seen));
    // What the peer has is here now: it lacks something of ours.
    await this.#ask(peer, { v: 1, q: "pull" }, options);
    return { inSync: false, pulled };
  }

  #settle(peer: PeerId): void {
    this.#fruitless.delete(peer);
    this.#differences.delete(peer);
  }

  async #pullWhole(
    peer: PeerId,
    before: { h: string; feed: string },
    options: RequestOptions,
  ): Promise<Pulled> {
    const turn = this.#whole.then(() =>
      // The exchange before this one may have brought everything.
      before.h === this.#parts.catalog.stateHash()
        ? { pulled: 0, seen: undefined }
        : this.#pull(peer, before.feed, 0, options),
    );
    this.#whole = turn.catch(() => undefined);
    return turn;
  }

  async #pull(peer: PeerId, feed: string, since: number, options: RequestOptions): Promise<Pulled> {
    let pulled = 0;
    const seen = since === 0 ? new Map<string, number>() : undefined;
    for (let at = since; ;) {
      const answer = await this.#ask(peer, { v: 1, q: "headers", since: at }, options);
      const page = decode(headersAnswerSchema, answer);
      for (const [o, k, i, n] of page.headers) seen?.set(`${k}\0${i}\0${o}`, n);
      const wanted = page.headers.filter((header) => this.#wants(header));
      for (let first = 0; first < wanted.length; first += PAGE_KEYS) {
        pulled += await this.#pullValues(peer, wanted.slice(first, first + PAGE_KEYS), options);
      }
      // Only after the merge: a crash before this pulls the page again.
      await this.#advance(peer, { feed, seq: page.seq });
      if (!page.more) break;
      if (page.seq <= at) throw new AppError("wire_invalid", "a peer's feed does not move on");
      at = page.seq;
      // Others of this process have their turn.
      await this.#parts.clock.sleep(0);
    }
    return { pulled, seen };
  }

  async #pullValues(
    peer: PeerId,
    headers: readonly WireHeader[],
    options: RequestOptions,
  ): Promise<number> {
    let pulled = 0;
    let left = headers.map(([o, k, i]): [string, string, string] => [o, k, i]);
    while (left.length > 0) {
      const answer = await this.#ask(peer, { v: 1, q: "values", keys: left }, options);
      const { e } = decode(valuesAnswerSchema, answer);
      const asked = new Set(left.map(([o, k, i]) => `${k}\0${i}\0${o}`));
      // Only what was asked for: an answer with other entries must not keep this going.
      const usable = e.filter(({ o, k, i }) => asked.delete(`${k}\0${i}\0${o}`));
      if (usable.length === 0) break;
      const { good } = this.#intake.check(usable, peer, undefined);
      pulled += (await this.#intake.merge(good)).length;
      left = left.filter(([o, k, i]) => asked.has(`${k}\0${i}\0${o}`));
    }
    return pulled;
  }

  #wants([owner, kind, id, version]: WireHeader): boolean {
    const { catalog, members } = this.#parts;
    if (!isHeld(kind)) return false;
    if (!isRecordKind(kind) && owner !== members.self && !members.has(owner)) return false;
    const isNewer = supersedes({ version }, catalog.get(owner, kind, id));
    if (owner !== members.self) return isNewer;
    // Nobody tells this node what is true of it.
    if (isNewer) this.#intake.forgotten({ kind, id, version });
    return false;
  }

  /** Where this catalog and the peer's headers differ, both ways; live entries only. */
  #differencesTo(there: ReadonlyMap<string, number>): Pick<Divergence, "count" | "entries"> {
    const { catalog } = this.#parts;
    const entries: Divergence["entries"] = [];
    let count = 0;
    const note = (owner: string, kind: string, id: string, here: number, other: number) => {
      count++;
      if (entries.length < ENTRIES_SHOWN) entries.push({ owner, kind, id, here, there: other });
    };
    for (const kind of HELD_KINDS) {
      for (const entry of catalog.list(kind as EntryKind)) {
        const other = there.get(`${kind}\0${entry.id}\0${entry.owner}`) ?? 0;
        if (other !== entry.version) note(entry.owner, kind, entry.id, entry.version, other);
      }
    }
    for (const [key, other] of there) {
      const [kind = "", id = "", owner = ""] = key.split("\0");
      if (!isHeld(kind) || catalog.get(owner, kind, id) !== undefined) continue;
      note(owner, kind, id, 0, other);
    }
    return { count, entries };
  }

  async #advance(peer: PeerId, checkpoint: Checkpoint): Promise<void> {
    const { catalog } = this.#parts;
    const known = (await catalog.table("checkpoint").get(peer)) as Checkpoint | undefined;
    if (known?.feed === checkpoint.feed && known.seq >= checkpoint.seq) return;
    const local = [{ table: "checkpoint", key: peer, value: checkpoint }] as const;
    await catalog.merge([], { local, sync: false });
  }

  async #askState(peer: PeerId, options: RequestOptions) {
    const question: Question = { v: 1, q: "state", h: this.#parts.catalog.stateHash() };
    return decode(stateAnswerSchema, await this.#ask(peer, question, options));
  }

  #ask(peer: PeerId, question: Question, options: RequestOptions): Promise<Uint8Array> {
    return this.#parts.transport.request(peer, "feed", encode(question), options);
  }

  /* ---- answering --------------------------------------------------------------------------- */

  async #answer(from: PeerId, question: Question): Promise<object> {
    switch (question.q) {
      case "state":
        return this.#state(from, question.h);
      case "headers":
        return this.#headers(question.since);
      case "values":
        return { e: this.#values(question.keys) };
      case "settled":
        return { ok: this.#listener.settled(question.keys) };
      case "pull":
        this.#listener.onPoke(from);
        return {};
    }
  }

  /** The hash and the sequence of one moment: nothing may be awaited between them. */
  async #state(from: PeerId, asked: string): Promise<object> {
    const { catalog } = this.#parts;
    const feed = await this.#ownFeed();
    const answer = { h: catalog.stateHash(), feed, seq: catalog.sequence() };
    if (asked === answer.h) {
      this.#settle(from);
      this.#listener.onAgreement(from);
    }
    return answer;
  }

  async #headers(since: number): Promise<object> {
    const changes = await this.#parts.catalog.changes(since, PAGE_HEADERS);
    const last = changes.at(-1);
    return {
      headers: changes.map(({ entry }): WireHeader => [
        entry.owner,
        entry.kind,
        entry.id,
        entry.version,
      ]),
      seq: last?.sequence ?? since,
      more: changes.length === PAGE_HEADERS,
    };
  }

  #values(keys: readonly (readonly [string, string, string])[]): WireEntry[] {
    const found: WireEntry[] = [];
    let characters = 0;
    for (const [owner, kind, id] of keys) {
      const entry = isHeld(kind) ? this.#parts.catalog.get(owner, kind, id) : undefined;
      if (entry === undefined) continue;
      const wire = toWire(entry);
      characters += JSON.stringify(wire).length;
      // What does not fit is asked for again.
      if (found.length > 0 && characters > PAGE_CHARACTERS) break;
      found.push(wire);
    }
    return found;
  }

  /** Of this catalog's life: a reset one starts another feed, and is pulled from its beginning. */
  #ownFeed(): Promise<string> {
    this.#feedId ??= (async () => {
      const table = this.#parts.catalog.table("checkpoint");
      const known = await table.get(FEED_ROW);
      if (typeof known === "string") return (this.#feedName = known);
      const id = this.#parts.random.uuid();
      await table.put(FEED_ROW, id);
      return (this.#feedName = id);
    })().catch((error: unknown) => {
      // A disk that was full once must not keep this node from answering for good.
      this.#feedId = undefined;
      throw error;
    });
    return this.#feedId;
  }
}

export const assertPeer = (peer: PeerId | undefined, nodeId: string): PeerId => {
  if (peer === undefined) throw new AppError("peer_unreachable", `${nodeId} is no member`);
  return peer;
};
