/**
 * This node's own fact: address, versions, capacity, disk. Published at start and when it changes.
 */
import { statfs } from "node:fs/promises";
import {
  errorText,
  sortKeys,
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
  /** True when every template that this node is to hold is READY here. */
  readonly isFilled: () => boolean;
}

/** Oldest and newest version of the messages between nodes that this daemon speaks. */
export const WIRE = { min: 1, max: 1 } as const;

/**
 * Free space is told again when it has moved by this share of the disk, or the mode has changed.
 */
const SPACE_STEP = 0.02;

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

/** What of a fact others must know at once; small moves of free space are not among it. */
function essence(fact: NodeFact): string {
  const { usage_pct: _u, free_bytes: _f, last_updated_at: _l, ...storage } = fact.storage;
  return JSON.stringify(sortKeys({ ...fact, storage }));
}

const hasMoved = (fact: NodeFact, last: NodeFact): boolean =>
  Math.abs(fact.storage.free_bytes - last.storage.free_bytes) >
  SPACE_STEP * fact.storage.total_bytes;

/**
 * @returns a function that takes the state of this node and publishes its fact when anything but
 * small disk use has changed: an idle cluster is to be silent. Answers the fact as it is now.
 */
export function createNodeFact(parts: NodeFactParts): () => Promise<NodeFact> {
  const startedAt = new Date(parts.clock.now()).toISOString();
  const { facts } = parts;
  return async () => {
    const { extra, ...versions } = await parts.driver.versions();
    const last = facts.get("node", facts.nodeId);
    const fact: NodeFact = {
      node_id: facts.nodeId,
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
      wire: WIRE,
      // Once filled, a node that lacks one of its templates is not a new one again.
      warm: last?.["warm"] === true || parts.isFilled(),
      cpu_count: parts.cpuCount,
      memory_bytes: parts.memoryBytes,
      storage: await storageOf(parts.dataDir, parts.clock),
    };
    if (last === undefined || essence(last) !== essence(fact) || hasMoved(fact, last)) {
      await facts.put("node", fact.node_id, fact);
    }
    return fact;
  };
}
