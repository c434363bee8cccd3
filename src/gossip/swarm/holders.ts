/** Who may have chunks of an artifact: by the catalog's facts, and by what others tell. */
import { AppError, type ArtifactRecord } from "../../domain/index.ts";
import type { Liveness, Parts, PeerId } from "../ports.ts";

/** Nobody who is up is known to have anything of what lacks for so long: a fetch ends. */
const NO_HOLDER_MS = 60_000;
/** So many chunks that lack go into an error; the count is always whole. */
const NAMED_CHUNKS = 100;

export interface Candidate {
  readonly nodeId: string;
  readonly peerId: PeerId;
  readonly complete: boolean;
}

export interface HolderParts extends Pick<Parts, "catalog" | "members" | "clock"> {
  readonly liveness: Pick<Liveness, "isUp">;
}

export class Holders {
  readonly #parts: HolderParts;
  readonly #artifact: ArtifactRecord;
  readonly #random: () => number;
  readonly #banned = new Set<string>();
  /** Told by others; the catalog may not know them yet. */
  readonly #heardOf = new Set<string>();
  #lastSeenAt: number;

  constructor(artifact: ArtifactRecord, parts: HolderParts, random: () => number) {
    this.#artifact = artifact;
    this.#parts = parts;
    this.#random = random;
    this.#lastSeenAt = parts.clock.monotonic();
  }

  ban(nodeId: string): void {
    this.#banned.add(nodeId);
  }

  isBanned(nodeId: string): boolean {
    return this.#banned.has(nodeId);
  }

  isUp(nodeId: string): boolean {
    return this.#parts.liveness.isUp(nodeId);
  }

  hearOf(nodeIds: readonly string[]): void {
    for (const nodeId of nodeIds) this.#heardOf.add(nodeId);
  }

  /** Somebody who is up has something of what lacks. */
  saw(): void {
    this.#lastSeenAt = this.#parts.clock.monotonic();
  }

  /**
   * @param lacking the chunks that lack; none named: the chunk manifest
   * @throws AppError fetch_failed when `saw` was not called for a minute
   */
  assertAny(lacking: () => readonly number[]): void {
    const { clock, members } = this.#parts;
    if (clock.monotonic() - this.#lastSeenAt < NO_HOLDER_MS) return;
    const { artifact_id } = this.#artifact;
    const chunks = lacking();
    const away = [...this.#facts()]
      .map(([nodeId]) => nodeId)
      .filter((nodeId) => nodeId !== members.self && !this.isUp(nodeId))
      .sort();
    const what = chunks.length === 0 ? "the chunk manifest" : describeChunks(chunks);
    const told =
      away.length === 0 ? "" : `; it may be on ${away.join(", ")}, which cannot be reached`;
    throw new AppError(
      "fetch_failed",
      `no node that is up has ${what} of artifact ${artifact_id}${told}`,
      {
        meta: {
          artifact_id,
          missing_chunks: chunks.length,
          chunks: chunks.slice(0, NAMED_CHUNKS),
          unreachable_holders: away,
        },
      },
    );
  }

  /** Whom to ask: those that are up and complete first, in an order of chance. */
  candidates(): Candidate[] {
    const { members } = this.#parts;
    const found = new Map(this.#facts());
    for (const nodeId of this.#heardOf) if (!found.has(nodeId)) found.set(nodeId, false);
    return [...found]
      .flatMap(([nodeId, complete]) => {
        const peerId = members.peerOf(nodeId);
        if (peerId === undefined || nodeId === members.self || this.#banned.has(nodeId)) return [];
        return [{ nodeId, peerId, complete, tie: this.#random(), up: this.isUp(nodeId) }];
      })
      .sort(
        (a, b) =>
          Number(b.up) - Number(a.up) || Number(b.complete) - Number(a.complete) || a.tie - b.tie,
      );
  }

  *#facts(): Iterable<[nodeId: string, complete: boolean]> {
    const { artifact_id: id, digest } = this.#artifact;
    for (const { owner, value } of this.#parts.catalog.list("holding", { id })) {
      if (value?.digest === digest) yield [owner, value.complete];
    }
  }
}

function describeChunks(chunks: readonly number[]): string {
  const named = chunks.slice(0, 3).join(", ");
  if (chunks.length === 1) return `chunk ${named}`;
  return chunks.length <= 3 ? `chunks ${named}` : `${chunks.length} chunks (${named}, …)`;
}
