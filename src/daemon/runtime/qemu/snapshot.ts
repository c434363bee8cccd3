/** A snapshot on disk, a template's or a sandbox's: files, and the record that makes it whole. */
import { open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { DriverSnapshot } from "../../../domain/index.ts";
import { VM_FILES, type Shape } from "./command.ts";

const RECORD = "snapshot.json";
/** What a restore needs. */
export const PARTS = [VM_FILES.memory, VM_FILES.disk, VM_FILES.state] as const;

/** A header needs a name; what the disk really lies on is in the record. */
export const ROOTFS_BACKING = { path: "rootfs", format: "raw" } as const;

/** The folder a snapshot is made in. */
export const workFolder = (dir: string): string => `${dir}.new`;

const recordSchema = z.object({
  format: z.literal(1),
  memory_mib: z.number(),
  cpus: z.number(),
  /** Of the disk as the guest sees it. */
  disk_bytes: z.number(),
  rootfs_path: z.string(),
  rootfs_bytes: z.number(),
  /** Sizes of the files, to tell a whole snapshot from a damaged one. */
  sizes: z.record(z.string(), z.number()),
});

export interface SnapshotRecord {
  readonly shape: Shape;
  readonly diskBytes: number;
  readonly rootfsPath: string;
}

/** Bytes each file takes on disk, holes not counted, and its length. */
async function measure(dir: string): Promise<{ sizes: Record<string, number>; bytes: number }> {
  const sizes: Record<string, number> = {};
  let bytes = 0;
  for (const name of PARTS) {
    const found = await stat(join(dir, name));
    sizes[name] = found.size;
    bytes += found.blocks * 512;
  }
  return { sizes, bytes };
}

async function flush(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Makes what lies in `workDir` the snapshot in `dir`: flushed to disk, then the record, then one
 * rename. Whatever was in `dir` is replaced.
 * @returns bytes it takes on disk
 */
export async function publishSnapshot(
  workDir: string,
  dir: string,
  record: SnapshotRecord,
): Promise<number> {
  for (const name of PARTS) await flush(join(workDir, name));
  const bytes = await writeRecord(workDir, record);
  await flush(workDir);
  await rm(dir, { recursive: true, force: true });
  await rename(workDir, dir);
  await flush(join(dir, ".."));
  return bytes;
}

/** @returns bytes that the files take on disk */
export async function writeRecord(dir: string, record: SnapshotRecord): Promise<number> {
  const { sizes, bytes } = await measure(dir);
  const text = JSON.stringify({
    format: 1,
    memory_mib: record.shape.memoryMib,
    cpus: record.shape.cpus,
    disk_bytes: record.diskBytes,
    rootfs_path: record.rootfsPath,
    rootfs_bytes: (await stat(record.rootfsPath)).size,
    sizes,
  } satisfies z.infer<typeof recordSchema>);
  await writeFile(join(dir, RECORD), `${text}\n`, { mode: 0o640, flush: true });
  return bytes;
}

/** @throws Error when there is no readable record */
export async function readSnapshot(snapshot: DriverSnapshot): Promise<SnapshotRecord> {
  const record = await parse(snapshot.dir);
  return {
    shape: { memoryMib: record.memory_mib, cpus: record.cpus },
    diskBytes: record.disk_bytes,
    rootfsPath: record.rootfs_path,
  };
}

const parse = async (dir: string) =>
  recordSchema.parse(JSON.parse(await readFile(join(dir, RECORD), "utf8")));

/** True when all files, the root filesystem below the disk included, have their recorded sizes. */
export async function isWhole(snapshot: DriverSnapshot): Promise<boolean> {
  try {
    const record = await parse(snapshot.dir);
    for (const name of PARTS) {
      if ((await stat(join(snapshot.dir, name))).size !== record.sizes[name]) return false;
    }
    return (await stat(record.rootfs_path)).size === record.rootfs_bytes;
  } catch {
    return false;
  }
}
