/**
 * Which process is meant: by pid and start time, so that a pid which was given to another process
 * is never taken for ours.
 */
import { readFile } from "node:fs/promises";

export interface ProcessId {
  readonly pid: number;
  /** Clock ticks after boot at which it started: field 22 of /proc/PID/stat. */
  readonly startTicks: string;
}

/** Undefined when there is no such process, or it has ended and waits to be collected. */
export async function startTicks(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name in parentheses may hold blanks: fields are counted behind the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undefined : fields[19];
}

export const isAlive = async ({ pid, startTicks: ticks }: ProcessId): Promise<boolean> =>
  (await startTicks(pid)) === ticks;
