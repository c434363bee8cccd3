/**
 * Answers of mutations kept for their Idempotency-Key. A request that is still running is known in
 * memory only: a crash ends the request, and so releases its key.
 */
import { hash } from "node:crypto";
import { AppError, LIMITS, type Catalog, type Clock } from "../domain/index.ts";

export type IdempotencyState =
  { readonly state: "new" } | { readonly state: "replay"; readonly answer: unknown };

export interface IdempotencyStore {
  /**
   * @param key as the caller's scope and the header make it; any text.
   * @param bodyHash of the request, its method and path included.
   * @throws AppError idempotency_mismatch, idempotency_in_progress
   */
  begin(key: string, bodyHash: string): Promise<IdempotencyState>;
  /** Stores the answer (any JSON value) for replays. After `begin` said "new". */
  finish(key: string, answer: unknown): Promise<void>;
  /** The request failed without effect: its key may be used again. */
  abandon(key: string): void;
  /** Drops the answers past their time; answers how many. */
  sweep(): Promise<number>;
}

interface StoredAnswer {
  readonly body_hash: string;
  readonly at: number;
  readonly answer: unknown;
}

const isStoredAnswer = (row: unknown): row is StoredAnswer =>
  typeof row === "object" &&
  row !== null &&
  "body_hash" in row &&
  "at" in row &&
  typeof row.at === "number";

/** Keys come from outside and may hold anything. */
const rowKey = (key: string): string => hash("sha256", key, "hex");

function assertSame(a: string, b: string): void {
  if (a !== b) throw new AppError("idempotency_mismatch");
}

export function createIdempotencyStore(catalog: Catalog, clock: Clock): IdempotencyStore {
  const table = catalog.table("idempotency");
  const running = new Map<string, string>();
  const isFresh = (row: StoredAnswer): boolean => clock.now() - row.at < LIMITS.idempotencyTtlMs;

  return {
    async begin(key, bodyHash) {
      const id = rowKey(key);
      const other = running.get(id);
      if (other !== undefined) {
        assertSame(other, bodyHash);
        throw new AppError("idempotency_in_progress");
      }
      // Before the first wait, so that of two equal requests only one is new.
      running.set(id, bodyHash);
      let isNew = false;
      try {
        const row = await table.get(id);
        isNew = !isStoredAnswer(row) || !isFresh(row);
        if (!isStoredAnswer(row) || isNew) return { state: "new" };
        assertSame(row.body_hash, bodyHash);
        return { state: "replay", answer: row.answer };
      } finally {
        if (!isNew) running.delete(id);
      }
    },
    async finish(key, answer) {
      const id = rowKey(key);
      const bodyHash = running.get(id);
      if (bodyHash === undefined) {
        throw new AppError("internal", "an idempotency key was finished that is not running");
      }
      try {
        await table.put(id, { body_hash: bodyHash, at: clock.now(), answer: answer ?? null });
      } finally {
        running.delete(id);
      }
    },
    abandon(key) {
      running.delete(rowKey(key));
    },
    async sweep() {
      let dropped = 0;
      for await (const [id, row] of table.range()) {
        if (isStoredAnswer(row) && isFresh(row)) continue;
        await table.delete(id);
        dropped++;
      }
      return dropped;
    },
  };
}
