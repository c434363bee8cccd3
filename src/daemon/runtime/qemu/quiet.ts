/**
 * A guest that was ready a moment ago still has work of its boot before it. What is under way when
 * it is snapshotted runs in every sandbox, so the snapshot waits until the guest is quiet: under
 * emulation that halves the time to a sandbox's first answer.
 */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../../domain/index.ts";

const WINDOW_MS = 250;
/** A hundredth of a second each: at most 8 % of a processor is quiet. */
const QUIET_TICKS = 2;
/** A guest that is never quiet is snapshotted all the same. */
const LIMIT_MS = 3_000;

/** Processor time a process has used, in hundredths of a second; undefined when it is gone. */
async function usedTicks(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields === undefined ? undefined : Number(fields[11]) + Number(fields[12]);
}

/** Resolves when the process has used next to no processor time for a while, or after 3 s. */
export async function awaitQuiet(pid: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const until = clock.monotonic() + LIMIT_MS;
  let before = await usedTicks(pid);
  while (before !== undefined && clock.monotonic() < until) {
    await clock.sleep(WINDOW_MS, { signal });
    const now = await usedTicks(pid);
    if (now === undefined || now - before <= QUIET_TICKS) return;
    before = now;
  }
}
