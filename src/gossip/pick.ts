import type { Random } from "../domain/index.ts";

/** One byte tells so many apart. */
const FEW = 256;

/** One of them by chance; undefined when there is none. */
export function pickOne<T>(random: Random, from: readonly T[]): T | undefined {
  const bytes = random.bytes(from.length > FEW ? 4 : 1);
  const number = bytes.reduce((sum, byte) => sum * FEW + byte, 0);
  return from[number % Math.max(1, from.length)];
}
