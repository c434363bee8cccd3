/** Writes that are on the disk when they answer. */
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** Flushes the names in a folder. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Flushes a file's bytes, and gives it the mode that artifacts have. */
export async function syncFile(path: string, mode: number): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.chmod(mode);
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function writeFileSynced(
  path: string,
  bytes: Uint8Array | string,
  mode: number,
): Promise<void> {
  const file = await open(path, "w", mode);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Replaces a file in one step: readers find the old or the new one, whole.
 * @param scratch where the new one is written first; on the same filesystem.
 */
export async function replaceFile(
  path: string,
  bytes: Uint8Array | string,
  options: { scratch: string; mode: number },
): Promise<void> {
  await writeFileSynced(options.scratch, bytes, options.mode);
  await rename(options.scratch, path);
  await syncFolder(dirname(path));
}
