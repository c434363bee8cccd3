/**
 * Writing of replicated state. A record's version comes from a quorum of the voters (design §4); a
 * fact's version is this node's own counter.
 */
import PQueue from "p-queue";
import { CLUSTER } from "../domain/index.ts";
import type {
  Catalog,
  Clock,
  Entry,
  EntryKind,
  FactKind,
  FactValues,
  LocalWrite,
  RecordKind,
  RecordValues,
  ReplicaStatus,
} from "../domain/index.ts";
import { fenced, type Lease, type Registers } from "../gossip/index.ts";

/** What each node says of its replica of the template or snapshot. */
export const replicasOf = (catalog: Catalog, templateId: string): ReplicaStatus[] =>
  [...catalog.list("replica", { id: templateId })].flatMap(({ value }) => value ?? []);

/** Runs work of one key in order, of different keys at the same time. */
export class KeyedQueue {
  readonly #queues = new Map<string, PQueue>();

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(key) ?? new PQueue({ concurrency: 1 });
    this.#queues.set(key, queue);
    try {
      return await queue.add(work);
    } finally {
      if (queue.size === 0 && queue.pending === 0) this.#queues.delete(key);
    }
  }
}

export interface Records {
  get<K extends RecordKind>(kind: K, id: string): RecordValues[K] | undefined;
  list<K extends RecordKind>(kind: K): IterableIterator<RecordValues[K]>;
  /**
   * Reads, changes and durably writes one record. The change function answers the new value,
   * `null` for a tombstone, or `undefined` to leave the record alone; it may be called several
   * times, and what it throws is thrown here.
   * @param options.isNew the caller has just made the id, by chance: nobody else knows it
   * @throws AppError no_quorum, catalog_degraded, catalog_unavailable; with a lease also fenced,
   *   leadership_lost
   */
  update<K extends RecordKind>(
    kind: K,
    id: string,
    change: (current: RecordValues[K] | undefined) => RecordValues[K] | null | undefined,
    options?: { readonly isNew?: boolean },
  ): Promise<RecordValues[K] | undefined>;
}

export interface Facts {
  readonly nodeId: string;
  get<K extends FactKind>(kind: K, id: string): FactValues[K] | undefined;
  /** `undefined` publishes the fact's absence. */
  put<K extends FactKind>(
    kind: K,
    id: string,
    value: FactValues[K] | undefined,
    options?: { sync?: boolean; local?: readonly LocalWrite[] },
  ): Promise<void>;
  /**
   * Changes a fact that is there; nothing else writes it meanwhile. `undefined` leaves it alone.
   * @returns true when it was written
   */
  update<K extends FactKind>(
    kind: K,
    id: string,
    change: (current: FactValues[K]) => FactValues[K] | undefined,
  ): Promise<boolean>;
  /** Says what is true of it now, above a version that others hold. */
  restate(heard: Pick<Entry, "kind" | "id" | "version">): Promise<void>;
}

/** The kind and its value belong together at every call site; the union type cannot say so. */
const entryOf = (
  owner: string,
  kind: EntryKind,
  id: string,
  version: number,
  value: unknown,
): Entry => ({ owner, kind, id, version, ...(value === undefined ? {} : { value }) }) as Entry;

export function createRecords(catalog: Catalog, registers: Pick<Registers, "update">): Records {
  return {
    get: (kind, id) => catalog.get(CLUSTER, kind, id)?.value,
    *list(kind) {
      for (const entry of catalog.list(kind, { owner: CLUSTER })) {
        if (entry.value !== undefined) yield entry.value;
      }
    },
    async update(kind, id, change, options) {
      return (await registers.update(kind, id, change, options))?.value;
    },
  };
}

/** The same records, written under a leadership: a later leader's records are not overwritten. */
export const ledRecords = (records: Records, lease: Lease): Records => ({
  ...records,
  update: (kind, id, change, options) => records.update(kind, id, fenced(lease, change), options),
});

/**
 * A fact's first version is the time of its first writing: a node whose catalog was lost writes
 * above what its peers still hold of it. The same goes for the first version of each life: what was
 * told without a flush may be known to others, and not to the node after its host's crash.
 */
export function createFacts(catalog: Catalog, clock: Clock, nodeId: string): Facts {
  const inOrder = new KeyedQueue();
  const time = () => Math.max(0, Math.floor(clock.now()));
  const startedAt = time();
  const versionAfter = (current: { readonly version: number } | undefined) =>
    (current === undefined ? time() : Math.max(current.version, startedAt)) + 1;
  return {
    nodeId,
    get: (kind, id) => catalog.get(nodeId, kind, id)?.value,
    put: (kind, id, value, options = {}) =>
      inOrder.run(`${kind}/${id}`, async () => {
        const current = catalog.get(nodeId, kind, id);
        if (value === undefined && current?.value === undefined) {
          if (options.local !== undefined) await catalog.merge([], { local: options.local });
          return;
        }
        await catalog.merge([entryOf(nodeId, kind, id, versionAfter(current), value)], options);
      }),
    update: (kind, id, change) =>
      inOrder.run(`${kind}/${id}`, async () => {
        const current = catalog.get(nodeId, kind, id);
        const value = current?.value === undefined ? undefined : change(current.value);
        if (value === undefined) return false;
        await catalog.merge([entryOf(nodeId, kind, id, versionAfter(current), value)]);
        return true;
      }),
    restate: ({ kind, id, version }) =>
      inOrder.run(`${kind}/${id}`, async () => {
        const current = catalog.get(nodeId, kind, id);
        if ((current?.version ?? 0) > version) return;
        // Above what is known of a former life, and of this one.
        const above = Math.max(version, startedAt) + 1;
        await catalog.merge([entryOf(nodeId, kind, id, above, current?.value)]);
      }),
  };
}
