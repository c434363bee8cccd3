/**
 * How artifacts are let go: the steps of `domain/gc.ts` written to the artifact's record under
 * quorum, and the removal of this node's own copy. Any node may take a step: each is decided again
 * inside the change, from the record as a majority has it, so that two nodes that do it at once do
 * no harm, and no leadership has to be claimed for it.
 */
import {
  AppError,
  LIMITS,
  applyGcStep,
  gcStep,
  referencesByArtifact,
  remainingHolders,
  type ArtifactRecord,
  type ArtifactReference,
  type ArtifactSight,
  type ArtifactStore,
  type Catalog,
  type Clock,
  type ExceptReference,
  type GcStep,
  type Log,
} from "../../domain/index.ts";
import type { GraceTimes } from "./grace-times.ts";
import type { KeyedQueue, Facts, Records } from "../records.ts";

export interface CleanupParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly isMember: (nodeId: string) => boolean;
  /** A member that is believed to be there. */
  readonly isUp: (nodeId: string) => boolean;
  /** Whether that node holds all of the artifact, undamaged. @throws AppError peer_unreachable */
  readonly askHolds: (nodeId: string, artifact: ArtifactRecord) => Promise<boolean>;
  readonly isBuilding: (builder: NonNullable<ArtifactRecord["builder"]>) => boolean;
  readonly graceMs: number;
  readonly grace: Pick<GraceTimes, "leftMs">;
  /** By artifact id: its bytes are made here and removed here one after the other. */
  readonly files: KeyedQueue;
}

export interface ReleaseOptions extends ExceptReference {
  /** Without a grace: a build that failed leaves nothing behind. */
  readonly isUrgent?: boolean;
}

export interface Cleanup {
  references(): Map<string, ArtifactReference[]>;
  /** What this node knows of the artifact's use. */
  sight(
    artifact: ArtifactRecord,
    references: readonly ArtifactReference[] | undefined,
  ): ArtifactSight;
  /** Takes the step that is due; answers it. @throws AppError no_quorum */
  advance(artifactId: string, options?: ReleaseOptions): Promise<GcStep>;
  /** Advances as far as it can go without waiting, this node's copy included. */
  release(artifactId: string, options?: ReleaseOptions): Promise<void>;
  /** Why this node's copy has to stay; undefined when nothing here needs it. */
  localNeed(artifactId: string): string | undefined;
  /** Why its bytes are used on this node; undefined: it could be fetched again when needed. */
  localUse(artifactId: string): string | undefined;
  /** Other nodes that are up and hold all of it, and are not about to remove it. */
  otherHolders(artifact: ArtifactRecord): string[];
  /**
   * Removes this node's copy because its disk is short of room: when nobody refers to the artifact,
   * or when another node has confirmed that it holds all of it. False: it has to stay.
   */
  evict(artifactId: string): Promise<boolean>;
  /** Removes this node's copy of an artifact that is CLEANUP_PENDING. False: not now. */
  clean(artifactId: string): Promise<boolean>;
  /**
   * Keeps an artifact that is about to go, for the time of one that is used.
   * @throws AppError artifact_not_found, wrong_status when it is not about to go, or has no copy
   */
  undelete(artifactId: string): Promise<ArtifactRecord>;
}

export function createCleanup(parts: CleanupParts): Cleanup {
  const { catalog, records, facts, store, clock, log } = parts;
  const self = facts.nodeId;

  const references = (except?: ExceptReference) =>
    referencesByArtifact(
      { templates: records.list("template"), jobs: records.list("job") },
      except,
    );
  const holdersOf = (artifactId: string): string[] =>
    [...catalog.list("holding", { id: artifactId })]
      .filter(({ owner }) => parts.isMember(owner))
      .map(({ owner }) => owner);
  const sight: Cleanup["sight"] = (artifact, found) => ({
    references: found ?? [],
    isBuilding: artifact.builder !== undefined && parts.isBuilding(artifact.builder),
    holders: holdersOf(artifact.artifact_id),
    nowSeconds: Math.floor(clock.now() / 1_000),
    graceLeftMs: parts.grace.leftMs(artifact),
  });
  const times = () => ({
    nowMs: clock.now(),
    ttlMs: LIMITS.artifactTtlMs,
    graceMs: parts.graceMs,
  });

  const advance: Cleanup["advance"] = async (artifactId, options = {}) => {
    let step: GcStep = "none";
    await records.update("artifact", artifactId, (current) => {
      step = "none";
      if (current === undefined) return undefined;
      const found = references(options).get(artifactId);
      step = gcStep(current, { ...sight(current, found), isUrgent: options.isUrgent === true });
      return applyGcStep(current, step, times());
    });
    if (step !== "none") log.info("an artifact took a step", { artifact_id: artifactId, step });
    return step;
  };

  const localNeed = (artifactId: string): string | undefined => {
    for (const { id, value } of catalog.list("replica", { owner: self })) {
      // A replica that failed has no files.
      if (value?.artifact_id === artifactId && value.phase !== "FAILED")
        return `the replica of ${id} is made from it`;
    }
    const [reference] = references().get(artifactId) ?? [];
    return reference === undefined ? undefined : `${reference.kind} ${reference.id} refers to it`;
  };

  /** Named in the record first: from then on nobody counts on this copy. */
  const claimRemoval = async (artifactId: string): Promise<boolean> => {
    const record = await records.update("artifact", artifactId, (current) =>
      current?.status === "CLEANUP_PENDING" &&
      current.cleaned_by?.includes(self) !== true &&
      localNeed(artifactId) === undefined
        ? { ...current, cleaned_by: [...(current.cleaned_by ?? []), self].sort() }
        : undefined,
    );
    return record?.status === "CLEANUP_PENDING" && record.cleaned_by?.includes(self) === true;
  };

  /** A removal that was begun and overtaken by a new use: this copy counts again. */
  const rejoin = (artifactId: string) =>
    records.update("artifact", artifactId, (current) =>
      current?.status === "READY" && current.cleaned_by?.includes(self) === true
        ? { ...current, cleaned_by: current.cleaned_by.filter((node) => node !== self) }
        : undefined,
    );

  const localUse = (artifactId: string): string | undefined => {
    for (const { id, value } of catalog.list("replica", { owner: self })) {
      if (value?.artifact_id === artifactId && value.phase !== "FAILED")
        return `the replica of ${id} is made from it`;
    }
    for (const { kind, id } of references().get(artifactId) ?? []) {
      if (kind === "job") return `job ${id} works on it`;
      if (records.get("template", id)?.desired_nodes.includes(self) === true)
        return `${kind} ${id} is wanted here`;
    }
    return undefined;
  };
  const otherHolders: Cleanup["otherHolders"] = (artifact) =>
    [...catalog.list("holding", { id: artifact.artifact_id })].flatMap(({ owner, value }) =>
      owner !== self &&
      value?.complete === true &&
      value.digest === artifact.digest &&
      parts.isUp(owner) &&
      artifact.cleaned_by?.includes(owner) !== true
        ? [owner]
        : [],
    );
  /** The fact may be old: who counts on a copy asks for it. */
  const confirmed = async (artifact: ArtifactRecord): Promise<ReadonlySet<string>> => {
    const nodes = otherHolders(artifact);
    const answers = await Promise.allSettled(nodes.map((id) => parts.askHolds(id, artifact)));
    return new Set(
      nodes.filter((_, at) => {
        const answer = answers[at];
        return answer?.status === "fulfilled" && answer.value;
      }),
    );
  };
  /** This copy goes, the others stay: named in the record for as long as it takes. */
  const dropCopy = async (artifact: ArtifactRecord): Promise<boolean> => {
    const id = artifact.artifact_id;
    const holders = await confirmed(artifact);
    if (holders.size === 0) return false;
    const record = await records.update("artifact", id, (current) => {
      const isSure =
        current?.status === "READY" &&
        current.digest === artifact.digest &&
        otherHolders(current).some((node) => holders.has(node));
      return isSure && !current.cleaned_by?.includes(self) && localUse(id) === undefined
        ? { ...current, cleaned_by: [...(current.cleaned_by ?? []), self].sort() }
        : undefined;
    });
    if (record?.cleaned_by?.includes(self) !== true) return false;
    if (localUse(id) !== undefined) {
      await rejoin(id);
      return false;
    }
    // Named for as long as this node has none: others that count copies may hear of it late.
    await store.remove(id);
    await facts.put("holding", id, undefined);
    return true;
  };
  const evict: Cleanup["evict"] = async (artifactId) => {
    const artifact = records.get("artifact", artifactId);
    if (artifact === undefined || store.find(artifactId) === undefined) return false;
    // Where another copy stays, what was promised of its grace holds there.
    if (await parts.files.run(artifactId, () => dropCopy(artifact))) return true;
    if ((references().get(artifactId) ?? []).length > 0) return false;
    await advance(artifactId, { isUrgent: true });
    await clean(artifactId);
    return store.find(artifactId) === undefined;
  };

  const clean: Cleanup["clean"] = (artifactId) =>
    parts.files.run(artifactId, async () => {
      const record = records.get("artifact", artifactId);
      if (record?.status === "READY" && store.find(artifactId) !== undefined) {
        await rejoin(artifactId);
      }
      if (record?.status !== "CLEANUP_PENDING") return false;
      const need = localNeed(artifactId);
      if (need !== undefined) {
        log.debug("a copy of an artifact stays for now", { artifact_id: artifactId, reason: need });
        return false;
      }
      const isHere =
        store.find(artifactId) !== undefined || facts.get("holding", artifactId) !== undefined;
      if (!isHere) return true;
      if (!(await claimRemoval(artifactId)) || localNeed(artifactId) !== undefined) return false;
      await store.remove(artifactId);
      await facts.put("holding", artifactId, undefined);
      return true;
    });

  return {
    references,
    sight,
    advance,
    localNeed,
    localUse,
    otherHolders,
    evict,
    clean,
    async release(artifactId, options = {}) {
      // Grace, its end, this node's copy, the record: as many as nothing stands in the way of.
      for (let taken: GcStep | undefined; taken !== "none" && taken !== "forget";) {
        taken = await advance(artifactId, options);
        if (taken === "release") await clean(artifactId);
      }
    },
    async undelete(artifactId) {
      const at = clock.now();
      const record = await records.update("artifact", artifactId, (current) => {
        if (current === undefined) {
          throw new AppError("artifact_not_found", `artifact ${artifactId} not found`);
        }
        const isDue = current.unreferenced_at !== undefined || current.status === "CLEANUP_PENDING";
        const left = remainingHolders(current, holdersOf(artifactId));
        if (!isDue || left.length === 0 || current.digest === "") {
          const why = isDue ? "no copy of it is left" : "it is not about to go";
          throw new AppError("wrong_status", `artifact ${artifactId}: ${why}`, {
            meta: { status: current.status },
          });
        }
        const kept = applyGcStep(current, "renew", times());
        // Still nobody refers to it: the long time runs from now on.
        return kept && { ...kept, unreferenced_at: new Date(at).toISOString() };
      });
      return record as ArtifactRecord;
    },
  };
}
