/** The local tables: rows of this node only, read from the disk, written through the one writer. */
import type { LocalTable, LocalTableName, LocalWrite } from "../domain/index.ts";
import { jsonCodec } from "./codec.ts";
import type { Database, KeyRange, Operation } from "./database.ts";
import { TABLE_SPACES, assertKeyPart, restOf, spaceKey, spaceRange } from "./spaces.ts";

export interface TablePorts {
  /** The database while it is open. @throws AppError catalog_unavailable, catalog_degraded */
  database(): Database;
  write(writes: readonly LocalWrite[]): Promise<unknown>;
  /** A row that does not read: it is set aside, and read as missing. */
  setAside(key: string, error: unknown): Promise<void>;
}

/** @throws AppError invalid_request for a key that cannot be stored, internal for a value */
export function localOperation({ table, key, value }: LocalWrite): Operation {
  assertKeyPart(key, `key of table ${table}`);
  const at = spaceKey(TABLE_SPACES[table], key);
  return value === undefined
    ? { type: "del", key: at }
    : { type: "put", key: at, value: jsonCodec.encode(value) };
}

type RangeOptions = NonNullable<Parameters<LocalTable["range"]>[0]>;

function keyRange(table: LocalTableName, options: RangeOptions): KeyRange {
  const space = TABLE_SPACES[table];
  const { gte, lt } = spaceRange(space, options.prefix ?? "");
  const reverse = options.reverse === true;
  if (options.after === undefined) return { gte, lt, reverse };
  const after = spaceKey(space, options.after);
  if (reverse) return { gte, lt: after < lt ? after : lt, reverse };
  return after < gte ? { gte, lt, reverse } : { gt: after, lt, reverse };
}

/**
 * `range` goes on after the key `after` in its own direction: with `reverse`, to lower keys.
 * `limit` counts the rows that are given.
 */
export function localTable(table: LocalTableName, ports: TablePorts): LocalTable {
  const decode = async (key: string, text: string): Promise<unknown> => {
    try {
      return jsonCodec.decode(text);
    } catch (error) {
      await ports.setAside(key, error);
      return undefined;
    }
  };
  return {
    async get(key) {
      const at = spaceKey(TABLE_SPACES[table], key);
      const text = await ports.database().get(at);
      return text === undefined ? undefined : decode(at, text);
    },
    async put(key, value) {
      await ports.write([{ table, key, value }]);
    },
    async delete(key) {
      await ports.write([{ table, key }]);
    },
    async *range(options = {}) {
      let left = options.limit ?? Number.POSITIVE_INFINITY;
      if (left <= 0) return;
      for await (const page of ports.database().pages(keyRange(table, options))) {
        for (const [key, text] of page) {
          const value = await decode(key, text);
          if (value === undefined) continue;
          yield [restOf(key), value] as const;
          if (--left <= 0) return;
        }
      }
    },
  };
}
