/** How full this node's disk is: looked at when it matters, kept to be answered from memory. */
import { statfs } from "node:fs/promises";
import {
  errorText,
  storageFrom,
  unknownStorage,
  type Clock,
  type NodeStorage,
  type StorageThresholds,
} from "../../domain/index.ts";

export interface DiskMeter {
  /** Looks now; a disk that cannot be looked at answers mode `unknown`. */
  measure(): Promise<NodeStorage>;
  /** What the last look found. */
  latest(): NodeStorage | undefined;
  readonly thresholds: StorageThresholds;
}

export interface MeterParts {
  /** Any folder of the file system. */
  readonly dir: string;
  readonly clock: Pick<Clock, "now">;
  readonly thresholds: StorageThresholds;
  /** Root filesystems and VM snapshots that are here now. */
  readonly counts: () => { readonly volumes: number; readonly snapshots: number };
}

export function createDiskMeter({ dir, clock, thresholds, counts }: MeterParts): DiskMeter {
  let last: NodeStorage | undefined;
  return {
    thresholds,
    latest: () => last,
    async measure() {
      const now = Math.floor(clock.now() / 1_000);
      try {
        const { bsize, blocks, bfree, bavail } = await statfs(dir);
        const used_bytes = (blocks - bfree) * bsize;
        const { volumes, snapshots } = counts();
        const metrics = {
          // As `df` counts: what is reserved for root is neither in use nor to be had.
          total_bytes: used_bytes + bavail * bsize,
          used_bytes,
          volume_count: volumes,
          snapshot_count: snapshots,
        };
        last = storageFrom(metrics, now, thresholds);
      } catch (error) {
        last = unknownStorage(errorText(error), now, last);
      }
      return last;
    },
  };
}
