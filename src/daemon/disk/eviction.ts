/**
 * What this node could do without when its disk is short of room, and how it goes: orphan files
 * first, then copies of artifacts that nobody refers to, then copies that others hold too and
 * nothing here needs. The last copy of what is referenced never goes: `Cleanup.evict` names this
 * node in the artifact's record before it removes anything, so that of two nodes that count on each
 * other's copy one is told so.
 */
import {
  chooseEvictions,
  errorText,
  isWritable,
  type ArtifactRecord,
  type ArtifactStore,
  type Eviction,
  type EvictionCandidate,
  type Log,
} from "../../domain/index.ts";
import type { Cleanup } from "../build/cleanup.ts";
import type { Records } from "../records.ts";
import type { DiskMeter } from "./meter.ts";
import type { Orphans } from "./orphans.ts";

export interface EvictionParts {
  readonly nodeId: string;
  readonly records: Records;
  readonly store: Pick<ArtifactStore, "find">;
  readonly cleanup: Cleanup;
  readonly orphans: Orphans;
  readonly meter: DiskMeter;
  readonly log: Log;
  /** Alone, or agreeing with another member: what is not heard of may be a reference. */
  readonly isInTouch: () => boolean;
  readonly onEvicted?: (kind: Eviction["kind"], bytes: number) => void;
}

export interface Evictions {
  /** What would go now: nothing while the disk has room. */
  due(): readonly Eviction[];
  /** Frees at least so many bytes, if there are so many. */
  reclaim(bytes: number): Promise<void>;
  /** Frees as much as brings the disk below the threshold from which on it takes no snapshots. */
  relieve(): Promise<void>;
}

export function createEvictions(parts: EvictionParts): Evictions {
  const { records, store, cleanup, meter, log } = parts;
  let tail: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  const candidateOf = (
    artifact: ArtifactRecord,
    kept: ReadonlySet<string>,
  ): EvictionCandidate | undefined => {
    const id = artifact.artifact_id;
    const isLeft = artifact.status === "READY" || artifact.status === "CLEANUP_PENDING";
    if (!isLeft || store.find(id) === undefined) return undefined;
    if (cleanup.localUse(id) !== undefined) return undefined;
    const { references } = cleanup.sight(artifact, cleanup.references().get(id));
    const kind = references.length === 0 ? "unreferenced" : "spare";
    // Its grace has begun: whoever is about to use it has renewed it.
    const isLetGo = artifact.unreferenced_at !== undefined || artifact.status !== "READY";
    if (kind === "unreferenced" && !isLetGo) return undefined;
    const others = cleanup.otherHolders(artifact);
    if (kind === "spare" && others.length === 0) return undefined;
    const why =
      kind === "spare"
        ? `nothing here needs it and ${others.join(", ")} holds it`
        : "nobody refers to it";
    const bytes = kept.has(artifact.digest) ? 0 : artifact.data_bytes;
    const sinceMs = Date.parse(artifact.unreferenced_at ?? artifact.updated_at);
    return { node_id: parts.nodeId, artifact_id: id, bytes, kind, why, sinceMs };
  };
  const candidates = (): EvictionCandidate[] => {
    if (!parts.isInTouch()) return [];
    const all = [...records.list("artifact")];
    const needed = all.filter(({ artifact_id }) => cleanup.localUse(artifact_id) !== undefined);
    const kept = new Set(needed.map(({ digest }) => digest));
    return all.flatMap((artifact) => candidateOf(artifact, kept) ?? []);
  };

  /** Bytes above the threshold; 0 while snapshots are taken here. */
  const excess = (): number => {
    const storage = meter.latest();
    if (storage === undefined || storage.mode === "unknown" || isWritable(storage.mode)) return 0;
    const { total_bytes, free_bytes } = storage;
    const most = (total_bytes * meter.thresholds.reject) / 100;
    return Math.max(1, Math.ceil(total_bytes - free_bytes - most));
  };

  const run = async (bytes: number): Promise<void> => {
    let left = bytes;
    for (const { removed, bytes: freed } of await parts.orphans.sweep({ urgent: true })) {
      if (removed) left -= freed;
    }
    const tried = new Set<string>();
    while (left > 0) {
      // Chosen anew after each: what was spare may be the last copy now.
      const untried = candidates().filter(({ artifact_id }) => !tried.has(artifact_id));
      const [next] = chooseEvictions(untried, left);
      if (next === undefined) break;
      tried.add(next.artifact_id);
      if (await evict(next)) left -= next.bytes;
    }
    await meter.measure();
  };
  /** One that cannot go stops no other. */
  const evict = async ({ artifact_id, kind, bytes, why }: EvictionCandidate): Promise<boolean> => {
    try {
      const isGone = await cleanup.evict(artifact_id);
      if (!isGone) return false;
      log.info("a copy was evicted, the disk is short of room", { artifact_id, kind, bytes, why });
      parts.onEvicted?.(kind, bytes);
      return true;
    } catch (error) {
      log.info("a copy could not be evicted", { artifact_id, reason: errorText(error) });
      return false;
    }
  };
  /** Those that lack room at once are served one after the other, each by what is left then. */
  const reclaim = (bytes: number): Promise<void> => {
    waiting++;
    const done = tail.then(() => run(bytes)).finally(() => waiting--);
    tail = done.catch(() => undefined);
    return done;
  };

  return {
    due: () =>
      excess() === 0
        ? []
        : chooseEvictions(candidates(), excess()).map(({ sinceMs: _since, ...one }) => one),
    reclaim,
    async relieve() {
      if (excess() > 0 && waiting === 0) await reclaim(excess());
    },
  };
}
