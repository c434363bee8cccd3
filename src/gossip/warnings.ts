/**
 * What is wrong between this node and others, for its operator: each thing once in the log when it
 * begins and from time to time while it lasts, and in the cluster's state until it is over.
 */
import type { Clock, ClusterWarning, ErrorCode, Log } from "../domain/index.ts";
import { createThrottle } from "./throttle.ts";

export interface Warnings {
  /** Replaces what stands under that key. */
  raise(
    key: string,
    warning: { code: ErrorCode; node_id: string; detail: string; advice: string },
  ): void;
  clear(key: string): void;
  /** One a node and code. */
  list(): readonly ClusterWarning[];
  onChange(listener: () => void): () => void;
}

export function createWarnings({ clock, log }: { clock: Clock; log: Log }): Warnings {
  const standing = new Map<string, ClusterWarning>();
  const listeners = new Set<() => void>();
  const maySay = createThrottle(clock);
  const tell = () => {
    for (const listener of listeners) listener();
  };
  return {
    raise(key, warning) {
      const before = standing.get(key);
      const isSame = before?.code === warning.code;
      const since = isSame ? before.since : new Date(clock.now()).toISOString();
      standing.set(key, { ...warning, since });
      if (!isSame) tell();
      const { code, node_id: node, detail: reason, advice } = warning;
      if (!maySay(`${node} ${code}`)) return;
      log.error("something is wrong between this node and another", {
        node,
        code,
        reason,
        advice,
      });
    },
    clear(key) {
      const before = standing.get(key);
      if (before === undefined) return;
      standing.delete(key);
      const { node_id: node, code } = before;
      log.info("what was wrong between this node and another is over", { node, code });
      tell();
    },
    list() {
      const found = new Map(
        [...standing.values()].map((one) => [`${one.node_id} ${one.code}`, one] as const),
      );
      return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
