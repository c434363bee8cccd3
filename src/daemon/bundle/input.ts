/** Exact reads from a stream of byte arrays of any lengths. */
import { invalidBundle } from "../../domain/index.ts";

export class BundleInput {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #onBytes: (bytes: Uint8Array) => void;
  #held: Uint8Array = new Uint8Array();

  /** @param onBytes is given all that is read, in order */
  constructor(source: AsyncIterable<Uint8Array>, onBytes: (bytes: Uint8Array) => void) {
    this.#source = source[Symbol.asyncIterator]();
    this.#onBytes = onBytes;
  }

  /** @throws AppError bundle_invalid when it ends before; what the source throws */
  async take(sizeBytes: number): Promise<Buffer> {
    const taken = Buffer.allocUnsafe(sizeBytes);
    for (let at = 0; at < sizeBytes;) {
      if (this.#held.length === 0 && !(await this.#more())) throw invalidBundle("it is cut off");
      const part = this.#held.subarray(0, sizeBytes - at);
      taken.set(part, at);
      this.#held = this.#held.subarray(part.length);
      at += part.length;
    }
    this.#onBytes(taken);
    return taken;
  }

  /** @throws AppError bundle_invalid when there is more */
  async end(): Promise<void> {
    if (this.#held.length > 0 || (await this.#more())) {
      throw invalidBundle("there is more behind its end");
    }
  }

  /** Lets the source go, whether or not it was read to its end. */
  async close(): Promise<void> {
    await this.#source.return?.();
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const next = await this.#source.next();
      if (next.done === true) return false;
      this.#held = next.value;
      if (this.#held.length > 0) return true;
    }
  }
}
