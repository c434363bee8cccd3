/**
 * Every node, the artifacts it holds (design §5): their chunks are hashed again, slowly, one
 * artifact after the other, for as long as the daemon runs. What is damaged is served no more and
 * mended with chunks of other holders; when there are none, the node says no longer that it holds
 * it.
 */
import {
  AppError,
  errorText,
  isAppError,
  type ArtifactRecord,
  type ArtifactStore,
  type Catalog,
  type Clock,
  type Log,
} from "../../domain/index.ts";
import type { Swarm } from "../../gossip/index.ts";
import type { Facts } from "../records.ts";

/** Reads so many bytes a second: 1 % of a core, 28 GB an hour, hardly felt by a disk. */
const RATE_BPS = 8 * 1024 * 1024;
/** Between two rounds over everything. */
const PAUSE_MS = 60 * 60_000;
/** After start, the node has better to do. */
const FIRST_MS = 60_000;

export interface ScrubParts {
  readonly catalog: Pick<Catalog, "list">;
  readonly facts: Pick<Facts, "nodeId" | "get" | "put">;
  readonly store: Pick<ArtifactStore, "inventory" | "verify">;
  readonly swarm: Pick<Swarm, "fetch">;
  readonly clock: Clock;
  readonly log: Log;
  /** Told after each artifact, for metrics and pages. */
  readonly onState?: (state: ScrubState) => void;
  readonly rateBps?: number;
  readonly pauseMs?: number;
  readonly firstMs?: number;
}

/** Since start. */
export interface ScrubState {
  readonly rounds: number;
  readonly checkedBytes: number;
  readonly damagedChunks: number;
  readonly repairedArtifacts: number;
  /** Ids of artifacts that are damaged and could not be mended. */
  readonly damaged: readonly string[];
}

export class ScrubWorker {
  readonly #parts: ScrubParts;
  readonly #abort = new AbortController();
  readonly #damaged = new Set<string>();
  #rounds = 0;
  #checkedBytes = 0;
  #damagedChunks = 0;
  #repaired = 0;
  #work: Promise<void> | undefined;

  constructor(parts: ScrubParts) {
    this.#parts = parts;
  }

  get state(): ScrubState {
    return {
      rounds: this.#rounds,
      checkedBytes: this.#checkedBytes,
      damagedChunks: this.#damagedChunks,
      repairedArtifacts: this.#repaired,
      damaged: [...this.#damaged].sort(),
    };
  }

  start(): void {
    this.#work ??= this.#run().catch((err: unknown) => {
      if (!this.#abort.signal.aborted) this.#parts.log.error("scrubbing has ended", { err });
    });
  }

  async stop(): Promise<void> {
    this.#abort.abort(new AppError("daemon_draining", "the daemon is stopping"));
    await this.#work;
  }

  async #run(): Promise<void> {
    const { clock, pauseMs = PAUSE_MS, firstMs = FIRST_MS } = this.#parts;
    const { signal } = this.#abort;
    await clock.sleep(firstMs, { signal });
    for (;;) {
      await this.round();
      await clock.sleep(pauseMs, { signal });
    }
  }

  /** Goes over everything once. */
  async round(): Promise<void> {
    const { store, onState } = this.#parts;
    const byDigest = new Map<string, ArtifactRecord[]>();
    for (const { artifact } of store.inventory()) {
      byDigest.set(artifact.digest, [...(byDigest.get(artifact.digest) ?? []), artifact]);
    }
    for (const artifacts of byDigest.values()) {
      this.#abort.signal.throwIfAborted();
      await this.#check(artifacts);
      onState?.(this.state);
    }
    this.#rounds++;
    onState?.(this.state);
  }

  async #check(artifacts: readonly ArtifactRecord[]): Promise<void> {
    const { store, log } = this.#parts;
    const { signal } = this.#abort;
    const digest = artifacts[0]?.digest ?? "";
    try {
      await store.verify(digest, { signal, pace: (bytes) => this.#pace(bytes) });
      for (const { artifact_id } of artifacts) this.#damaged.delete(artifact_id);
    } catch (error) {
      signal.throwIfAborted();
      // Removed meanwhile, or taken away: whoever needs it fetches it.
      if (!isAppError(error, "artifact_corrupt")) {
        log.debug("an artifact could not be checked", { digest, reason: errorText(error) });
        return;
      }
      const chunks = Number(error.meta["corrupt_chunks"] ?? 0);
      this.#damagedChunks += chunks;
      log.error("an artifact is damaged on this disk", { digest, corrupt_chunks: chunks });
      for (const artifact of artifacts) await this.#repair(artifact);
    }
  }

  async #pace(bytes: number): Promise<void> {
    const { clock, rateBps = RATE_BPS } = this.#parts;
    this.#checkedBytes += bytes;
    await clock.sleep((bytes / rateBps) * 1_000, { signal: this.#abort.signal });
  }

  async #repair(artifact: ArtifactRecord): Promise<void> {
    const { swarm, log, facts } = this.#parts;
    const { signal } = this.#abort;
    const { artifact_id } = artifact;
    const fields = { artifact_id, digest: artifact.digest };
    try {
      if (!this.#isHeldElsewhere(artifact)) {
        throw new AppError("fetch_failed", `no other node holds artifact ${artifact_id}`);
      }
      await swarm.fetch(artifact, { signal });
      this.#repaired++;
      this.#damaged.delete(artifact_id);
      log.info("a damaged artifact was mended with chunks of other nodes", fields);
    } catch (error) {
      signal.throwIfAborted();
      this.#damaged.add(artifact_id);
      log.error("a damaged artifact cannot be mended", { ...fields, reason: errorText(error) });
      if (facts.get("holding", artifact_id) !== undefined) {
        await facts.put("holding", artifact_id, undefined);
      }
    }
  }

  #isHeldElsewhere({ artifact_id: id, digest }: ArtifactRecord): boolean {
    const { catalog, facts } = this.#parts;
    for (const { owner, value } of catalog.list("holding", { id })) {
      if (owner !== facts.nodeId && value?.digest === digest && value.complete) return true;
    }
    return false;
  }
}
