/**
 * Every node, compat (design §9): the status of its own replicas against the versions that it would
 * boot now. Done at start and when one of those versions changes; changes that come together are
 * scanned for once, and those that come during a scan once more after it.
 */
import {
  adoptedBaseline,
  scanCompat,
  type Catalog,
  type Clock,
  type Log,
  type NodeFact,
  type NodeScan,
  type ReplicaStatus,
} from "../../domain/index.ts";
import type { Facts } from "../records.ts";

export interface CompatScanParts {
  readonly catalog: Catalog;
  readonly facts: Facts;
  readonly clock: Clock;
  readonly log: Log;
}

const SETTLE_MS = 250;

const versionsKey = (node: NodeFact): string =>
  JSON.stringify([
    node.guest_image_version,
    node.agent_version,
    node.kernel_version,
    Object.entries(node.versions_extra).sort(),
  ]);

export class CompatScanWorker {
  readonly #parts: CompatScanParts;
  #scanned = "";
  #timer: { cancel(): void } | undefined;
  #running: Promise<NodeScan> | undefined;
  #queued: Promise<NodeScan> | undefined;
  #stopped = false;
  #unsubscribe: () => void = () => undefined;

  constructor(parts: CompatScanParts) {
    this.#parts = parts;
  }

  /** Scans once, and after each change of this node's versions from now on. */
  start(): void {
    const { catalog, facts } = this.#parts;
    this.#unsubscribe = catalog.subscribe((entry) => {
      if (entry.kind === "node" && entry.owner === facts.nodeId) this.#consider();
    });
    this.#consider();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unsubscribe();
    this.#timer?.cancel();
    await Promise.allSettled([this.#running, this.#queued]);
  }

  #self(): NodeFact | undefined {
    return this.#parts.facts.get("node", this.#parts.facts.nodeId);
  }

  #consider(): void {
    const node = this.#self();
    if (this.#stopped || node === undefined || versionsKey(node) === this.#scanned) return;
    this.#timer ??= this.#parts.clock.after(SETTLE_MS, () => {
      this.#timer = undefined;
      this.scan().catch((error: unknown) => {
        this.#parts.log.warn("the scan of compat failed", { err: error });
      });
    });
  }

  /** All who ask while a scan runs share the one that follows it. */
  scan(): Promise<NodeScan> {
    if (this.#running === undefined) {
      const run = this.#scan().finally(() => (this.#running = undefined));
      return (this.#running = run);
    }
    const after = this.#running.catch(() => undefined);
    this.#queued ??= after.then(() => {
      this.#queued = undefined;
      return this.scan();
    });
    return this.#queued;
  }

  async #scan(): Promise<NodeScan> {
    const { facts, log } = this.#parts;
    const node = this.#self();
    const result = { node_id: facts.nodeId, healthy: true, scanned: 0, stale: 0, unknown: 0 };
    if (node === undefined) return { ...result, changed: 0 };
    const written = [];
    for (const { id, replica } of this.#ready()) {
      const status = scanCompat(replica, node);
      result.scanned++;
      if (status === "STALE") result.stale++;
      if (status === "UNKNOWN") result.unknown++;
      if (status !== replica.compat_status) written.push(this.#write(id, node));
    }
    const changed = (await Promise.all(written)).filter(Boolean).length;
    this.#scanned = versionsKey(node);
    if (changed > 0) log.info("compat has changed", { ...result, changed });
    return { ...result, changed };
  }

  #write(id: string, node: NodeFact): Promise<boolean> {
    const { facts, clock } = this.#parts;
    return facts.update("replica", id, (replica) => {
      const compat_status = scanCompat(replica, node);
      // Made again meanwhile, or taken away: what it is now has been judged by who wrote it.
      if (replica.status !== "READY" || replica.compat_status === compat_status) return undefined;
      return { ...replica, compat_status, compat_checked_unix: Math.floor(clock.now() / 1_000) };
    });
  }

  *#ready(): Iterable<{ id: string; replica: ReplicaStatus }> {
    const { catalog, facts } = this.#parts;
    for (const { id, value } of catalog.list("replica", { owner: facts.nodeId })) {
      if (value?.status === "READY") yield { id, replica: value };
    }
  }

  /** @returns true when this node's replica of it has taken over the node's versions */
  adopt(templateId: string): Promise<boolean> {
    const { facts, clock } = this.#parts;
    return facts.update("replica", templateId, (replica) => {
      const node = this.#self();
      const baseline = node === undefined ? undefined : adoptedBaseline(replica, node);
      const compat_checked_unix = Math.floor(clock.now() / 1_000);
      return baseline === undefined ? undefined : { ...replica, ...baseline, compat_checked_unix };
    });
  }
}
