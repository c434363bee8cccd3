/** CRC-32C (Castagnoli, RFC 3720 §12.1), as ext4 uses it: no final inversion, seed passed in. */
const TABLES = makeTables();

function makeTables(): readonly Uint32Array[] {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let n = 0; n < 256; n++) {
    let crc = n;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    (tables[0] as Uint32Array)[n] = crc >>> 0;
  }
  for (let n = 0; n < 256; n++) {
    for (let k = 1; k < 8; k++) {
      const before = (tables[k - 1] as Uint32Array)[n] as number;
      (tables[k] as Uint32Array)[n] =
        ((before >>> 8) ^ ((tables[0] as Uint32Array)[before & 0xff] as number)) >>> 0;
    }
  }
  return tables;
}

const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as unknown as [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
];

/** Continues `seed` over bytes `start` to `end`; start a fresh checksum with 0xffffffff. */
export function crc32c(seed: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = seed >>> 0;
  let at = start;
  const at8 = (index: number) => bytes[index] as number;
  const of = (table: Uint32Array, index: number) => table[index] as number;
  for (; at + 8 <= end; at += 8) {
    const low = crc ^ (at8(at) | (at8(at + 1) << 8) | (at8(at + 2) << 16) | (at8(at + 3) << 24));
    crc =
      of(T7, low & 0xff) ^
      of(T6, (low >>> 8) & 0xff) ^
      of(T5, (low >>> 16) & 0xff) ^
      of(T4, low >>> 24) ^
      of(T3, at8(at + 4)) ^
      of(T2, at8(at + 5)) ^
      of(T1, at8(at + 6)) ^
      of(T0, at8(at + 7));
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ of(T0, (crc ^ at8(at)) & 0xff);
  return crc >>> 0;
}

/** The checksum over the little-endian bytes of numbers of 32 bits. */
export function crc32cWords(seed: number, ...words: number[]): number {
  const bytes = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => bytes.writeUInt32LE(word >>> 0, index * 4));
  return crc32c(seed, bytes);
}
