/**
 * The port of the runtime driver (design §7): guests booted once, snapshotted, and started from
 * snapshots. Declared by the daemon's needs; the drivers in daemon/runtime implement it.
 */
import type { ChunkManifest } from "./chunk-manifest.ts";
import type { ComponentVersions } from "./compat.ts";

export interface DriverProbe {
  readonly available: boolean;
  /**
   * Why not, or what was chosen: "qemu 7.2 with tcg: /dev/kvm did not boot a trial guest in 5 s".
   */
  readonly detail: string;
  readonly accelerator?: "kvm" | "tcg";
}

/** What a guest runs; made from the template's generated create request (spec §3.10). */
export interface GuestSpec {
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly cpuMillis: number;
  readonly memoryMib: number;
  readonly exposedPorts: readonly number[];
  readonly probe?: GuestProbe;
  /** Reaches nothing, neither the network nor services on the host's own loopback. */
  readonly isolated?: boolean;
}

export interface GuestProbe {
  readonly port: number;
  readonly path: string;
  readonly timeoutMs: number;
  readonly periodMs: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
}

/** A VM snapshot of a template or a sandbox on this node. Physical: it never leaves the node. */
export interface DriverSnapshot {
  readonly templateId: string;
  /** Set when it was taken of a running sandbox. */
  readonly snapshotId?: string;
  readonly driver: string;
  /** Everything the driver made for it, removed as a whole. */
  readonly dir: string;
  readonly versions: ComponentVersions;
  readonly bytes: number;
  /** Why the guest had not flushed its file systems, when it was to do that. */
  readonly unsynced?: string;
  readonly timings: Readonly<Record<string, number>>;
}

export interface DriverSandbox {
  readonly sandboxId: string;
  readonly templateId: string;
  /** The sandbox's snapshot that its memory lies on; absent when that is its template's. */
  readonly snapshotId?: string;
  readonly pid?: number;
  /** Guest port → host address that reaches it. */
  readonly ports: Readonly<Record<string, { host: string; port: number }>>;
  readonly timings: Readonly<Record<string, number>>;
}

export type GuestLog = (line: string) => void;

/** One file of a snapshot, as another host gets it: bytes that hold no path of this host. */
export interface SnapshotFile {
  /** Its name among the snapshot's files: no path. */
  readonly name: string;
  readonly path: string;
  /** `sha256:<hex>` of its encoded chunk manifest, like an artifact's. */
  readonly digest: string;
  readonly manifest: ChunkManifest;
}

/** All that another host needs to start a snapshot, but the root filesystem: an artifact. */
export interface SnapshotExport {
  /** What the driver must know of the files, for its like on the other host. No path is in it. */
  readonly description: Readonly<Record<string, number>>;
  readonly files: readonly SnapshotFile[];
}

export interface RuntimeDriver {
  readonly name: "qemu" | "rootfs" | "exec";
  probe(options?: { signal?: AbortSignal }): Promise<DriverProbe>;
  versions(): Promise<ComponentVersions>;
  /**
   * Boots the template once on its own copy-on-write disk, waits for the readiness probe, snapshots
   * memory, device state and disk into `dir` (made by this call, removed again when it fails), and
   * ends the VM.
   * @throws AppError guest_assets_missing, guest_boot_failed, guest_probe_failed, snapshot_failed
   */
  makeSnapshot(
    input: { templateId: string; rootfsPath: string; guest: GuestSpec; dir: string },
    options?: { signal?: AbortSignal; onLog?: GuestLog; onStep?: (step: string) => void },
  ): Promise<DriverSnapshot>;
  /**
   * Drops what `makeSnapshot` made, and any process still waiting on it. No error if it is gone.
   */
  removeSnapshot(snapshot: DriverSnapshot): Promise<void>;
  /** True when the snapshot's files are all there and of the sizes recorded when it was made. */
  hasSnapshot(snapshot: DriverSnapshot): Promise<boolean>;
  /**
   * Starts a sandbox from a snapshot. Resolves when the guest is running.
   * @throws AppError restore_failed, sandbox_already_exists
   */
  restore(
    input: { sandboxId: string; snapshot: DriverSnapshot; guest: GuestSpec; dir: string },
    options?: { signal?: AbortSignal },
  ): Promise<DriverSandbox>;
  /**
   * Freezes a running sandbox into `dir`, which must not be there and lies where templates'
   * folders lie. The memory it was started with is copied while it runs; then, within one pause,
   * what it has written since, the devices' state, and the disk as it is at that moment. The
   * sandbox runs on in any case, failure and abort included. `restore` starts the result as it
   * starts a template's. Its files are its own: of the sandbox and of what that was started from
   * nothing is needed later but the root filesystem. They are flushed before this resolves; on
   * failure `dir` is not there.
   *
   * With `sync` the guest is asked, last before that pause and for a bounded time, to flush its
   * file systems, so that the disk alone has what its programs have written; one that does not is
   * frozen all the same, and `unsynced` says why.
   *
   * `versions` are those the guest was booted with. `bytes` is what it takes on disk. `timings`:
   * `pause_ms`, how long the guest stood still; `live_ms`, the copying before; `total_ms`. A second
   * call for the same sandbox, and a rollback, wait for the first.
   * @throws AppError sandbox_not_found when it does not run; snapshot_failed; driver_unsupported,
   *   as the next three, by a driver whose executable does not offer it
   */
  snapshotSandbox(
    input: { sandboxId: string; snapshotId: string; dir: string; sync?: boolean },
    options?: { signal?: AbortSignal; onStep?: (step: string) => void },
  ): Promise<DriverSnapshot>;
  /**
   * Puts a running sandbox back to a snapshot, its own or any other that fits: restores that beside
   * it, switches, and only then drops what ran before. Its id, folder and host ports stay, and
   * `list` always has it. A crash of this process leaves it on one side or the other, which `list`
   * puts in order and tells by `snapshotId`.
   *
   * `timings`: `running_ms`, from the call until the guest ran; `switch_ms`, neither ran.
   * @throws AppError sandbox_not_found when it does not run; restore_failed: it runs on as it was
   */
  rollback(
    input: { sandboxId: string; snapshot: DriverSnapshot; guest: GuestSpec },
    options?: { signal?: AbortSignal; onStep?: (step: string) => void },
  ): Promise<DriverSandbox>;
  /**
   * Makes a sandbox's snapshot stand by itself: writes the disk as its guest saw it to `to` (not
   * there yet), a raw file with its holes and its journal played back, which is the snapshot's root
   * filesystem from then on; above it is no more than what the playing back has changed. On failure
   * `to` is not there, and the snapshot is of no more use.
   * @throws AppError snapshot_not_found when it is not whole; snapshot_failed
   */
  flattenSnapshot(
    input: { snapshot: DriverSnapshot; to: string },
    options?: { signal?: AbortSignal },
  ): Promise<{
    readonly snapshot: DriverSnapshot;
    readonly rootfs: Pick<SnapshotFile, "digest" | "manifest">;
  }>;
  /**
   * The snapshot's files, which don't change as long as it is there. Reads them all.
   * @throws AppError snapshot_not_found when it is not whole
   */
  exportSnapshot(
    snapshot: DriverSnapshot,
    options?: { signal?: AbortSignal },
  ): Promise<SnapshotExport>;
  /**
   * Makes `dir` (not there yet) a snapshot of what another host exported. The files, whose digests
   * the caller has checked, are linked where that goes and copied elsewhere, so that the caller's
   * may go afterwards; the root filesystem is used where it lies.
   * @throws AppError snapshot_failed when a file lacks or does not fit the description
   */
  importSnapshot(
    input: {
      templateId: string;
      /** Absent: it becomes a template's. */
      snapshotId?: string;
      versions: ComponentVersions;
      description: SnapshotExport["description"];
      files: readonly Pick<SnapshotFile, "name" | "path">[];
      rootfsPath: string;
      dir: string;
    },
    options?: { signal?: AbortSignal },
  ): Promise<DriverSnapshot>;
  /** Ends the sandbox and removes its folder. No error if it is gone. */
  stop(sandboxId: string): Promise<void>;
  /**
   * The sandboxes that run now, those found again after a daemon restart included; one whose
   * snapshot or rollback was cut short by the restart is put in order first.
   */
  list(): Promise<readonly DriverSandbox[]>;
  /** Ends the VM processes this driver's folders name that no sandbox owns; answers their pids. */
  reap(): Promise<readonly number[]>;
  usage(): Promise<{ sandboxes: number; processes: number; memoryBytes: number }>;
  /** Keeps up to `size` processes waiting for the snapshot, so that `restore` is faster. */
  warm(snapshot: DriverSnapshot, guest: GuestSpec, size: number): Promise<void>;
  /** Ends helpers and waiting processes; sandboxes stay when `keepSandboxes`. */
  close(options: { keepSandboxes: boolean }): Promise<void>;
}
