/** Chunks on the wire: deflated where that saves a tenth, off the event loop. */
import { constants, deflateRaw, inflateRaw } from "node:zlib";
import { promisify } from "node:util";

/** Passed in, because the simulator waits on no real thread. */
export interface Compressor {
  deflate(bytes: Uint8Array): Promise<Uint8Array>;
  /** @throws when the bytes do not inflate to at most `maxBytes` */
  inflate(bytes: Uint8Array, maxBytes: number): Promise<Uint8Array>;
}

const deflate = promisify(deflateRaw) as (
  bytes: Uint8Array,
  options: { level: number },
) => Promise<Uint8Array>;
const inflate = promisify(inflateRaw) as (
  bytes: Uint8Array,
  options: { maxOutputLength: number },
) => Promise<Uint8Array>;

export const zlibCompressor: Compressor = {
  deflate: (bytes) => deflate(bytes, { level: constants.Z_BEST_SPEED }),
  inflate: (bytes, maxBytes) => inflate(bytes, { maxOutputLength: maxBytes }),
};

/** Undefined: it does not inflate to so many bytes at most. */
export async function inflateChunk(
  compressor: Compressor | undefined,
  bytes: Uint8Array,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  try {
    return await compressor?.inflate(bytes, maxBytes);
  } catch {
    return undefined;
  }
}

/** Saves less than this share: sent as it is. */
const WORTH = 0.9;
/** After so many in a row that were not worth it, only one in as many is tried. */
const GIVE_UP_CHUNKS = 16;

/** Deflates the chunks of one artifact while that pays. */
export class Deflater {
  readonly #compressor: Compressor | undefined;
  #vain = 0;
  #seen = 0;

  constructor(compressor: Compressor | undefined) {
    this.#compressor = compressor;
  }

  async deflate(chunk: Uint8Array): Promise<{ bytes: Uint8Array; deflated: boolean }> {
    const plain = { bytes: chunk, deflated: false };
    const seen = this.#seen++;
    if (this.#compressor === undefined) return plain;
    if (this.#vain >= GIVE_UP_CHUNKS && seen % GIVE_UP_CHUNKS !== 0) return plain;
    const bytes = await this.#compressor.deflate(chunk);
    const isWorth = bytes.length <= chunk.length * WORTH;
    this.#vain = isWorth ? 0 : this.#vain + 1;
    return isWorth ? { bytes, deflated: true } : plain;
  }
}
