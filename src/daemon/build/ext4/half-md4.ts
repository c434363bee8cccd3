/**
 * The directory hash of ext4: half MD4 over the name's bytes (unsigned), as fs/ext4/hash.c defines
 * it.
 */
const DEFAULT_SEED = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476] as const;
const K2 = 0x5a827999;
const K3 = 0x6ed9eba1;
/** The greatest hash is kept as an end mark. */
const END_OF_DIRECTORY = 0x7fffffff;

const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));
const f = (x: number, y: number, z: number): number => z ^ (x & (y ^ z));
const g = (x: number, y: number, z: number): number => ((x & y) + ((x ^ y) & z)) | 0;
const h = (x: number, y: number, z: number): number => x ^ y ^ z;

const ROUNDS: readonly [typeof f, number, readonly number[], readonly number[]][] = [
  [f, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]],
  [g, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]],
  [h, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]],
];

function transform(state: Int32Array, input: Int32Array): void {
  const v = [...state] as [number, number, number, number];
  for (const [mix, constant, order, shifts] of ROUNDS) {
    order.forEach((word, step) => {
      // The register that changes goes a, d, c, b; the other three follow it in order.
      const at = (4 - (step & 3)) & 3;
      const x = v[(at + 1) & 3] as number;
      const y = v[(at + 2) & 3] as number;
      const z = v[(at + 3) & 3] as number;
      const sum = ((v[at] as number) + mix(x, y, z) + (input[word] as number) + constant) | 0;
      v[at] = rotate(sum, shifts[step & 3] as number);
    });
  }
  for (let i = 0; i < 4; i++) state[i] = ((state[i] as number) + (v[i] as number)) | 0;
}

/** 32 bytes of the name in eight words, padded with its length. */
function fillWords(name: string, from: number, words: Int32Array): void {
  const left = name.length - from;
  let pad = (left & 0xff) | ((left & 0xff) << 8);
  pad |= pad << 16;
  const length = Math.min(left, 32);
  let value = pad;
  let word = 0;
  for (let i = 0; i < length; i++) {
    value = (name.charCodeAt(from + i) + (value << 8)) | 0;
    if (i % 4 === 3) {
      words[word++] = value;
      value = pad;
    }
  }
  if (word < 8) words[word++] = value;
  while (word < 8) words[word++] = pad;
}

/** The major hash of a name (a byte string); its lowest bit is 0. */
export function halfMd4(name: string, seed: readonly number[]): number {
  const state = Int32Array.from(seed.every((word) => word === 0) ? DEFAULT_SEED : seed);
  const words = new Int32Array(8);
  for (let from = 0; from < name.length || from === 0; from += 32) {
    fillWords(name, from, words);
    transform(state, words);
  }
  const major = ((state[1] as number) & ~1) >>> 0;
  return major === END_OF_DIRECTORY * 2 ? (END_OF_DIRECTORY - 1) * 2 : major;
}
