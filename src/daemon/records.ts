/**
 * Writing of replicated state. A record's version comes from a quorum; a lone node is its own
 * quorum (design §4), so here the change function runs against the node's own catalog, one change
 * of a record at a time. A fact's version is this node's own counter.
 */
import PQueue from "p-queue";
import { CLUSTER } from "../domain/index.ts";
import type {
  Catalog,
  Entry,
  EntryKind,
  FactKind,
  FactValues,
  LocalWrite,
  RecordKind,
  RecordValues,
} from "../domain/index.ts";

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
   * `null` for a tombstone, or `undefined` to leave the record alone; what it throws is thrown
   * here.
   * @throws AppError catalog_degraded, catalog_unavailable
   */
  update<K extends RecordKind>(
    kind: K,
    id: string,
    change: (current: RecordValues[K] | undefined) => RecordValues[K] | null | undefined,
    local?: readonly LocalWrite[],
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
}

/** The kind and its value belong together at every call site; the union type cannot say so. */
const entryOf = (
  owner: string,
  kind: EntryKind,
  id: string,
  version: number,
  value: unknown,
): Entry => ({ owner, kind, id, version, ...(value === undefined ? {} : { value }) }) as Entry;

export function createRecords(catalog: Catalog): Records {
  const inOrder = new KeyedQueue();
  return {
    get: (kind, id) => catalog.get(CLUSTER, kind, id)?.value,
    *list(kind) {
      for (const entry of catalog.list(kind, { owner: CLUSTER })) {
        if (entry.value !== undefined) yield entry.value;
      }
    },
    update: (kind, id, change, local = []) =>
      inOrder.run(`${kind}/${id}`, async () => {
        const current = catalog.get(CLUSTER, kind, id);
        const next = change(current?.value);
        if (next === undefined) return current?.value;
        const version = (current?.version ?? 0) + 1;
        const value = next === null ? undefined : next;
        if (value === undefined && current?.value === undefined && local.length === 0) return value;
        await catalog.merge([entryOf(CLUSTER, kind, id, version, value)], { local });
        return value;
      }),
  };
}

export function createFacts(catalog: Catalog, nodeId: string): Facts {
  const inOrder = new KeyedQueue();
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
        await catalog.merge(
          [entryOf(nodeId, kind, id, (current?.version ?? 0) + 1, value)],
          options,
        );
      }),
  };
}
