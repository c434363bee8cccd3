/**
 * What comes in from others: checked, merged, counted. Nothing that fails its schema goes further.
 */
import { CLUSTER, isRecordKind, supersedes, type Catalog, type Entry } from "../../domain/index.ts";
import { Counts } from "../counts.ts";
import type { Parts } from "../ports.ts";
import { fromWire, type WireEntry } from "./messages.ts";

/** A peer that sends what is wrong is named in the log this often. */
const COMPLAIN_MS = 60_000;

/** An own fact is written above what others hold of it this often. */
const RESTATE_MS = 5_000;

type Heard = Pick<Entry, "kind" | "id" | "version">;

export interface IntakeParts extends Parts {
  /**
   * Told of an own fact that others hold in a later version than this node: it was spread before
   * it was flushed, and lost with the host. The owner writes what is true above it.
   */
  readonly onForgotten?: (heard: Heard) => void;
}

export type Refusal = "schema" | "owner" | "unknown" | "self" | "stranger";

export class Intake {
  readonly #parts: IntakeParts;
  readonly #counts = new Counts();
  readonly #complained = new Map<string, number>();
  readonly #restated = new Map<string, number>();
  /** Entries on their way into the catalog: they must not be spread as this node's own. */
  readonly #arriving = new Set<string>();

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** True once for an entry that came from others. */
  cameIn(entry: Entry): boolean {
    return this.#arriving.delete(mark(entry));
  }

  /** A batch that does not decode. */
  malformed(from: string): void {
    this.#complain("schema", { o: from, k: "batch", i: "?", n: 1 }, from);
  }

  /** Entries by what became of them: merged, or why they were refused. */
  counts(): Readonly<Record<string, number>> {
    return this.#counts.all();
  }

  /**
   * The entries that may be merged, and why others may not.
   * @param signer the node that signed them, for gossip; undefined for what was pulled
   */
  check(
    wire: readonly WireEntry[],
    from: string,
    signer: string | undefined,
  ): { readonly good: readonly Entry[]; readonly bad: boolean } {
    const good: Entry[] = [];
    let bad = false;
    for (const one of wire) {
      const parsed = fromWire(one);
      const refusal = typeof parsed === "string" ? reasonOf(parsed) : this.#refuse(parsed, signer);
      if (refusal === undefined && typeof parsed !== "string") good.push(parsed.entry);
      else this.#complain(refusal ?? "schema", one, from);
      bad ||= refusal === "schema" || refusal === "owner";
    }
    return { good, bad };
  }

  /** Merges what is newer than what is held here; answers what was. @throws as Catalog.merge */
  async merge(entries: readonly Entry[]): Promise<readonly Entry[]> {
    const { catalog } = this.#parts;
    const newer = entries.filter((entry) => supersedes(entry, heldBy(catalog, entry)));
    if (newer.length === 0) return [];
    for (const entry of newer) this.#arriving.add(mark(entry));
    try {
      // Not flushed: whoever made them has them on the disk, and they are pulled again if lost.
      const merged = await catalog.merge(newer, { sync: false });
      this.#counts.add("merged", merged.length);
      return merged;
    } finally {
      for (const entry of newer) this.#arriving.delete(mark(entry));
    }
  }

  #refuse({ entry }: { entry: Entry }, signer: string | undefined): Refusal | undefined {
    const { members, catalog } = this.#parts;
    if (isRecordKind(entry.kind)) return entry.owner === CLUSTER ? undefined : "owner";
    if (entry.owner === CLUSTER) return "owner";
    if (signer !== undefined && signer !== entry.owner) return "owner";
    if (entry.owner === members.self) {
      if (!supersedes(entry, heldBy(catalog, entry))) return undefined;
      this.forgotten(entry);
      return "self";
    }
    return members.has(entry.owner) ? undefined : "stranger";
  }

  /** Others hold an own fact in a later version than this node. */
  forgotten(heard: Heard): void {
    const nowMs = this.#parts.clock.monotonic();
    for (const [key, atMs] of this.#restated) {
      if (nowMs - atMs >= RESTATE_MS) this.#restated.delete(key);
    }
    const key = `${heard.kind}\0${heard.id}`;
    if (this.#restated.has(key)) return;
    this.#restated.set(key, nowMs);
    this.#parts.onForgotten?.(heard);
  }

  #complain(refusal: Refusal, { o, k, i }: WireEntry, from: string): void {
    const { clock, log } = this.#parts;
    this.#counts.add(refusal);
    // Facts of a node that was removed still go round for a while.
    if (refusal === "stranger" || refusal === "unknown") return;
    const key = `${from} ${refusal}`;
    const nowMs = clock.monotonic();
    if (nowMs - (this.#complained.get(key) ?? -Infinity) < COMPLAIN_MS) return;
    this.#complained.set(key, nowMs);
    const fields = { from, entry: `${k}/${i}`, owner: o, reason: refusal };
    if (refusal === "self") log.warn("others hold a fact of this node that it does not", fields);
    else log.warn("an entry of a peer was refused", fields);
  }
}

const reasonOf = (parsed: "unknown" | "invalid"): Refusal =>
  parsed === "unknown" ? "unknown" : "schema";

const mark = ({ owner, kind, id, version }: Entry): string =>
  `${kind}\0${id}\0${owner}\0${version}`;

export const heldBy = (catalog: Catalog, { owner, kind, id }: Entry): Entry | undefined =>
  catalog.get(owner, kind, id);
