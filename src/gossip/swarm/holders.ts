/** Who may have chunks of an artifact: by the catalog's facts, and by what others tell. */
import { AppError, type ArtifactRecord } from "../../domain/index.ts";
import type { Parts, PeerId } from "../ports.ts";

/** No holder is known for so long: a fetch ends. */
const NO_HOLDER_MS = 60_000;

export interface Candidate {
  readonly nodeId: string;
  readonly peerId: PeerId;
  readonly complete: boolean;
}

export class Holders {
  readonly #parts: Pick<Parts, "catalog" | "members" | "clock">;
  readonly #artifact: ArtifactRecord;
  readonly #random: () => number;
  readonly #banned = new Set<string>();
  /** Told by others; the catalog may not know them yet. */
  readonly #heardOf = new Set<string>();
  #lastSeenAt: number;

  constructor(
    artifact: ArtifactRecord,
    parts: Pick<Parts, "catalog" | "members" | "clock">,
    random: () => number,
  ) {
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

  hearOf(nodeIds: readonly string[]): void {
    for (const nodeId of nodeIds) this.#heardOf.add(nodeId);
  }

  /** @throws AppError fetch_failed when the catalog has named no holder for a minute */
  assertAny(): void {
    const { clock, members } = this.#parts;
    const now = clock.monotonic();
    for (const [nodeId] of this.#facts()) {
      if (nodeId !== members.self && !this.#banned.has(nodeId)) this.#lastSeenAt = now;
    }
    if (now - this.#lastSeenAt < NO_HOLDER_MS) return;
    const { artifact_id } = this.#artifact;
    throw new AppError("fetch_failed", `no node holds what lacks of artifact ${artifact_id}`, {
      meta: { artifact_id },
    });
  }

  /** Whom to ask, the complete ones first, in an order of chance. */
  candidates(): Candidate[] {
    const { members } = this.#parts;
    const found = new Map(this.#facts());
    for (const nodeId of this.#heardOf) if (!found.has(nodeId)) found.set(nodeId, false);
    return [...found]
      .flatMap(([nodeId, complete]) => {
        const peerId = members.peerOf(nodeId);
        if (peerId === undefined || nodeId === members.self || this.#banned.has(nodeId)) return [];
        return [{ nodeId, peerId, complete, tie: this.#random() }];
      })
      .sort((a, b) => Number(b.complete) - Number(a.complete) || a.tie - b.tie);
  }

  *#facts(): Iterable<[nodeId: string, complete: boolean]> {
    const { artifact_id: id, digest } = this.#artifact;
    for (const { owner, value } of this.#parts.catalog.list("holding", { id })) {
      if (value?.digest === digest) yield [owner, value.complete];
    }
  }
}
