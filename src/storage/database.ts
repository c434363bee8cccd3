/**
 * The little that the catalog asks of a sorted key-value store, and LevelDB behind it. Another
 * store of the same interface may be passed to `openCatalog`: tests use one in memory.
 */
import { mkdir, open, realpath, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Level } from "level";
import { AppError } from "../domain/index.ts";
import { syncFolder } from "./durable.ts";
import { findLockHolder } from "./lock.ts";

export type Operation =
  | { readonly type: "put"; readonly key: string; readonly value: string }
  | { readonly type: "del"; readonly key: string };

export interface KeyRange {
  readonly gte?: string;
  readonly gt?: string;
  readonly lt?: string;
  readonly reverse?: boolean;
  readonly limit?: number;
}

export type Row = readonly [key: string, value: string];

export interface Database {
  /** May be called again after `close`. @throws AppError catalog_locked and others */
  open(): Promise<void>;
  close(): Promise<void>;
  get(key: string): Promise<string | undefined>;
  /** The bytes as they are, for a value that does not read as text. */
  getBytes(key: string): Promise<Uint8Array | undefined>;
  /** All or nothing; flushed to the disk when `sync`. */
  batch(operations: readonly Operation[], options: { sync: boolean }): Promise<void>;
  /** Rows in key order, in pages, from one moment's view. */
  pages(range: KeyRange): AsyncIterable<readonly Row[]>;
  /** Throws when the disk would refuse the writes that opening takes. */
  checkWritable(): Promise<void>;
}

const PAGE_ROWS = 1_000;
/** Opening may turn a whole log (LevelDB's write buffer of 4 MiB) into a table. */
const REOPEN_BYTES = 4.5 * 1024 * 1024;

/**
 * Folders open in this process. LevelDB must not be asked twice: its refusal closes a descriptor of
 * the lock file, and with that the kernel drops the lock that this process holds.
 */
const openHere = new Set<string>();

export async function levelDatabase(dir: string): Promise<Database> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await syncFolder(dirname(dir));
  const path = await realpath(dir);
  let level: Level | undefined;
  const opened = (): Level => {
    if (level === undefined) throw new AppError("catalog_unavailable");
    return level;
  };
  return {
    async open() {
      if (level !== undefined) return;
      if (openHere.has(path)) throw locked(path, "this process");
      openHere.add(path);
      try {
        const fresh = new Level<string, string>(path);
        await fresh.open();
        level = fresh;
      } catch (error) {
        openHere.delete(path);
        throw await openError(path, error);
      }
    },
    async close() {
      const closing = level;
      level = undefined;
      if (closing === undefined) return;
      await closing.close();
      openHere.delete(path);
    },
    get: async (key) => await opened().get(key),
    getBytes: async (key) => await opened().get<string, Uint8Array>(key, { valueEncoding: "view" }),
    batch: async (operations, { sync }) => opened().batch([...operations], { sync }),
    async *pages(range) {
      const iterator = opened().iterator({ ...range });
      try {
        for (;;) {
          const rows = await iterator.nextv(PAGE_ROWS);
          if (rows.length === 0) return;
          yield rows;
        }
      } finally {
        await iterator.close();
      }
    },
    checkWritable: () => writeProbe(join(path, "space-probe")),
  };
}

async function writeProbe(path: string): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(Buffer.alloc(REOPEN_BYTES, 1));
    await file.sync();
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

const locked = (dir: string, holder: string, cause?: unknown): AppError =>
  new AppError("catalog_locked", `the catalog ${dir} is held by ${holder}`, { cause });

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";

async function openError(dir: string, error: unknown): Promise<AppError> {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const code = codeOf(cause);
  if (code === "LEVEL_LOCKED") {
    const holder = await findLockHolder(dir);
    if (holder === undefined) return locked(dir, "another process", cause);
    const { pid, commandLine } = holder;
    return new AppError(
      "catalog_locked",
      `the catalog ${dir} is held by process ${pid}${commandLine && ` (${commandLine})`}`,
      { cause, meta: { holder: { pid, command_line: commandLine } } },
    );
  }
  if (code === "LEVEL_CORRUPTION") {
    return new AppError("catalog_corrupt", `the catalog ${dir} is damaged`, { cause });
  }
  if (code === "LEVEL_IO_ERROR") {
    return new AppError("catalog_degraded", `the disk refuses the catalog ${dir}`, { cause });
  }
  return new AppError("catalog_unavailable", `the catalog ${dir} does not open`, { cause });
}
