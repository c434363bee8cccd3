/**
 * How records are stored: a version marker, a colon, JSON. A codec knows the shape of today and one
 * migration from each older version to the next; it checks the value when it is written and when
 * it is read, so nothing that fails its schema gets in or out.
 */
import { AppError, ENTRY_SCHEMAS, type EntryKind, type EntryValues } from "../domain/index.ts";

export type Migration = (older: unknown) => unknown;

export interface Codec<T> {
  /** The text to store. @throws AppError internal when the value does not fit its schema */
  encode(value: T): string;
  /** @throws AppError catalog_corrupt, catalog_too_new when a newer version wrote the record */
  decode(text: string): T;
}

const MARKER = /^([1-9][0-9]{0,3}):/;

/**
 * @param migrations the first leads from version 1 to 2, and so on; today's version is their
 *   number plus one.
 * @param parse gives the value when it fits today's schema, and throws otherwise.
 */
export function defineCodec<T>(
  name: string,
  parse: (value: unknown) => T,
  migrations: readonly Migration[] = [],
): Codec<T> {
  const current = migrations.length + 1;
  return {
    encode(value) {
      try {
        return `${current}:${JSON.stringify(parse(value))}`;
      } catch (cause) {
        throw new AppError("internal", `the ${name} to store does not fit its schema`, { cause });
      }
    },
    decode(text) {
      const version = Number(MARKER.exec(text)?.[1]);
      if (version > current) {
        throw new AppError(
          "catalog_too_new",
          `the ${name} was stored in version ${version}, and ${current} is the newest known here`,
        );
      }
      try {
        if (Number.isNaN(version)) throw new Error("no version marker");
        const stored: unknown = JSON.parse(text.slice(text.indexOf(":") + 1));
        const value = migrations.slice(version - 1).reduce((at, migrate) => migrate(at), stored);
        return parse(value);
      } catch (cause) {
        throw new AppError("catalog_corrupt", `a stored ${name} does not read back`, { cause });
      }
    },
  };
}

/** Any JSON value: for local tables, whose owners check the shape themselves. */
export const jsonCodec: Codec<unknown> = defineCodec("local row", (value) => {
  if (value === undefined) throw new TypeError("undefined is not a JSON value");
  return value;
});

export interface EntryRow<K extends EntryKind = EntryKind> {
  readonly version: number;
  /** Where this change stands in the local feed. */
  readonly sequence: number;
  /** Absent: a tombstone. */
  readonly value?: EntryValues[K];
}

/** Migrations of the value of each kind; the row around it has had one shape so far. */
const VALUE_MIGRATIONS: Record<EntryKind, readonly Migration[]> = {
  template: [],
  job: [],
  artifact: [],
  node: [],
  replica: [],
  holding: [],
  "job-progress": [],
  cluster: [],
  session: [],
  leader: [],
  tag: [],
  refs: [],
  resnapshot: [],
};

const positive = (value: unknown): number => {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new TypeError(`${JSON.stringify(value)} is not a positive integer`);
};

const parseRow =
  (parseValue: (value: unknown) => EntryValues[EntryKind]) =>
  (stored: unknown): EntryRow => {
    if (typeof stored !== "object" || stored === null) throw new TypeError("not an object");
    const row = stored as Record<string, unknown>;
    return {
      version: positive(row["version"]),
      sequence: positive(row["sequence"]),
      ...(row["value"] === undefined ? {} : { value: parseValue(row["value"]) }),
    };
  };

const migrateValue =
  (migrate: Migration): Migration =>
  (row) => {
    const { value, ...rest } = row as { value?: unknown };
    return value === undefined ? rest : { ...rest, value: migrate(value) };
  };

const entryCodecOf = (kind: EntryKind): Codec<EntryRow> =>
  defineCodec(
    `${kind} entry`,
    parseRow((value) => ENTRY_SCHEMAS[kind].parse(value)),
    VALUE_MIGRATIONS[kind].map(migrateValue),
  );

const ENTRY_CODECS = Object.fromEntries(
  Object.keys(ENTRY_SCHEMAS).map((kind) => [kind, entryCodecOf(kind as EntryKind)]),
) as Record<EntryKind, Codec<EntryRow>>;

export const isEntryKind = (kind: string): kind is EntryKind => Object.hasOwn(ENTRY_SCHEMAS, kind);

export const entryCodec = (kind: EntryKind): Codec<EntryRow> => ENTRY_CODECS[kind];

/**
 * The value as a reader of the stored record would get it: checked, and a copy that nobody else
 * can change. @throws AppError internal when it does not fit the schema of its kind
 */
export function canonicalValue<K extends EntryKind>(kind: K, value: unknown): EntryValues[K] {
  try {
    return JSON.parse(JSON.stringify(ENTRY_SCHEMAS[kind].parse(value))) as EntryValues[K];
  } catch (cause) {
    throw new AppError("internal", `the ${kind} to store does not fit its schema`, { cause });
  }
}

/** A row whose value has passed `canonicalValue` already is not checked again. */
export const encodeCanonicalRow = (kind: EntryKind, row: EntryRow): string =>
  `${VALUE_MIGRATIONS[kind].length + 1}:${JSON.stringify(row)}`;
