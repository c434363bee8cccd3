/** A snapshot that stands by itself: its disk as one raw file, and nothing of its own above it. */
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { AppError, type DriverSnapshot, type RuntimeDriver } from "../../../domain/index.ts";
import { copySparse } from "../file-copy.ts";
import { readManifest } from "../file-manifest.ts";
import { writeOverlay } from "../qcow2.ts";
import { applyOverlay } from "../qcow2-merge.ts";
import { VM_FILES } from "./command.ts";
import { isWhole, readSnapshot, ROOTFS_BACKING, writeRecord } from "./snapshot.ts";

/** @throws AppError snapshot_not_found, snapshot_failed, or the signal's reason */
export async function flattenDisk(
  snapshot: DriverSnapshot,
  to: string,
  signal: AbortSignal | undefined,
): ReturnType<RuntimeDriver["flattenSnapshot"]> {
  if (!(await isWhole(snapshot))) {
    throw new AppError("snapshot_not_found", `${snapshot.dir} holds no whole snapshot`);
  }
  const record = await readSnapshot(snapshot);
  const { diskBytes, rootfsPath } = record;
  const disk = join(snapshot.dir, VM_FILES.disk);
  const options = signal === undefined ? {} : { signal };
  try {
    await copySparse(rootfsPath, to, signal);
    await applyOverlay(disk, to, diskBytes, options);
    await rm(`${disk}.new`, { force: true });
    await writeOverlay(`${disk}.new`, diskBytes, ROOTFS_BACKING);
    await rename(`${disk}.new`, disk);
    const bytes = await writeRecord(snapshot.dir, { ...record, rootfsPath: to });
    return { snapshot: { ...snapshot, bytes }, rootfs: await readManifest(to, signal) };
  } catch (cause) {
    await rm(to, { force: true });
    if (signal?.aborted === true) throw signal.reason;
    const what = `the disk of ${snapshot.snapshotId ?? snapshot.templateId} was not written out`;
    throw new AppError("snapshot_failed", what, { cause });
  }
}
