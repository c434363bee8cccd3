/** Rows that do not read back are set aside as they are: nothing is lost, and nothing stops. */
import { errorText, type Clock, type Log } from "../domain/index.ts";
import type { Database, Operation } from "./database.ts";
import { jsonCodec } from "./codec.ts";
import { SPACES, spaceKey } from "./spaces.ts";

export class Quarantine {
  readonly #options: { database: Database; clock: Clock; log: Log };
  #count = 0;

  constructor(options: { database: Database; clock: Clock; log: Log }) {
    this.#options = options;
  }

  /** Rows set aside, those of earlier runs included. */
  get count(): number {
    return this.#count;
  }

  found(rows: number): void {
    this.#count += rows;
  }

  /** What moves the row; the caller writes it. */
  async operations(key: string, error: unknown): Promise<Operation[]> {
    const { database, clock, log } = this.#options;
    const bytes = (await database.getBytes(key)) ?? new Uint8Array();
    const at = clock.now();
    const reason = errorText(error);
    this.#count++;
    log.error("a stored record does not read back and is set aside", {
      key: key.replaceAll("\0", "/"),
      reason,
    });
    const value = { reason, at, key, base64: Buffer.from(bytes).toString("base64") };
    return [
      {
        type: "put",
        key: spaceKey(SPACES.quarantine, `${String(at).padStart(16, "0")}\0${key}`),
        value: jsonCodec.encode(value),
      },
      { type: "del", key },
    ];
  }
}
