/** A root filesystem that came in a bundle becomes an artifact of this cluster, held here. */
import {
  AppError,
  LIMITS,
  type ArtifactRecord,
  type ArtifactStore,
  type Clock,
  type PortableArtifact,
  type Random,
} from "../../domain/index.ts";
import type { Facts, KeyedQueue, Records } from "../records.ts";
import type { StagedFile } from "./scratch.ts";

export interface AdoptParts {
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  /** By artifact id: its bytes are made here and removed here one after the other. */
  readonly files: KeyedQueue;
  readonly clock: Clock;
  readonly random: Random;
}

/** @throws AppError bundle_conflict, artifact_not_ready */
export function assertAdoptable(
  current: ArtifactRecord | undefined,
  wanted: PortableArtifact,
): void {
  if (current === undefined) return;
  const { artifact_id: id, status, digest } = current;
  const isOther = current.template_spec_fingerprint !== wanted.template_spec_fingerprint;
  const isHeld = status === "READY" || status === "CLEANUP_PENDING";
  if (isOther || (isHeld && digest !== wanted.digest)) {
    throw new AppError("bundle_conflict", `artifact ${id} has other bytes here: ${digest}`, {
      meta: { artifact_id: id, here: digest, in_bundle: wanted.digest },
    });
  }
  if (status === "BUILDING" || status === "PENDING") {
    throw new AppError("artifact_not_ready", `artifact ${id} is just being built: try again`);
  }
}

/**
 * Publishes the bytes under their digest, then writes record and holding. When this fails, or the
 * process dies in between, what is left is collected like any artifact that nobody refers to.
 * @returns the record, and whether it was not READY before
 * @throws AppError bundle_conflict, artifact_not_ready, artifact_corrupt, no_quorum
 */
export function adoptArtifact(
  { records, facts, store, files, clock, random }: AdoptParts,
  wanted: PortableArtifact,
  staged: StagedFile,
): Promise<{ artifact: ArtifactRecord; fresh: boolean }> {
  const { artifact_id: id, digest, ext4_size_bytes } = wanted;
  return files.run(id, async () => {
    // What a majority knows, before anything is on the disk.
    await records.update("artifact", id, (current) => {
      assertAdoptable(current, wanted);
      return undefined;
    });
    const at = new Date(clock.now()).toISOString();
    const gc_deadline = Math.floor((clock.now() + LIMITS.artifactTtlMs) / 1_000);
    const made: ArtifactRecord = {
      ...wanted,
      status: "READY",
      last_error: "",
      gc_deadline,
      download_token: random.uuid(),
      built_on: facts.nodeId,
      updated_at: at,
    };
    await store.publish(staged.path, staged.manifest, { artifact: made });
    let fresh = true;
    const artifact = await records.update("artifact", id, (current) => {
      assertAdoptable(current, wanted);
      fresh = current?.status !== "READY";
      if (current?.status !== "READY") return made;
      const { unreferenced_at: _since, ...used } = current;
      return { ...used, gc_deadline };
    });
    const size_bytes = ext4_size_bytes;
    const holding = { artifact_id: id, digest, size_bytes, complete: true, verified_at: at };
    await facts.put("holding", id, holding);
    return { artifact: artifact ?? made, fresh };
  });
}
