/**
 * The container of a bundle: an ustar archive in which nothing is left open. Each member's header
 * follows from its name and size alone, so a reader compares it with the one it would have written
 * instead of parsing it: names are never paths, and there are no links, owners or extensions.
 */
export const BLOCK_BYTES = 512;
/** What ends an archive. */
export const END_BYTES = 2 * BLOCK_BYTES;
const MAX_NAME = 99;

/** @param name ASCII, at most 99 bytes @param sizeBytes below 8 GiB */
export function tarHeader(name: string, sizeBytes: number): Buffer {
  if (name.length > MAX_NAME) throw new RangeError(`${name} is too long for a member`);
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, digits: number) =>
    block.write(`${value.toString(8).padStart(digits, "0")}\0`, at, "latin1");
  block.write(name, 0, "latin1");
  octal(0o644, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(sizeBytes, 124, 11);
  octal(0, 136, 11);
  block.fill(" ", 148, 156);
  block.write("0", 156, "latin1");
  block.write("ustar\0", 257, "latin1");
  block.write("00", 263, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/**
 * The size that a header tells of one of these names.
 * @returns undefined when it is not the header of any of them, to the last byte
 */
export function readTarHeader<N extends string>(
  block: Buffer,
  names: readonly N[],
): { name: N; sizeBytes: number } | undefined {
  const digits = block.toString("latin1", 124, 135);
  if (!/^[0-7]{11}$/.test(digits)) return undefined;
  const sizeBytes = Number.parseInt(digits, 8);
  const name = names.find((one) => tarHeader(one, sizeBytes).equals(block));
  return name === undefined ? undefined : { name, sizeBytes };
}

/** Zeros after a member's bytes. */
export const paddingOf = (sizeBytes: number): number =>
  (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
