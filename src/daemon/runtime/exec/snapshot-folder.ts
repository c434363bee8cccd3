/** A snapshot of an exec driver on disk: the executable's files, and our record of them. */
import { lstat, open, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { AppError } from "../../../domain/index.ts";
import { FILE_NAME } from "./contract.ts";

/** Begins with a dot, which no file of the executable may. */
const RECORD = ".templatecenter.json";

const numbers = z.record(z.string(), z.number());
export const versionsSchema = z.object({
  guest_image_version: z.string(),
  agent_version: z.string(),
  kernel_version: z.string(),
  extra: z.record(z.string(), z.string()),
});
const recordSchema = z.object({
  format: z.literal(1),
  /** Whose files they are: another executable cannot read them. */
  runtime: z.string(),
  rootfs_path: z.string(),
  rootfs_bytes: z.number(),
  /** Name to size, to tell a whole snapshot from a damaged one. */
  sizes: numbers,
  /** What the executable wants to be told of them. */
  description: numbers,
  versions: versionsSchema,
});
export type SnapshotRecord = z.output<typeof recordSchema>;

/** The folder a snapshot is made in, with the instance that it is made of. */
export const workFolder = (dir: string): string => `${dir}.new`;

async function flush(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Sizes of the files that the executable says it has made, and the bytes they take on disk.
 * @throws AppError driver_failed when one is missing or no file, or the folder holds another
 */
export async function measureFiles(
  dir: string,
  names: readonly string[],
): Promise<{ sizes: Record<string, number>; bytes: number }> {
  const sizes: Record<string, number> = {};
  let bytes = 0;
  for (const name of names) {
    const found = await lstat(join(dir, name)).catch(() => undefined);
    if (found?.isFile() !== true) {
      throw new AppError("driver_failed", `the snapshot has no file ${name}`);
    }
    sizes[name] = found.size;
    bytes += found.blocks * 512;
  }
  const other = (await readdir(dir)).find((name) => name !== RECORD && !names.includes(name));
  if (other !== undefined) {
    throw new AppError("driver_failed", `the snapshot's folder holds ${other}, which is not told`);
  }
  return { sizes, bytes };
}

/**
 * Makes what lies in `from` the snapshot in `dir`: flushed to disk, then the record, then one
 * rename. Whatever was in `dir` is replaced.
 * @returns bytes it takes on disk
 */
export async function publishSnapshot(
  from: string,
  dir: string,
  input: Pick<SnapshotRecord, "runtime" | "rootfs_path" | "description" | "versions"> & {
    files: readonly string[];
  },
): Promise<number> {
  const { files, ...rest } = input;
  const { sizes, bytes } = await measureFiles(from, files);
  for (const name of files) await flush(join(from, name));
  const rootfs_bytes = (await stat(rest.rootfs_path)).size;
  const record: SnapshotRecord = { format: 1, ...rest, rootfs_bytes, sizes };
  await writeFile(join(from, RECORD), `${JSON.stringify(record)}\n`, { mode: 0o640, flush: true });
  await flush(from);
  await rm(dir, { recursive: true, force: true });
  await rename(from, dir);
  await flush(dirname(dir));
  return bytes;
}

/** Undefined when there is no record that reads. */
export async function readSnapshot(dir: string): Promise<SnapshotRecord | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(join(dir, RECORD), "utf8")));
  } catch {
    return undefined;
  }
}

/** True when all files, the root filesystem included, have their recorded sizes. */
export async function isWhole(dir: string, runtime: string): Promise<boolean> {
  const record = await readSnapshot(dir);
  if (record?.runtime !== runtime) return false;
  const sizeOf = async (path: string) => (await stat(path).catch(() => undefined))?.size;
  for (const [name, size] of Object.entries(record.sizes)) {
    if (!FILE_NAME.test(name) || (await sizeOf(join(dir, name))) !== size) return false;
  }
  return (await sizeOf(record.rootfs_path)) === record.rootfs_bytes;
}

/** The snapshot as requests have it. */
export const snapshotOf = (dir: string, { sizes, description }: SnapshotRecord) => ({
  dir,
  files: Object.keys(sizes),
  description,
});
