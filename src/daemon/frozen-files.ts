/**
 * Files of a snapshot on their way into the artifact store: from then on the swarm carries them,
 * and records say for how long they stay, as with root filesystems.
 */
import {
  LIMITS,
  holesOf,
  type ArtifactRecord,
  type ArtifactStore,
  type ChunkManifest,
  type Clock,
  type Folders,
  type Random,
} from "../domain/index.ts";
import type { Facts, Records } from "./records.ts";

export interface PublisherParts {
  readonly store: Pick<ArtifactStore, "scratchPath" | "publish">;
  readonly folders: Pick<Folders, "remove" | "link">;
  readonly records: Records;
  readonly facts: Facts;
  readonly clock: Clock;
  readonly random: Random;
}

export interface PublishedFile {
  /** Linked, so that it may go afterwards; one in the store's scratch folder is taken as it is. */
  readonly path: string;
  readonly digest: string;
  readonly manifest: ChunkManifest;
}

type About = Pick<ArtifactRecord, "artifact_id" | "build_key"> & Partial<ArtifactRecord>;

/** Where a file that `publishFile` takes can be made; nothing is there. */
export async function scratchFor(
  { store, folders }: Pick<PublisherParts, "store" | "folders">,
  artifactId: string,
): Promise<string> {
  const path = store.scratchPath(artifactId);
  await folders.remove(path);
  return path;
}

/**
 * Makes the file an artifact that is READY and held here. May be called again for the same bytes.
 * @throws AppError artifact_corrupt when the file is not what its manifest says, no_quorum
 */
export async function publishFile(
  parts: PublisherParts,
  file: PublishedFile,
  about: About,
): Promise<ArtifactRecord> {
  const { store, folders, records, facts, clock, random } = parts;
  const { artifact_id: id } = about;
  const { manifest, digest } = file;
  const scratch = store.scratchPath(id);
  if (scratch !== file.path) {
    await folders.remove(scratch);
    await folders.link(file.path, scratch);
  }
  const at = new Date(clock.now()).toISOString();
  const holes = holesOf(manifest).count * manifest.chunkSizeBytes;
  const artifact: ArtifactRecord = {
    template_spec_fingerprint: "",
    source_image_ref: "",
    source_image_digest: "",
    digest,
    ext4_size_bytes: manifest.sizeBytes,
    data_bytes: Math.max(0, manifest.sizeBytes - holes),
    entries: 0,
    writable_layer_size: "",
    status: "READY",
    last_error: "",
    gc_deadline: Math.floor((clock.now() + LIMITS.artifactTtlMs) / 1_000),
    cube_egress_ca_baked: false,
    cube_egress_ca_fingerprint: "",
    cube_egress_ca_targets_written: 0,
    download_token: random.uuid(),
    built_on: facts.nodeId,
    created_at: at,
    updated_at: at,
    ...about,
  };
  await store.publish(scratch, manifest, { artifact });
  const written = await records.update("artifact", id, (current) =>
    current?.status === "READY" && current.digest === digest ? undefined : artifact,
  );
  await facts.put("holding", id, {
    artifact_id: id,
    digest,
    size_bytes: manifest.sizeBytes,
    complete: true,
    verified_at: at,
  });
  return written ?? artifact;
}
