/** What the swarm needs of the artifact store, and of the disk. */
import type { ArtifactStore } from "../../domain/index.ts";

export type SwarmStore = Pick<
  ArtifactStore,
  | "findDigest"
  | "find"
  | "isSuspect"
  | "manifest"
  | "inventory"
  | "readChunks"
  | "addSidecar"
  | "openPartial"
  | "partialManifest"
> & {
  /** @throws AppError disk_space_low when so many bytes more do not fit. Absent: not checked. */
  assertSpace?(bytes: number): Promise<void>;
};
