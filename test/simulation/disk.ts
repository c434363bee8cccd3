/**
 * A node's catalog in memory, with the disk's crash model: a write is on the disk when its flush
 * has ended, in order; a crash loses what was not. A full disk refuses writes for a while.
 */
import {
  AppError,
  supersedes,
  type Catalog,
  type Entry,
  type EntryKind,
  type LocalTable,
  type LocalTableName,
  type LocalWrite,
} from "../../src/domain/index.ts";
import type { Host } from "./world.ts";

interface Rows {
  entries: Map<string, { entry: Entry; sequence: number }>;
  local: Map<string, unknown>;
}

export interface Write {
  readonly entries: readonly Entry[];
  readonly local: readonly LocalWrite[];
  /** Keys of entries that are taken out. */
  readonly purged?: readonly string[];
}

const keyOf = ({ owner, kind, id }: { owner: string; kind: string; id: string }): string =>
  `${kind}\0${id}\0${owner}`;
const rowKey = (table: string, key: string): string => `${table}\0${key}`;

/** What is stored is plain: `structuredClone` takes ten times as long. */
function clone<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(clone) as T;
  if (Object.getPrototypeOf(value) !== Object.prototype) return structuredClone(value);
  const copy: Record<string, unknown> = {};
  for (const key of Object.keys(value)) copy[key] = clone((value as Record<string, unknown>)[key]);
  return copy as T;
}

/** What outlives a crash. */
export class Disk {
  readonly rows: Rows = { entries: new Map(), local: new Map() };
  fullUntil = 0;
  sequence = 0;
  /** Asked around each flush; true: the process has died at that moment. */
  diesAt: ((moment: "before" | "after", writes: readonly Write[]) => boolean) | undefined;
}

export type OnMerge = (node: string, entry: Entry) => void;

export function openSimulatedCatalog(host: Host, disk: Disk, onMerge: OnMerge): Catalog {
  return new SimulatedCatalog(host, disk, onMerge);
}

class SimulatedCatalog implements Catalog {
  readonly #host: Host;
  readonly #disk: Disk;
  readonly #onMerge: OnMerge;
  /** As this process sees it: ahead of the disk by what is being flushed. */
  readonly #entries: Map<string, { entry: Entry; sequence: number }>;
  readonly #local: Map<string, unknown>;
  /** Live entries of a kind in order, until one of them changes. */
  readonly #lists = new Map<EntryKind, readonly Entry[]>();
  readonly #listeners = new Set<(entry: Entry) => void>();
  readonly #life: number;
  #unflushed: Write[] = [];
  #tail: Promise<void> = Promise.resolve();
  #hash = 0;

  constructor(host: Host, disk: Disk, onMerge: OnMerge) {
    this.#host = host;
    this.#life = host.life;
    this.#disk = disk;
    this.#onMerge = onMerge;
    this.#entries = new Map(disk.rows.entries);
    this.#local = new Map(disk.rows.local);
    for (const { entry } of this.#entries.values()) this.#toggle(entry);
  }

  get<K extends EntryKind>(owner: string, kind: K, id: string): Entry<K> | undefined {
    this.#host.world.turn();
    return this.#entries.get(keyOf({ owner, kind, id }))?.entry as Entry<K> | undefined;
  }

  *list<K extends EntryKind>(
    kind: K,
    options: { id?: string; owner?: string } = {},
  ): Iterable<Entry<K>> {
    this.#host.world.turn();
    const known = this.#lists.get(kind) ?? this.#listOf(kind);
    this.#lists.set(kind, known);
    for (const entry of known) {
      if (options.id !== undefined && entry.id !== options.id) continue;
      if (options.owner !== undefined && entry.owner !== options.owner) continue;
      yield entry as unknown as Entry<K>;
    }
  }

  #listOf(kind: EntryKind): readonly Entry[] {
    return [...this.#entries.values()]
      .map(({ entry }) => entry)
      .filter((entry) => entry.kind === kind && entry.value !== undefined)
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  }

  async merge(
    entries: readonly Entry[],
    options: { local?: readonly LocalWrite[]; sync?: boolean } = {},
  ): Promise<readonly Entry[]> {
    // Of a former life: nothing happens any more.
    if (this.#host.life !== this.#life) return new Promise(() => undefined);
    this.#host.world.turn();
    const write = clone({ entries, local: options.local ?? [] });
    const applied: Entry[] = [];
    const done = this.#tail.then(async () => {
      this.#assertWritable();
      this.#unflushed.push(write);
      if (options.sync !== false) await this.#flush();
      for (const entry of write.entries) if (this.#take(entry)) applied.push(entry);
      for (const { table, key, value } of write.local) {
        if (value === undefined) this.#local.delete(rowKey(table, key));
        else this.#local.set(rowKey(table, key), value);
      }
      for (const entry of applied) {
        this.#onMerge(this.#host.name, entry);
        for (const listener of [...this.#listeners]) listener(entry);
      }
    });
    this.#tail = done.catch(() => undefined);
    await done;
    return applied;
  }

  async purge(
    purged: Parameters<Catalog["purge"]>[0],
    options: Parameters<Catalog["purge"]>[1] = {},
  ): Promise<void> {
    if (this.#host.life !== this.#life) return new Promise(() => undefined);
    const done = this.#tail.then(() => {
      this.#assertWritable();
      const gone = purged.filter((one) => {
        const held = this.#entries.get(keyOf(one));
        return held !== undefined && (one.version ?? held.entry.version) === held.entry.version;
      });
      const local = options.local ?? [];
      this.#unflushed.push({ entries: [], local, purged: gone.map(keyOf) });
      for (const one of gone) {
        const held = this.#entries.get(keyOf(one));
        if (held !== undefined) this.#toggle(held.entry);
        this.#entries.delete(keyOf(one));
        this.#lists.delete(one.kind);
        if (held?.entry.value === undefined) this.#host.world.count("purged tombstones");
      }
      for (const { table, key } of local) this.#local.delete(rowKey(table, key));
    });
    this.#tail = done.catch(() => undefined);
    return done;
  }

  async tombstones(sequence: number, limit: number): Promise<Entry[]> {
    return [...this.#entries.values()]
      .filter((held) => held.entry.value === undefined && held.sequence <= sequence)
      .map(({ entry }) => entry)
      .slice(0, limit);
  }

  subscribe(listener: (entry: Entry) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async changes(since: number, limit: number) {
    return [...this.#entries.values()]
      .filter(({ sequence }) => sequence > since)
      .sort((a, b) => a.sequence - b.sequence)
      .slice(0, limit);
  }

  sequence(): number {
    return this.#disk.sequence;
  }

  stateHash(): string {
    return (this.#hash >>> 0).toString(16);
  }

  table(name: LocalTableName): LocalTable {
    const prefixed = rowKey(name, "");
    const local = this.#local;
    const write = (key: string, value?: unknown) =>
      this.merge([], { local: [{ table: name, key, ...(value === undefined ? {} : { value }) }] });
    return {
      get: async (key) => clone(this.#local.get(rowKey(name, key))),
      put: async (key, value) => {
        await write(key, value);
      },
      delete: async (key) => {
        await write(key);
      },
      range: async function* (options = {}) {
        const start = prefixed + (options.prefix ?? "");
        const after = options.after === undefined ? "" : prefixed + options.after;
        const keys = [...local.keys()].filter((key) => key.startsWith(start) && key > after).sort();
        if (options.reverse === true) keys.reverse();
        for (const key of keys.slice(0, options.limit)) {
          yield [key.slice(prefixed.length), clone(local.get(key))] as const;
        }
      },
    };
  }

  health() {
    return { writable: true, reason: "", entries: this.#entries.size };
  }

  async close(): Promise<void> {
    await this.#tail;
  }

  #assertWritable(): void {
    if (this.#host.world.now >= this.#disk.fullUntil) return;
    throw new AppError("catalog_degraded", "the disk is full");
  }

  /** Everything written so far is on the disk when it resolves; a crash before loses all of it. */
  async #flush(): Promise<void> {
    const { world } = this.#host;
    await new Promise<void>((resolve) => {
      this.#host.later(world.chance.between(0.1, world.faults.syncMs), resolve);
    });
    const writes = this.#unflushed.splice(0);
    if (this.#disk.diesAt?.("before", writes) === true) return new Promise(() => undefined);
    this.#store(writes);
    if (this.#disk.diesAt?.("after", writes) === true) return new Promise(() => undefined);
  }

  #store(writes: readonly Write[]): void {
    const { entries, local } = this.#disk.rows;
    for (const write of writes) {
      for (const entry of write.entries) {
        if (!supersedes(entry, entries.get(keyOf(entry))?.entry)) continue;
        entries.set(keyOf(entry), { entry, sequence: ++this.#disk.sequence });
      }
      for (const key of write.purged ?? []) entries.delete(key);
      for (const { table, key, value } of write.local) {
        if (value === undefined) local.delete(rowKey(table, key));
        else local.set(rowKey(table, key), value);
      }
    }
  }

  #take(entry: Entry): boolean {
    const key = keyOf(entry);
    const held = this.#entries.get(key);
    if (!supersedes(entry, held?.entry)) return false;
    if (held !== undefined) this.#toggle(held.entry);
    this.#toggle(entry);
    this.#lists.delete(entry.kind);
    this.#entries.set(key, { entry, sequence: ++this.#disk.sequence });
    return true;
  }

  #toggle(entry: Entry): void {
    if (entry.value === undefined) return;
    let hash = entry.version | 0;
    const key = keyOf(entry);
    for (let at = 0; at < key.length; at++) hash = (Math.imul(hash, 31) + key.charCodeAt(at)) | 0;
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    this.#hash ^= hash ^ (hash >>> 12);
  }
}
