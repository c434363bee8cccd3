/** What processes take of the host's memory, pages they share counted in parts. */
import { readFile } from "node:fs/promises";

/** Pids that are there, each once, and the sum of their proportional set sizes. */
export async function measureMemory(
  candidates: readonly number[],
): Promise<{ pids: number; bytes: number }> {
  let pids = 0;
  let bytes = 0;
  for (const pid of new Set(candidates)) {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => undefined);
    if (text === undefined) continue;
    pids++;
    bytes += Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1_024;
  }
  return { pids, bytes };
}
