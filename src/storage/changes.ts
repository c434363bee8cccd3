/**
 * The change feed's rows: local sequence → which entry changed. Only the latest change of an entry
 * has a row; it is written, and the one before deleted, in the same batch as the entry.
 */
import { isEntryKind, type Codec, defineCodec } from "./codec.ts";
import type { Database, Operation } from "./database.ts";
import type { Held, HeldEntries } from "./held.ts";
import { SPACES, changeKey, entryKey, restOf, spaceRange, type EntryAddress } from "./spaces.ts";
import { encodeCanonicalRow } from "./codec.ts";

const addressCodec: Codec<readonly string[]> = defineCodec("change", (value) => {
  if (!Array.isArray(value) || value.length !== 3) throw new TypeError("not three names");
  return value.map((part) => {
    if (typeof part !== "string") throw new TypeError("a name is not text");
    return part;
  });
});

const encodeAddress = ({ kind, id, owner }: EntryAddress): string =>
  addressCodec.encode([kind, id, owner]);

function decodeAddress(text: string): EntryAddress | undefined {
  const [kind = "", id = "", owner = ""] = addressCodec.decode(text);
  return isEntryKind(kind) ? { kind, id, owner } : undefined;
}

/** The rows of one change: the entry, its place in the feed, and the end of its former place. */
export function changeOperations(held: Held, formerSequence: number | undefined): Operation[] {
  const { entry, sequence } = held;
  const { version, value } = entry;
  const row = { version, sequence, ...(value === undefined ? {} : { value }) };
  const operations: Operation[] = [
    { type: "put", key: entryKey(entry), value: encodeCanonicalRow(entry.kind, row) },
    { type: "put", key: changeKey(sequence), value: encodeAddress(entry) },
  ];
  if (formerSequence !== undefined && formerSequence !== sequence) {
    operations.push({ type: "del", key: changeKey(formerSequence) });
  }
  return operations;
}

/**
 * Held entries in the order of their latest change, after `since`. A row that is ahead of memory
 * (its batch has just been written) or whose entry has moved on is left out: it comes later.
 */
export async function readChanges(
  database: Database,
  held: HeldEntries,
  since: number,
  limit: number,
): Promise<Held[]> {
  const found: Held[] = [];
  const range = { gt: changeKey(since), lt: spaceRange(SPACES.change).lt };
  for await (const page of database.pages(range)) {
    for (const [key, value] of page) {
      if (found.length >= limit) return found;
      const address = decodeAddress(value);
      const current = address === undefined ? undefined : held.get(address);
      if (current?.sequence === Number(restOf(key))) found.push(current);
    }
  }
  return found;
}

/** What makes the feed's rows agree with the entries; nothing when they do. */
export async function repairOperations(
  database: Database,
  held: HeldEntries,
): Promise<{ operations: Operation[]; highest: number }> {
  const operations: Operation[] = [];
  const seen = new Set<number>();
  let highest = 0;
  for await (const page of database.pages(spaceRange(SPACES.change))) {
    for (const [key, value] of page) {
      const sequence = Number(restOf(key));
      highest = Math.max(highest, sequence);
      if (sequenceOf(value, held) === sequence) seen.add(sequence);
      else operations.push({ type: "del", key });
    }
  }
  for (const { entry, sequence } of held.all()) {
    highest = Math.max(highest, sequence);
    if (seen.has(sequence)) continue;
    operations.push({ type: "put", key: changeKey(sequence), value: encodeAddress(entry) });
  }
  return { operations, highest };
}

function sequenceOf(value: string, held: HeldEntries): number | undefined {
  try {
    const address = decodeAddress(value);
    return address === undefined ? undefined : held.get(address)?.sequence;
  } catch {
    // A change row that does not read is only an index row: it is made again.
    return undefined;
  }
}
