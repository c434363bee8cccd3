/**
 * Room for big writes: whoever is about to build, download or snapshot says how much it needs at
 * most, and holds that much until it has ended, so that two that begin at once do not both count
 * on the same free space. Where there is too little, what nobody needs is evicted first.
 */
import {
  AppError,
  assertGrowable,
  assertWritable,
  type GuestSpec,
  type Log,
  type NodeStorage,
} from "../../domain/index.ts";
import type { DiskMeter } from "./meter.ts";

export interface Room {
  /** So many bytes more of it are written, and no longer free. */
  wrote(bytes: number): void;
  /** May be called twice. */
  release(): void;
}

/** What room is asked for, as metrics and messages name it. */
export type BigWrite = "build" | "fetch" | "snapshot" | "import";

export interface Space {
  /**
   * Room for a build, a download, or a snapshot of a template's guest.
   * @throws AppError storage_not_writable, disk_space_low with `needed` and `available` bytes
   */
  hold(bytes: number, what: BigWrite): Promise<Room>;
  /**
   * Before a snapshot of a sandbox, a rollback, a commit or an import.
   * @throws AppError storage_not_writable
   */
  assertWritable(): Promise<void>;
  /** What to do when there is too little; resolves when it has freed what it can. */
  onShort(reclaim: (bytes: number) => Promise<void>): void;
}

export interface SpaceParts {
  readonly nodeId: string;
  readonly meter: DiskMeter;
  readonly log: Log;
  /** Told of each write that found no room. */
  readonly onRefused?: (what: BigWrite) => void;
}

/** What big writes leave free for the catalog, logs and sandboxes: a hundredth, at most 256 MiB. */
const RESERVE = { share: 0.01, mostBytes: 256 * 1024 ** 2 } as const;

/** Devices' state, and what a guest writes to its disk while it starts. */
const BOOT_BYTES = 64 * 1024 ** 2;

/** The most that the snapshot of a guest takes: its memory, were all of it touched. */
export const snapshotBytes = ({ memoryMib }: Pick<GuestSpec, "memoryMib">): number =>
  memoryMib * 1024 ** 2 + BOOT_BYTES;

const reserveOf = ({ total_bytes }: NodeStorage): number =>
  Math.min(RESERVE.mostBytes, Math.floor(total_bytes * RESERVE.share));

export function createSpace({ nodeId, meter, log, onRefused }: SpaceParts): Space {
  const held = new Set<{ left: number }>();
  let reclaim: ((bytes: number) => Promise<void>) | undefined;

  const available = (storage: NodeStorage): number =>
    Math.max(
      0,
      [...held].reduce((free, { left }) => free - left, storage.free_bytes - reserveOf(storage)),
    );
  /** Bytes that lack; 0 also where free space cannot be told (spec §11 row 54). */
  const shortOf = (bytes: number, storage: NodeStorage): number => {
    if (storage.mode === "unknown" || bytes === 0) return 0;
    const { thresholds } = meter;
    const above =
      storage.mode === "delete_only"
        ? storage.total_bytes - storage.free_bytes - (storage.total_bytes * thresholds.reject) / 100
        : 0;
    return Math.ceil(Math.max(bytes - available(storage), above));
  };
  /** The disk as it is now, after a try to make room where it is short. */
  const looked = async (bytes: number): Promise<NodeStorage> => {
    const storage = await meter.measure();
    const short = shortOf(bytes, storage);
    if (short <= 0 || reclaim === undefined) return storage;
    log.info("room is made for a big write", { needed_bytes: bytes, short_bytes: short });
    await reclaim(short);
    return meter.measure();
  };

  return {
    onShort: (work) => (reclaim = work),
    async assertWritable() {
      assertWritable(nodeId, await looked(1));
    },
    async hold(bytes, what) {
      const storage = await looked(bytes);
      // From here on without waiting: two that ask at once are served one after the other.
      const free = available(storage);
      try {
        assertGrowable(nodeId, storage);
        if (storage.mode !== "unknown" && free < bytes) {
          throw new AppError(
            "disk_space_low",
            `${what}: about ${bytes} bytes are needed on node ${nodeId}, ${free} are free`,
            { meta: { needed: bytes, available: free } },
          );
        }
      } catch (error) {
        onRefused?.(what);
        throw error;
      }
      const one = { left: bytes };
      held.add(one);
      return {
        wrote: (written) => (one.left = Math.max(0, one.left - written)),
        release: () => held.delete(one),
      };
    },
  };
}
