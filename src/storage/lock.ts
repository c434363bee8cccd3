/** Which process holds the lock of a LevelDB folder: the kernel's own list is the truth. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

export interface LockHolder {
  readonly pid: number;
  /** Arguments joined by blanks; blank when the process cannot be looked at. */
  readonly commandLine: string;
}

// `1: POSIX  ADVISORY  WRITE 4711 fd:00:2228682 0 EOF`: pid, device, inode.
const LOCK_LINE = /POSIX\s+\S+\s+WRITE\s+(\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s/;

/** The process that has locked `dir`, or undefined when the kernel does not say. */
export async function findLockHolder(dir: string): Promise<LockHolder | undefined> {
  try {
    const { ino } = await stat(join(dir, "LOCK"));
    const locks = await readFile("/proc/locks", "utf8");
    for (const line of locks.split("\n")) {
      const [, pid, inode] = LOCK_LINE.exec(line) ?? [];
      if (pid === undefined || Number(inode) !== ino) continue;
      const raw = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return { pid: Number(pid), commandLine: raw.replaceAll("\0", " ").trim() };
    }
  } catch {
    // Without /proc the lock error is still right, it only says less.
  }
  return undefined;
}
