/**
 * The change feed (design §3.2), which is what makes catalogs converge: a node compares state
 * hashes with a peer, and where they differ pulls the headers of what has changed there since it
 * last did, asks for the values that it lacks, and remembers how far it has come after they are
 * merged.
 */
import {
  AppError,
  isRecordKind,
  supersedes,
  type Divergence,
  type EntryKind,
} from "../../domain/index.ts";
import type { Parts, PeerId, RequestOptions } from "../ports.ts";
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

interface Checkpoint {
  readonly feed: string;
  readonly seq: number;
}

export interface Comparison {
  readonly inSync: boolean;
  readonly pulled: number;
}

const isHeld = (kind: string): kind is EntryKind => HELD_KINDS.has(kind);
const HELD_KINDS: ReadonlySet<string> = new Set([
  "template",
  "job",
  "artifact",
  "cluster",
  "session",
  "leader",
  "node",
  "replica",
  "holding",
  "job-progress",
  "refs",
]);

export class Feed {
  readonly #parts: Parts;
  readonly #intake: Intake;
  readonly #running = new Map<PeerId, Promise<Comparison>>();
  readonly #fruitless = new Map<PeerId, number>();
  readonly #differences = new Map<PeerId, Pick<Divergence, "count" | "entries">>();
  /** A peer that says it has something that this node lacks. */
  readonly #onPoke: (peer: PeerId) => void;
  #feedId: Promise<string> | undefined;

  constructor(parts: Parts, intake: Intake, onPoke: (peer: PeerId) => void) {
    this.#parts = parts;
    this.#intake = intake;
    this.#onPoke = onPoke;
    parts.transport.handle("feed", async (from, body) => {
      return encode(await this.#answer(from, decode(questionSchema, body)));
    });
  }

  /** What differed when everything was compared last; undefined when that was not needed. */
  difference(peer: PeerId): Pick<Divergence, "count" | "entries"> | undefined {
    return this.#differences.get(peer);
  }

  /** One at a time per peer. @throws AppError peer_unreachable, wire_invalid, catalog_degraded */
  compare(peer: PeerId, options: RequestOptions): Promise<Comparison> {
    const running = this.#running.get(peer);
    if (running !== undefined) return running;
    const work = this.#compare(peer, options).finally(() => this.#running.delete(peer));
    this.#running.set(peer, work);
    return work;
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
    const isWhole = known?.feed !== before.feed || (this.#fruitless.get(peer) ?? 0) >= FRUITLESS;
    const pulled = await this.#pull(peer, before.feed, isWhole ? 0 : known.seq, options);
    const after = await this.#askState(peer, options);
    if (after.h === catalog.stateHash()) {
      this.#settle(peer);
      return { inSync: true, pulled };
    }
    this.#fruitless.set(peer, pulled === 0 ? (this.#fruitless.get(peer) ?? 0) + 1 : 0);
    // What the peer has is here now: it lacks something of ours.
    await this.#ask(peer, { v: 1, q: "pull" }, options);
    return { inSync: false, pulled };
  }

  #settle(peer: PeerId): void {
    this.#fruitless.delete(peer);
    this.#differences.delete(peer);
  }

  async #pull(peer: PeerId, feed: string, since: number, options: RequestOptions): Promise<number> {
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
      at = page.seq;
      if (!page.more) break;
      // Others of this process have their turn.
      await this.#parts.clock.sleep(0);
    }
    if (seen !== undefined) this.#differences.set(peer, this.#differencesTo(seen));
    return pulled;
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
      if (e.length === 0) break;
      const { good } = this.#intake.check(e, peer, undefined);
      pulled += (await this.#intake.merge(good)).length;
      const got = new Set(e.map(({ o, k, i }) => `${k}\0${i}\0${o}`));
      left = left.filter(([o, k, i]) => !got.has(`${k}\0${i}\0${o}`));
    }
    return pulled;
  }

  #wants([owner, kind, id, version]: WireHeader): boolean {
    const { catalog, members } = this.#parts;
    if (!isHeld(kind)) return false;
    if (!isRecordKind(kind) && (owner === members.self || !members.has(owner))) return false;
    return supersedes({ version }, catalog.get(owner, kind, id));
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
    const { catalog } = this.#parts;
    switch (question.q) {
      case "state":
        return { h: catalog.stateHash(), feed: await this.#ownFeed(), seq: await this.#newest() };
      case "headers":
        return this.#headers(question.since);
      case "values":
        return { e: this.#values(question.keys) };
      case "pull":
        this.#onPoke(from);
        return {};
    }
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
      if (typeof known === "string") return known;
      const id = this.#parts.random.uuid();
      await table.put(FEED_ROW, id);
      return id;
    })();
    return this.#feedId;
  }

  async #newest(): Promise<number> {
    return this.#parts.catalog.sequence();
  }
}

export const assertPeer = (peer: PeerId | undefined, nodeId: string): PeerId => {
  if (peer === undefined) throw new AppError("peer_unreachable", `${nodeId} is no member`);
  return peer;
};
