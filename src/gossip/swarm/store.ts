/** What the swarm needs of the artifact store, and of the disk. */
import type { ArtifactStore } from "../../domain/index.ts";

/** Room on the disk that is kept for a write. */
export interface Room {
  /** So many bytes more of it are written, and no longer free. */
  wrote(bytes: number): void;
  /** May be called twice. */
  release(): void;
}

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
  /**
   * Room on the disk for so many bytes, until it is released. Absent: not checked.
   * @throws AppError disk_space_low, storage_not_writable
   */
  holdSpace?(bytes: number): Promise<Room>;
};
