/**
 * The `Catalog` port over LevelDB. All that is replicated is in memory and answered from there;
 * all writes go through one writer, which gives several callers one flush of the disk. Memory is
 * changed after the batch is durable and before its callers are answered, so nobody ever reads
 * what a crash could take back (unless it was written with `sync: false`).
 */
import {
  AppError,
  errorText,
  isAppError,
  supersedes,
  type Catalog,
  type CatalogHealth,
  type Clock,
  type Entry,
  type EntryKind,
  type LocalTable,
  type LocalTableName,
  type LocalWrite,
  type Log,
} from "../domain/index.ts";
import { changeOperations, readChanges } from "./changes.ts";
import { canonicalValue } from "./codec.ts";
import { levelDatabase, type Database, type Operation } from "./database.ts";
import { Degraded } from "./degraded.ts";
import type { Held, HeldEntries } from "./held.ts";
import {
  ceilingOperation,
  forgetReplicated,
  loadCatalog,
  nextCeiling,
  type LoadedCatalog,
} from "./load.ts";
import { Quarantine } from "./quarantine.ts";
import { assertKeyPart, changeKey, entryKey, type EntryAddress } from "./spaces.ts";
import { localOperation, localTable } from "./tables.ts";
import { GroupWriter } from "./writer.ts";

export interface CatalogOptions {
  /** The folder of the LevelDB files; made when missing. */
  readonly dir: string;
  readonly log: Log;
  readonly clock: Clock;
  /** Begins without what was replicated before: this node has changed sides. */
  readonly forgetReplicated?: boolean;
  /** Called when the catalog stops or starts being writable. */
  readonly onChange?: (health: CatalogHealth) => void;
  /** Another store than LevelDB: tests pass one in memory. */
  readonly openDatabase?: (dir: string) => Promise<Database>;
}

export interface CatalogStats {
  readonly entries: number;
  readonly tombstones: number;
  /** The local sequence of the newest change. */
  readonly sequence: number;
  /** Rows set aside because they did not read back. */
  readonly quarantined: number;
  /** Since it was opened: calls of merge that wrote, and the batches they took. */
  readonly writes: number;
  readonly batches: number;
}

export interface OpenedCatalog extends Catalog {
  stats(): CatalogStats;
}

/**
 * @throws AppError catalog_locked (names the process), catalog_too_new, catalog_corrupt,
 *   catalog_degraded when the disk is full, catalog_unavailable
 */
export async function openCatalog(options: CatalogOptions): Promise<OpenedCatalog> {
  const database = await (options.openDatabase ?? levelDatabase)(options.dir);
  await database.open();
  try {
    const quarantine = new Quarantine({ database, clock: options.clock, log: options.log });
    if (options.forgetReplicated === true) await forgetReplicated(database);
    const loaded = await loadCatalog(database, quarantine);
    return new LevelCatalog(database, quarantine, loaded, options);
  } catch (error) {
    await database.close();
    if (isAppError(error)) throw error;
    throw new AppError("catalog_degraded", "the catalog could not be read and mended", {
      cause: error,
    });
  }
}

type PurgedEntry = EntryAddress & { readonly version?: number };

interface Submission {
  /** Entries to be taken out. */
  readonly purged?: readonly PurgedEntry[];
  readonly entries: readonly Entry[];
  readonly operations: readonly Operation[];
  readonly sync: boolean;
}

class LevelCatalog implements OpenedCatalog {
  readonly #database: Database;
  readonly #quarantine: Quarantine;
  readonly #options: CatalogOptions;
  readonly #degraded: Degraded;
  readonly #writer = new GroupWriter<Submission, readonly Entry[]>((group) => this.#commit(group));
  readonly #listeners = new Set<(entry: Entry) => void>();
  #held: HeldEntries;
  #sequence: number;
  /** Up to where the feed shows everything: `#sequence` is ahead of it while a batch is written. */
  #shown: number;
  #ceiling: number;
  #closed: Promise<void> | undefined;
  /** Batches that were not flushed have been written since the last that was. */
  #unflushed = false;
  #writes = 0;
  #batches = 0;

  constructor(
    database: Database,
    quarantine: Quarantine,
    loaded: LoadedCatalog,
    options: CatalogOptions,
  ) {
    this.#database = database;
    this.#quarantine = quarantine;
    this.#options = options;
    this.#held = loaded.held;
    this.#sequence = loaded.sequence;
    this.#shown = loaded.sequence;
    this.#ceiling = loaded.ceiling;
    this.#degraded = new Degraded({
      clock: options.clock,
      log: options.log,
      reopen: () => this.#reopen(),
      changed: () => options.onChange?.(this.health()),
    });
  }

  get<K extends EntryKind>(owner: string, kind: K, id: string): Entry<K> | undefined {
    return this.#held.get({ owner, kind, id })?.entry as Entry<K> | undefined;
  }

  list<K extends EntryKind>(
    kind: K,
    options?: { id?: string; owner?: string },
  ): Iterable<Entry<K>> {
    return this.#held.list(kind, options) as Iterable<Entry<K>>;
  }

  async merge(
    entries: readonly Entry[],
    options: { local?: readonly LocalWrite[]; sync?: boolean } = {},
  ): Promise<readonly Entry[]> {
    this.#assertOpen();
    this.#degraded.assertWritable();
    return this.#writer.submit({
      entries: entries.map(canonicalEntry),
      operations: (options.local ?? []).map(localOperation),
      sync: options.sync ?? true,
    });
  }

  async purge(
    purged: readonly PurgedEntry[],
    options: { local?: readonly LocalWrite[] } = {},
  ): Promise<void> {
    this.#assertOpen();
    this.#degraded.assertWritable();
    if (purged.length === 0 && options.local === undefined) return;
    const operations = (options.local ?? []).map(localOperation);
    await this.#writer.submit({ entries: [], operations, sync: false, purged });
  }

  async tombstones(sequence: number, limit: number): Promise<Entry[]> {
    const found: Entry[] = [];
    for (const held of this.#held.all()) {
      if (held.entry.value !== undefined || held.sequence > sequence) continue;
      if (found.push(held.entry) === limit) break;
    }
    return found;
  }

  subscribe(listener: (entry: Entry) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async changes(
    since: number,
    limit: number,
  ): Promise<readonly { sequence: number; entry: Entry }[]> {
    this.#assertOpen();
    return readChanges(this.#database, this.#held, since, limit);
  }

  sequence(): number {
    return this.#shown;
  }

  stateHash(): string {
    return this.#held.hash();
  }

  table(name: LocalTableName): LocalTable {
    return localTable(name, {
      database: () => {
        this.#assertOpen();
        return this.#database;
      },
      write: (local) => this.merge([], { local }),
      setAside: async (key, error) => {
        const operations = await this.#quarantine.operations(key, error);
        if (this.#degraded.reason === "") {
          await this.#writer.submit({ entries: [], operations, sync: true });
        }
      },
    });
  }

  health(): CatalogHealth {
    const closed = this.#closed !== undefined;
    return {
      writable: !closed && this.#degraded.reason === "",
      reason: closed ? "the catalog is closed" : this.#degraded.reason,
      entries: this.#held.live,
    };
  }

  stats(): CatalogStats {
    return {
      entries: this.#held.live,
      tombstones: this.#held.tombstones,
      sequence: this.#sequence,
      quarantined: this.#quarantine.count,
      writes: this.#writes,
      batches: this.#batches,
    };
  }

  /** Finishes what was submitted, then refuses. May be called twice. */
  close(): Promise<void> {
    this.#closed ??= this.#shut();
    return this.#closed;
  }

  async #shut(): Promise<void> {
    await this.#writer.idle();
    await this.#degraded.stop();
    await this.#database.close();
  }

  #assertOpen(): void {
    if (this.#closed !== undefined) {
      throw new AppError("catalog_unavailable", "the catalog is closed");
    }
  }

  async #commit(group: readonly Submission[]): Promise<readonly (readonly Entry[])[]> {
    this.#degraded.assertWritable();
    const changed = new Map<string, Held>();
    const results = group.map(({ entries }) =>
      entries.filter((entry) => this.#take(entry, changed)),
    );
    const operations = [...changed.values()].flatMap((held) =>
      changeOperations(held, this.#held.get(held.entry)?.sequence),
    );
    for (const submission of group) operations.push(...submission.operations);
    const purged: EntryAddress[] = [];
    for (const address of group.flatMap((submission) => submission.purged ?? [])) {
      const held = changed.get(entryKey(address)) ?? this.#held.get(address);
      if (held === undefined) continue;
      if (address.version !== undefined && address.version !== held.entry.version) continue;
      purged.push(address);
      operations.push({ type: "del", key: entryKey(address) });
      operations.push({ type: "del", key: changeKey(held.sequence) });
    }
    await this.#write(
      operations,
      group.some(({ sync }) => sync),
    );
    for (const held of changed.values()) {
      this.#held.set(held);
      this.#shown = held.sequence;
    }
    for (const address of purged) this.#held.delete(address);
    this.#writes += group.length;
    for (const entry of results.flat()) this.#tell(entry);
    return results;
  }

  /** Puts the entry among the group's changes when it supersedes what is held or changed there. */
  #take(entry: Entry, changed: Map<string, Held>): boolean {
    const key = entryKey(entry);
    const current = changed.get(key) ?? this.#held.get(entry);
    if (!supersedes(entry, current?.entry)) return false;
    // To the end: the order of the map is the order of the sequences.
    changed.delete(key);
    changed.set(key, { entry, sequence: ++this.#sequence });
    return true;
  }

  async #write(operations: Operation[], sync: boolean): Promise<void> {
    let flush = sync;
    if (this.#sequence >= this.#ceiling) {
      this.#ceiling = nextCeiling(this.#sequence);
      operations.push(ceilingOperation(this.#ceiling));
      flush = true;
    } else if (operations.length === 0 && sync && this.#unflushed) {
      // Nothing new, yet the caller wants what is held to be on the disk.
      operations.push(ceilingOperation(this.#ceiling));
    }
    if (operations.length === 0) return;
    try {
      await this.#database.batch(operations, { sync: flush });
    } catch (error) {
      throw this.#degraded.enter(error);
    }
    this.#batches++;
    this.#unflushed = !flush;
  }

  #tell(entry: Entry): void {
    for (const listener of this.#listeners) {
      try {
        listener(entry);
      } catch (error) {
        this.#options.log.error("a reader of catalog changes failed", {
          entry: `${entry.kind}/${entry.id}`,
          reason: errorText(error),
        });
      }
    }
  }

  /**
   * Opens the database anew after a failed write, and brings disk and memory together again: the
   * write that failed may be there after all, and an unflushed one may be gone.
   */
  async #reopen(): Promise<void> {
    await this.#database.checkWritable();
    await this.#writer.idle();
    await this.#database.close();
    await this.#database.open();
    const loaded = await loadCatalog(this.#database, this.#quarantine);
    this.#sequence = Math.max(this.#sequence, loaded.sequence);
    const lost = [...this.#held.all()].filter(({ entry }) => {
      return supersedes(entry, loaded.held.get(entry)?.entry);
    });
    const restored = lost.map(({ entry }) => ({ entry, sequence: ++this.#sequence }));
    this.#ceiling = nextCeiling(this.#sequence);
    const operations = restored.flatMap((held) =>
      changeOperations(held, loaded.held.get(held.entry)?.sequence),
    );
    await this.#database.batch([...operations, ceilingOperation(this.#ceiling)], { sync: true });
    const before = this.#held;
    for (const held of restored) loaded.held.set(held);
    this.#held = loaded.held;
    this.#shown = this.#sequence;
    this.#unflushed = false;
    for (const { entry } of [...loaded.held.all()]) {
      if (supersedes(entry, before.get(entry)?.entry)) this.#tell(entry);
    }
  }
}

/** @throws AppError invalid_request for a name that cannot be stored, internal for a value */
function canonicalEntry(entry: Entry): Entry {
  const { owner, kind, id, version, value } = entry;
  assertKeyPart(owner, "owner");
  assertKeyPart(id, `id of a ${kind}`);
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new AppError("invalid_request", `version ${version} of ${kind} ${id} is not valid`);
  }
  const address = { owner, kind, id, version };
  return value === undefined ? address : { ...address, value: canonicalValue(kind, value) };
}
