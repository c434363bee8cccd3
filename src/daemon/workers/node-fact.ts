/**
 * This node's own fact: address, versions, capacity, disk. Published at start and when it changes.
 */
import { statfs } from "node:fs/promises";
import {
  errorText,
  type Clock,
  type Log,
  type NodeFact,
  type RuntimeDriver,
} from "../../domain/index.ts";
import type { Facts } from "../records.ts";

export interface NodeFactParts {
  readonly facts: Facts;
  readonly driver: RuntimeDriver;
  /** Why this driver was chosen. */
  readonly driverDetail: () => string;
  readonly clock: Clock;
  readonly log: Log;
  readonly dataDir: string;
  readonly version: string;
  readonly nodeIp: string;
  readonly address: () => string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
}

/** Thresholds of spec §9.1. */
export const storageMode = (usagePct: number): NodeFact["storage"]["mode"] =>
  usagePct >= 95 ? "delete_only" : usagePct >= 85 ? "reject" : usagePct >= 70 ? "warn" : "healthy";

async function storageOf(dir: string, clock: Clock): Promise<NodeFact["storage"]> {
  const last_updated_at = Math.floor(clock.now() / 1_000);
  try {
    const { bsize, blocks, bavail } = await statfs(dir);
    const total = bsize * blocks;
    const used = total - bsize * bavail;
    const usage_pct = total === 0 ? 0 : Math.min(100, Math.round((used * 100) / total));
    return {
      usage_pct,
      total_bytes: total,
      free_bytes: bsize * bavail,
      mode: storageMode(usage_pct),
      last_error: "",
      last_updated_at,
    };
  } catch (error) {
    return {
      usage_pct: 0,
      total_bytes: 0,
      free_bytes: 0,
      mode: "unknown",
      last_error: errorText(error),
      last_updated_at,
    };
  }
}

/**
 * @returns a function that publishes the fact again, when anything but small disk use has changed.
 */
export function createNodeFact(parts: NodeFactParts): () => Promise<NodeFact> {
  const startedAt = new Date(parts.clock.now()).toISOString();
  return async () => {
    const { extra, ...versions } = await parts.driver.versions();
    const fact: NodeFact = {
      node_id: parts.facts.nodeId,
      node_ip: parts.nodeIp,
      address: parts.address(),
      instance_type: "cubebox",
      version: parts.version,
      started_at: startedAt,
      healthy: true,
      drained: false,
      driver: parts.driver.name,
      driver_detail: parts.driverDetail(),
      ...versions,
      versions_extra: { ...extra },
      cpu_count: parts.cpuCount,
      memory_bytes: parts.memoryBytes,
      storage: await storageOf(parts.dataDir, parts.clock),
    };
    await parts.facts.put("node", fact.node_id, fact);
    return fact;
  };
}
