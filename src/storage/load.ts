/** Opening a catalog's rows: the version of the whole, every entry, and what needs mending. */
import { AppError, type Entry } from "../domain/index.ts";
import { repairOperations } from "./changes.ts";
import { entryCodec, isEntryKind, jsonCodec } from "./codec.ts";
import type { Database, Operation } from "./database.ts";
import { HeldEntries } from "./held.ts";
import type { Quarantine } from "./quarantine.ts";
import { SPACES, TABLE_SPACES, parseEntryKey, spaceKey, spaceRange } from "./spaces.ts";

/** Of the catalog as a whole: raised when an older program could not work with it at all. */
const CATALOG_SCHEMA = 1;
const SCHEMA_KEY = spaceKey(SPACES.meta, "schema");
const CEILING_KEY = spaceKey(SPACES.meta, "sequence-ceiling");

/** Sequences below the stored ceiling may have been used, and lost with an unsynced write. */
const SEQUENCE_BLOCK = 10_000;

export interface LoadedCatalog {
  readonly held: HeldEntries;
  /** The highest sequence that may have been used, ever. */
  readonly sequence: number;
  readonly ceiling: number;
}

export const ceilingOperation = (ceiling: number): Operation => ({
  type: "put",
  key: CEILING_KEY,
  value: jsonCodec.encode(ceiling),
});

export const nextCeiling = (sequence: number): number => sequence + SEQUENCE_BLOCK;

/** @throws AppError catalog_too_new */
async function checkSchema(database: Database): Promise<Operation[]> {
  const text = await database.get(SCHEMA_KEY);
  if (text === undefined) {
    return [{ type: "put", key: SCHEMA_KEY, value: jsonCodec.encode(CATALOG_SCHEMA) }];
  }
  const schema = jsonCodec.decode(text);
  if (typeof schema === "number" && schema <= CATALOG_SCHEMA) return [];
  throw new AppError(
    "catalog_too_new",
    `the catalog has schema ${JSON.stringify(schema)}, and ${CATALOG_SCHEMA} is the newest known here`,
  );
}

async function readCeiling(database: Database): Promise<number> {
  const text = await database.get(CEILING_KEY);
  const value = text === undefined ? 0 : jsonCodec.decode(text);
  return typeof value === "number" && Number.isSafeInteger(value) ? value : 0;
}

/** Reads every entry; what does not read is moved to quarantine by the operations it adds. */
async function readEntries(
  database: Database,
  quarantine: Quarantine,
  mending: Operation[],
): Promise<HeldEntries> {
  const held = new HeldEntries();
  const owners = new Map<string, string>();
  for await (const page of database.pages(spaceRange(SPACES.entry))) {
    for (const [key, text] of page) {
      try {
        const { sequence, ...entry } = readEntry(key, text);
        // One string for each owner: the same few names come with every row.
        const owner = owners.get(entry.owner) ?? entry.owner;
        owners.set(owner, owner);
        held.set({ entry: { ...entry, owner }, sequence });
      } catch (error) {
        mending.push(...(await quarantine.operations(key, error)));
      }
    }
  }
  return held;
}

function readEntry(key: string, text: string): Entry & { sequence: number } {
  const [kind, id, owner] = parseEntryKey(key) ?? [];
  if (kind === undefined || id === undefined || owner === undefined || !isEntryKind(kind)) {
    throw new AppError("catalog_corrupt", "an entry's key has an unknown shape");
  }
  return { owner, kind, id, ...entryCodec(kind).decode(text) };
}

async function countRows(database: Database, space: typeof SPACES.quarantine): Promise<number> {
  let count = 0;
  for await (const page of database.pages(spaceRange(space))) count += page.length;
  return count;
}

/**
 * Reads an open database into memory, mends what disagrees and stores that.
 * @throws AppError catalog_too_new
 */
export async function loadCatalog(
  database: Database,
  quarantine: Quarantine,
): Promise<LoadedCatalog> {
  const mending = await checkSchema(database);
  quarantine.found((await countRows(database, SPACES.quarantine)) - quarantine.count);
  const held = await readEntries(database, quarantine, mending);
  const { operations, highest } = await repairOperations(database, held);
  mending.push(...operations);
  const sequence = Math.max(highest, await readCeiling(database));
  const ceiling = nextCeiling(sequence);
  await database.batch([...mending, ceilingOperation(ceiling)], { sync: true });
  return { held, sequence, ceiling };
}

/**
 * Drops what was replicated and what this node promised as a voter; rows that are about this host
 * only stay. For a node that enters or leaves a cluster. May be cut off and called again.
 */
export async function forgetReplicated(database: Database): Promise<void> {
  const { entry, change } = SPACES;
  for (const space of [entry, change, TABLE_SPACES.register, TABLE_SPACES.checkpoint]) {
    for await (const page of database.pages(spaceRange(space))) {
      await database.batch(
        page.map(([key]) => ({ type: "del" as const, key })),
        { sync: true },
      );
    }
  }
}
