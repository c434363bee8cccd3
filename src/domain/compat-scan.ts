/** What is asked of compat and answered: scans of nodes, and baselines (spec §5.3, §5.4). */
import { z } from "zod";

const id = z.string().trim().min(1, "must not be blank").max(256);
const count = z.number().int().nonnegative();

export const rescanCompatSchema = z.strictObject({
  node_ids: z.array(id).max(1_000).default([]),
  all_nodes: z.boolean().default(false).describe("every healthy node"),
});
export type RescanCompatRequest = z.infer<typeof rescanCompatSchema>;

export const nodeScanSchema = z.object({
  node_id: z.string(),
  healthy: z.boolean().describe("false: it is down, so that nothing could be written there"),
  scanned: count.describe("READY replicas that were looked at"),
  changed: count.describe("those with another status than before"),
  stale: count,
  unknown: count,
});
export type NodeScan = z.infer<typeof nodeScanSchema>;

export const compatScanSchema = z.object({ nodes: z.array(nodeScanSchema) });
export type CompatScan = z.infer<typeof compatScanSchema>;

export const adoptedCompatSchema = z.object({
  template_id: z.string(),
  updated: count.describe("replicas that took over their node's versions"),
  nodes: z.array(z.string()).describe("where"),
});
export type AdoptedCompat = z.infer<typeof adoptedCompatSchema>;
