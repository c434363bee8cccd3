/**
 * The cipher behind libp2p's pre-shared key keeps one WebAssembly memory for all connections. When
 * one of them needs more of it the views of all others go stale, and each then grows the memory by
 * all that it needs, again and again, until it is at its limit and the process ends (xsalsa20
 * 1.2.0). So the memory is grown once, before the first connection, to more than any of them needs.
 */
import { createRequire } from "node:module";

interface Cipher {
  update(input: Uint8Array): Uint8Array;
  finalize(): void;
}
type CreateCipher = ((nonce: Uint8Array, key: Uint8Array) => Cipher) & {
  readonly NONCEBYTES: number;
  readonly KEYBYTES: number;
};

/** A connection writes what has gathered while the socket was full: some frames of 64 KiB. */
const MEMORY_BYTES = 24 * 1024 * 1024;

export function warmCipher(): void {
  const create = createRequire(import.meta.url)("xsalsa20") as CreateCipher;
  const cipher = create(new Uint8Array(create.NONCEBYTES), new Uint8Array(create.KEYBYTES));
  cipher.update(new Uint8Array(MEMORY_BYTES));
  cipher.finalize();
}
