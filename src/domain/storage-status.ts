/**
 * How full the disk of a node is, and what may still be written to it (spec §9.1). Pure: whoever
 * measures hands in the numbers, whoever is about to write asks `assertWritable`.
 */
import { z } from "zod";
import { AppError } from "./errors.ts";

/**
 * `warn` only says so. `reject` takes no snapshot, rollback, commit or import. `delete_only` takes
 * nothing new at all, no build and no download either. `unknown`: the disk could not be looked at,
 * which counts as `reject`. Deleting is always allowed.
 */
export const STORAGE_MODES = ["healthy", "warn", "reject", "delete_only", "unknown"] as const;
export type StorageMode = (typeof STORAGE_MODES)[number];

/** Percent of the disk in use at which a mode begins, ascending. */
export interface StorageThresholds {
  readonly warn: number;
  readonly reject: number;
  readonly deleteOnly: number;
}

export const STORAGE_THRESHOLDS: StorageThresholds = { warn: 70, reject: 85, deleteOnly: 95 };

/** What a node says of its disk in its fact. */
export const storageSchema = z.object({
  /** 0 to 100. */
  usage_pct: z.number().min(0).max(100),
  /** What this daemon could use if the disk were empty: in use and free, without reserves. */
  total_bytes: z.number().nonnegative(),
  free_bytes: z.number().nonnegative(),
  mode: z.enum(STORAGE_MODES),
  /** Blank unless the mode is `unknown`. */
  last_error: z.string(),
  last_updated_at: z.number().int().nonnegative(),
  /** Root filesystems here, and VM snapshots of templates and sandboxes. */
  volume_count: z.number().int().nonnegative().optional(),
  snapshot_count: z.number().int().nonnegative().optional(),
});
export type NodeStorage = z.infer<typeof storageSchema>;

export const storageStatusSchema = storageSchema.extend({
  node_id: z.string(),
  node_ip: z.string(),
  /** False while the node is believed to be down. */
  healthy: z.boolean(),
  /** True when snapshots, rollbacks, commits and imports are taken there. */
  writable: z.boolean(),
});
export type StorageStatus = z.infer<typeof storageStatusSchema>;

/** All nodes by id, and the first thing that went wrong while they were asked, beside it. */
export const storageListSchema = z.object({
  items: z.array(storageStatusSchema),
  error: z.string().optional(),
});
export type StorageList = z.infer<typeof storageListSchema>;

/** @returns percent, a whole number; 0 of nothing, never more than 100 */
export const usagePercent = (usedBytes: number, totalBytes: number): number =>
  totalBytes <= 0 ? 0 : Math.min(100, Math.round((usedBytes * 100) / totalBytes));

/** The mode at so many percent in use. */
export function storageMode(
  usagePct: number,
  thresholds: StorageThresholds = STORAGE_THRESHOLDS,
): StorageMode {
  if (usagePct >= thresholds.deleteOnly) return "delete_only";
  if (usagePct >= thresholds.reject) return "reject";
  return usagePct >= thresholds.warn ? "warn" : "healthy";
}

const METRICS = ["total_bytes", "used_bytes", "volume_count", "snapshot_count"] as const;

/**
 * The status from what was measured.
 * @param metrics total_bytes, used_bytes, volume_count, snapshot_count
 * @throws AppError invalid_request that names the measure that is missing
 */
export function storageFrom(
  metrics: Readonly<Record<string, number | undefined>>,
  nowSeconds: number,
  thresholds: StorageThresholds = STORAGE_THRESHOLDS,
): NodeStorage {
  const missing = METRICS.find((name) => !Number.isFinite(metrics[name]));
  if (missing !== undefined) {
    throw new AppError("invalid_request", `storage metrics lack ${missing}`, {
      meta: { errors: [{ pointer: `/${missing}`, detail: "is missing" }] },
    });
  }
  const { total_bytes = 0, used_bytes = 0, volume_count = 0, snapshot_count = 0 } = metrics;
  const usage_pct = usagePercent(used_bytes, total_bytes);
  return {
    usage_pct,
    total_bytes,
    free_bytes: Math.max(0, total_bytes - used_bytes),
    mode: storageMode(usage_pct, thresholds),
    last_error: "",
    last_updated_at: nowSeconds,
    volume_count,
    snapshot_count,
  };
}

/** A disk that could not be looked at; what was known of it before stays to be seen. */
export const unknownStorage = (
  error: string,
  nowSeconds: number,
  last?: NodeStorage,
): NodeStorage => ({
  usage_pct: 0,
  total_bytes: 0,
  free_bytes: 0,
  ...last,
  mode: "unknown",
  last_error: error,
  last_updated_at: nowSeconds,
});

/** A status older than this is asked for again before it is answered (spec §9.1). */
export const STORAGE_TTL_SECONDS = 600;

/** One that is unknown is asked for again however new it is: one failure does not block long. */
export const needsRefresh = (storage: NodeStorage | undefined, nowSeconds: number): boolean =>
  storage === undefined ||
  storage.mode === "unknown" ||
  nowSeconds - storage.last_updated_at > STORAGE_TTL_SECONDS;

export const isWritable = (mode: StorageMode): boolean => mode === "healthy" || mode === "warn";

/**
 * Before a snapshot, rollback, commit or import on that node.
 * @throws AppError storage_not_writable, with node, mode and error
 */
export function assertWritable(nodeId: string, storage: NodeStorage | undefined): void {
  if (storage !== undefined && isWritable(storage.mode)) return;
  throw notWritable(nodeId, storage);
}

/**
 * Before a build or a download on that node: only a disk that takes nothing but deletions refuses.
 * @throws AppError storage_not_writable
 */
export function assertGrowable(nodeId: string, storage: NodeStorage | undefined): void {
  if (storage?.mode === "delete_only") throw notWritable(nodeId, storage);
}

function notWritable(nodeId: string, storage: NodeStorage | undefined): AppError {
  const { mode = "unknown", usage_pct, last_error = "" } = storage ?? {};
  const state = mode === "unknown" ? last_error || "not measured" : `${usage_pct} % full`;
  return new AppError(
    "storage_not_writable",
    `node ${nodeId} takes no new data: its storage is ${mode} (${state})`,
    { meta: { node_id: nodeId, storage_mode: mode, last_error } },
  );
}
