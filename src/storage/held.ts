/**
 * Everything replicated, in memory: by kind and id, each id with its owners in order. Ids are kept
 * in a sorted array beside the map, so that a list costs no sort.
 */
import type { Entry, EntryKind } from "../domain/index.ts";
import { createStateHash, type StateHash } from "./state-hash.ts";
import type { EntryAddress } from "./spaces.ts";

export interface Held {
  readonly entry: Entry;
  readonly sequence: number;
}

interface Shelf {
  /** Sorted by owner. */
  readonly byId: Map<string, Held[]>;
  readonly ids: string[];
}

/** Index of the first element that is not below `key`. */
function lowerBound<T>(sorted: readonly T[], key: string, of: (element: T) => string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (of(sorted[middle] as T) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

const ownerOf = (held: Held): string => held.entry.owner;
const itself = (id: string): string => id;

export class HeldEntries {
  readonly #shelves = new Map<EntryKind, Shelf>();
  readonly #hash: StateHash = createStateHash();
  #live = 0;
  #tombstones = 0;

  get(address: EntryAddress): Held | undefined {
    const owners = this.#shelves.get(address.kind)?.byId.get(address.id);
    if (owners === undefined) return undefined;
    const held = owners[lowerBound(owners, address.owner, ownerOf)];
    return held?.entry.owner === address.owner ? held : undefined;
  }

  set(held: Held): void {
    const { entry } = held;
    const owners = this.#owners(entry.kind, entry.id);
    const at = lowerBound(owners, entry.owner, ownerOf);
    const old = owners[at];
    if (old?.entry.owner === entry.owner) {
      this.#count(old.entry, -1);
      if (old.entry.value !== undefined) this.#hash.remove(old.entry);
      owners[at] = held;
    } else {
      owners.splice(at, 0, held);
    }
    this.#count(entry, 1);
    // Tombstones are not in it: nodes drop them at different times, and one that was missed shows
    // as a live entry elsewhere.
    if (entry.value !== undefined) this.#hash.add(entry);
  }

  /** Takes the entry out without a trace. */
  delete(address: EntryAddress): void {
    const shelf = this.#shelves.get(address.kind);
    const owners = shelf?.byId.get(address.id);
    const at = owners?.findIndex(({ entry }) => entry.owner === address.owner) ?? -1;
    if (shelf === undefined || owners === undefined || at < 0) return;
    const [old] = owners.splice(at, 1);
    if (old !== undefined) {
      this.#count(old.entry, -1);
      if (old.entry.value !== undefined) this.#hash.remove(old.entry);
    }
    if (owners.length > 0) return;
    shelf.byId.delete(address.id);
    shelf.ids.splice(lowerBound(shelf.ids, address.id, itself), 1);
  }

  /** Live entries of a kind, by id, then owner; as they are when the iteration starts. */
  *list(kind: EntryKind, options: { id?: string; owner?: string } = {}): Iterable<Entry> {
    const shelf = this.#shelves.get(kind);
    if (shelf === undefined) return;
    // A copy: the reader may wait between two entries while others are put in.
    const ids = options.id === undefined ? shelf.ids.slice() : [options.id];
    for (const id of ids) {
      for (const { entry } of (shelf.byId.get(id) ?? []).slice()) {
        if (entry.value === undefined) continue;
        if (options.owner === undefined || options.owner === entry.owner) yield entry;
      }
    }
  }

  /** Everything, tombstones too, in no order that matters. */
  *all(): Iterable<Held> {
    for (const shelf of this.#shelves.values()) {
      for (const owners of shelf.byId.values()) yield* owners;
    }
  }

  get live(): number {
    return this.#live;
  }

  get tombstones(): number {
    return this.#tombstones;
  }

  hash(): string {
    return this.#hash.hex();
  }

  #owners(kind: EntryKind, id: string): Held[] {
    let shelf = this.#shelves.get(kind);
    if (shelf === undefined) {
      shelf = { byId: new Map(), ids: [] };
      this.#shelves.set(kind, shelf);
    }
    const known = shelf.byId.get(id);
    if (known !== undefined) return known;
    const owners: Held[] = [];
    shelf.byId.set(id, owners);
    shelf.ids.splice(lowerBound(shelf.ids, id, itself), 0, id);
    return owners;
  }

  #count(entry: Entry, by: 1 | -1): void {
    if (entry.value === undefined) this.#tombstones += by;
    else this.#live += by;
  }
}
