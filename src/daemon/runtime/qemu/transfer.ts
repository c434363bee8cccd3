/** A snapshot's files on their way to another host: read there, linked here. */
import { mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import {
  AppError,
  type DriverSnapshot,
  type RuntimeDriver,
  type SnapshotExport,
} from "../../../domain/index.ts";
import { linkOrCopy } from "../file-copy.ts";
import { readManifest } from "../file-manifest.ts";
import { isWhole, PARTS, publishSnapshot, readSnapshot, workFolder } from "./snapshot.ts";

const descriptionSchema = z.strictObject({
  format: z.literal(1),
  memory_mib: z.int().positive(),
  cpus: z.int().positive(),
  disk_bytes: z.int().positive(),
  rootfs_bytes: z.int().positive(),
});

/** @throws AppError snapshot_not_found when it is not whole */
export async function exportFiles(
  snapshot: DriverSnapshot,
  signal: AbortSignal | undefined,
): Promise<SnapshotExport> {
  if (!(await isWhole(snapshot))) {
    throw new AppError("snapshot_not_found", `${snapshot.dir} holds no whole snapshot`);
  }
  const record = await readSnapshot(snapshot);
  const description: z.infer<typeof descriptionSchema> = {
    format: 1,
    memory_mib: record.shape.memoryMib,
    cpus: record.shape.cpus,
    disk_bytes: record.diskBytes,
    rootfs_bytes: (await stat(record.rootfsPath)).size,
  };
  const files = [];
  for (const name of PARTS) {
    const path = join(snapshot.dir, name);
    files.push({ name, path, ...(await readManifest(path, signal)) });
  }
  return { description, files };
}

type Import = Parameters<RuntimeDriver["importSnapshot"]>[0];

/** @throws AppError snapshot_failed, or the signal's reason; nothing is left then */
export async function importFiles(
  input: Import,
  signal: AbortSignal | undefined,
): Promise<DriverSnapshot> {
  const { dir, rootfsPath } = input;
  const work = workFolder(dir);
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true, mode: 0o750 });
  try {
    const description = descriptionSchema.parse(input.description);
    if ((await stat(rootfsPath)).size !== description.rootfs_bytes) {
      throw new Error("the root filesystem is not the one the snapshot lies on");
    }
    for (const part of PARTS) {
      signal?.throwIfAborted();
      const file = input.files.find(({ name }) => name === part);
      if (file === undefined) throw new Error(`${part} is not among the files`);
      await linkOrCopy(file.path, join(work, part));
    }
    const memory = await stat(join(work, "memory"));
    if (memory.size !== description.memory_mib * 1_048_576) {
      throw new Error("the memory is not as long as described");
    }
    const shape = { memoryMib: description.memory_mib, cpus: description.cpus };
    const diskBytes = description.disk_bytes;
    const bytes = await publishSnapshot(work, dir, { shape, diskBytes, rootfsPath });
    const { templateId, snapshotId, versions } = input;
    const of = snapshotId === undefined ? { templateId } : { templateId, snapshotId };
    return { ...of, driver: "qemu", dir, versions, bytes, timings: {} };
  } catch (cause) {
    await rm(work, { recursive: true, force: true });
    if (signal?.aborted === true) throw signal.reason;
    const what = `snapshot ${input.snapshotId ?? input.templateId} cannot be made of what came for it`;
    throw new AppError("snapshot_failed", what, { cause });
  }
}
