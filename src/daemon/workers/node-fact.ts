/**
 * This node's own fact: address, versions, capacity, disk. Published at start and when it changes.
 */
import {
  isRetentionOff,
  sortKeys,
  type Clock,
  type Log,
  type NodeFact,
  type RetentionPolicy,
  type RuntimeDriver,
} from "../../domain/index.ts";
import type { DiskMeter } from "../disk/meter.ts";
import type { Facts } from "../records.ts";

export interface NodeFactParts {
  readonly facts: Facts;
  readonly driver: RuntimeDriver;
  /** Why this driver was chosen. */
  readonly driverDetail: () => string;
  /** Why it does not answer, while it does not. */
  readonly driverFailure?: () => string | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: Pick<DiskMeter, "measure">;
  readonly version: string;
  readonly nodeIp: string;
  readonly address: () => string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  /** How long to pause between stale replicas that are made again; 0: they are left alone. */
  readonly resnapshotIntervalMs: number;
  readonly retention: RetentionPolicy;
  /** True when every template that this node is to hold is READY here. */
  readonly isFilled: () => boolean;
}

/** Oldest and newest version of the messages between nodes that this daemon speaks. */
export const WIRE = { min: 1, max: 1 } as const;

/**
 * Free space is told again when it has moved by this share of the disk, or the mode has changed.
 */
const SPACE_STEP = 0.02;

/** What of a fact others must know at once; small moves of free space are not among it. */
function essence(fact: NodeFact): string {
  const { mode, last_error, total_bytes } = fact.storage;
  return JSON.stringify(sortKeys({ ...fact, storage: { mode, last_error, total_bytes } }));
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
    const driver_error = parts.driverFailure?.();
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
      ...(driver_error === undefined ? {} : { driver_error }),
      ...versions,
      versions_extra: { ...extra },
      ...(parts.resnapshotIntervalMs > 0
        ? { resnapshot_interval_ms: parts.resnapshotIntervalMs }
        : {}),
      ...(isRetentionOff(parts.retention) ? {} : { retention: parts.retention }),
      wire: WIRE,
      // Once filled, a node that lacks one of its templates is not a new one again.
      warm: last?.["warm"] === true || parts.isFilled(),
      cpu_count: parts.cpuCount,
      memory_bytes: parts.memoryBytes,
      storage: await parts.meter.measure(),
    };
    if (last === undefined || essence(last) !== essence(fact) || hasMoved(fact, last)) {
      await facts.put("node", fact.node_id, fact);
    }
    return fact;
  };
}
