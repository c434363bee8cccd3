/** Which data goes first when a disk is short of room. Pure. */
import { z } from "zod";

/** A copy on one node that it could do without. */
export const evictionSchema = z.object({
  node_id: z.string(),
  artifact_id: z.string(),
  /** Bytes that would be free again; 0 when another artifact there shares them. */
  bytes: z.number().nonnegative(),
  /** `unreferenced`: nobody refers to it. `spare`: others hold it, and nothing here needs it. */
  kind: z.enum(["unreferenced", "spare"]),
  why: z.string(),
});
export type Eviction = z.infer<typeof evictionSchema>;

export interface EvictionCandidate extends Eviction {
  /** Since when nobody refers to it, milliseconds since the epoch; of a spare copy 0. */
  readonly sinceMs: number;
}

/**
 * As many as free `bytes`, in order: what nobody refers to, longest first; then spare copies,
 * largest first. What frees nothing is left alone.
 */
export function chooseEvictions(
  candidates: readonly EvictionCandidate[],
  bytes: number,
): EvictionCandidate[] {
  const inOrder = candidates
    .filter((one) => one.bytes > 0)
    .sort((a, b) => {
      if (a.kind !== b.kind) return a.kind === "unreferenced" ? -1 : 1;
      if (a.kind === "spare") return b.bytes - a.bytes;
      return a.sinceMs - b.sinceMs || b.bytes - a.bytes;
    });
  let freed = 0;
  return inOrder.filter((one) => {
    if (freed >= bytes) return false;
    freed += one.bytes;
    return true;
  });
}
