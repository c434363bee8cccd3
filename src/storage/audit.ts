/**
 * The audit log: append-only rows, each with the hash of the one before, so that a row that was
 * changed, taken out or put in between shows. (A cut at the end shows only against a head kept
 * elsewhere: `verify` gives the head.)
 */
import { hash } from "node:crypto";
import { AppError, sortKeys, type Clock, type LocalTable } from "../domain/index.ts";

export interface AuditInput {
  /** Token name, `socket`, or peer. */
  readonly actor: string;
  readonly request_id: string;
  readonly action: string;
  readonly subject: string;
  /** `ok`, or an error code. */
  readonly result: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface AuditRow extends AuditInput {
  readonly sequence: number;
  /** RFC 3339. */
  readonly at: string;
  /** Hash of the row before; 64 zeros for the first. */
  readonly previous: string;
  /** SHA-256 of the rest of the row, its members in order. */
  readonly hash: string;
}

export type AuditVerdict =
  | { readonly intact: true; readonly rows: number; readonly head: string }
  | { readonly intact: false; readonly sequence: number; readonly reason: string };

export interface Audit {
  /** Durable when it answers. @throws AppError catalog_degraded, catalog_unavailable */
  append(input: AuditInput): Promise<AuditRow>;
  /** Rows after sequence `after`, oldest first; 100 unless told. */
  list(options?: { after?: number; limit?: number }): Promise<readonly AuditRow[]>;
  verify(): Promise<AuditVerdict>;
}

const START = "0".repeat(64);
const PAGE = 100;
const keyOf = (sequence: number): string => String(sequence).padStart(16, "0");

const hashOf = (row: Omit<AuditRow, "hash">): string =>
  hash("sha256", JSON.stringify(sortKeys(row)), "hex");

const isAuditRow = (row: unknown): row is AuditRow =>
  typeof row === "object" &&
  row !== null &&
  "sequence" in row &&
  typeof row.sequence === "number" &&
  "hash" in row &&
  typeof row.hash === "string";

type Head = Pick<AuditRow, "sequence" | "hash">;

/** @param table the catalog's table `audit`; one writer only */
export function createAudit(table: LocalTable, clock: Clock): Audit {
  let head: Promise<Head> | undefined;

  async function readHead(): Promise<Head> {
    for await (const [, row] of table.range({ reverse: true, limit: 1 })) {
      if (isAuditRow(row)) return row;
      throw new AppError("catalog_corrupt", "the last audit row does not read back");
    }
    return { sequence: 0, hash: START };
  }

  return {
    async append(input) {
      const before = head ?? readHead();
      const row = before.then(({ sequence, hash: previous }): AuditRow => {
        const rest = {
          ...input,
          sequence: sequence + 1,
          at: new Date(clock.now()).toISOString(),
          previous,
        };
        return { ...rest, hash: hashOf(rest) };
      });
      head = row;
      try {
        const made = await row;
        await table.put(keyOf(made.sequence), made);
        return made;
      } catch (error) {
        // Whether the row is on the disk is not known: the next one looks. Rows chained to this
        // one fail with it, and the last of them clears the head.
        if (head === row) head = undefined;
        throw error;
      }
    },
    async list({ after = 0, limit = PAGE } = {}) {
      const rows: AuditRow[] = [];
      for await (const [, row] of table.range({ after: keyOf(after), limit })) {
        if (isAuditRow(row)) rows.push(row);
      }
      return rows;
    },
    async verify() {
      let last: Head = { sequence: 0, hash: START };
      for await (const [key, row] of table.range()) {
        const sequence = last.sequence + 1;
        if (!isAuditRow(row) || row.sequence !== sequence || key !== keyOf(sequence)) {
          return { intact: false, sequence, reason: "the row is missing or does not read" };
        }
        const { hash: stated, ...rest } = row;
        if (rest.previous !== last.hash) {
          return { intact: false, sequence, reason: "the row does not follow the one before" };
        }
        if (hashOf(rest) !== stated) {
          return { intact: false, sequence, reason: "the row was changed" };
        }
        last = row;
      }
      return { intact: true, rows: last.sequence, head: last.hash };
    },
  };
}
