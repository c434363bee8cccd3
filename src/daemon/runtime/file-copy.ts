/** Copies of large files that take as little as the filesystem allows. */
import { constants } from "node:fs";
import { copyFile, link } from "node:fs/promises";
import { execa } from "execa";

/**
 * Shares blocks where the filesystem can do that, and keeps holes.
 * @throws Error, or the signal's reason
 */
export async function copySparse(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const options = signal === undefined ? {} : { cancelSignal: signal };
  await execa("cp", ["--reflink=auto", "--sparse=always", from, to], options);
}

/** A second name for the same file; a copy on another filesystem, or on one without links. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  }
}
