/**
 * A snapshot that stands by itself: its disk as one raw file, whose journal is played back. The
 * frozen guest goes on with a disk as it left it, or its kernel would lose what it knows of it:
 * what the playing back has changed lies above that file as it was.
 */
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { AppError, type DriverSnapshot, type RuntimeDriver } from "../../../domain/index.ts";
import { copySparse } from "../file-copy.ts";
import { readManifest } from "../file-manifest.ts";
import { writeOverlay } from "../qcow2.ts";
import { applyOverlay, keepBelow } from "../qcow2-merge.ts";
import { VM_FILES } from "./command.ts";
import { isClean, replayJournal, type ReplayParts } from "./replay.ts";
import { isWhole, readSnapshot, ROOTFS_BACKING, writeRecord } from "./snapshot.ts";

/** @throws AppError snapshot_not_found, snapshot_failed, or the signal's reason */
export async function flattenDisk(
  snapshot: DriverSnapshot,
  to: string,
  parts: ReplayParts,
  signal: AbortSignal,
): ReturnType<RuntimeDriver["flattenSnapshot"]> {
  if (!(await isWhole(snapshot))) {
    throw new AppError("snapshot_not_found", `${snapshot.dir} holds no whole snapshot`);
  }
  const record = await readSnapshot(snapshot);
  const { diskBytes, rootfsPath } = record;
  const disk = join(snapshot.dir, VM_FILES.disk);
  const dir = join(snapshot.dir, "replay");
  try {
    await copySparse(rootfsPath, to, signal);
    await applyOverlay(disk, to, diskBytes, { signal });
    await rm(`${disk}.new`, { force: true });
    if (await isClean(to)) await writeOverlay(`${disk}.new`, diskBytes, ROOTFS_BACKING);
    else {
      const played = await replayJournal(parts, { rootfsPath: to, diskBytes, dir }, signal);
      await keepBelow(played, to, `${disk}.new`, diskBytes, ROOTFS_BACKING, { signal });
      await applyOverlay(played, to, diskBytes, { signal });
      if (!(await isClean(to))) throw new Error("the filesystem is damaged: its kernel says so");
    }
    await rename(`${disk}.new`, disk);
    const bytes = await writeRecord(snapshot.dir, { ...record, rootfsPath: to });
    return { snapshot: { ...snapshot, bytes }, rootfs: await readManifest(to, signal) };
  } catch (cause) {
    await rm(to, { force: true });
    if (signal.aborted) throw signal.reason;
    const what = `the disk of ${snapshot.snapshotId ?? snapshot.templateId} was not written out`;
    throw new AppError("snapshot_failed", what, { cause });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
