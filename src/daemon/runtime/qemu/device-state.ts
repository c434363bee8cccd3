/**
 * A restorable state made of two: QEMU writes the devices of a running guest without its memory,
 * and what must stand before them, the configuration and the blocks of memory that are in no file
 * (firmware and tables, which no guest changes), is taken from the state that the guest was started
 * from. Sections are those of QEMU's docs/devel/migration and migration/ram.c.
 */
const SECTION = { start: 1, part: 2, end: 3, description: 6, footer: 0x7e } as const;
const FLAG = { zero: 0x02, sizes: 0x04, page: 0x08, end: 0x10, sameBlock: 0x20 } as const;
const PAGE_BYTES = 4_096;
/** "QEVM" and the version. */
const HEADER_BYTES = 8;
/** Type and number of a section. */
const SECTION_BYTES = 5;
/** Name, instance and version in the header of the section that begins the memory. */
const RAM_NAME = Buffer.from("\x03ram\0\0\0\0\0\0\0\x04", "latin1");
/** A description of the sections, which only debuggers read: here an empty one. */
const NO_DESCRIPTION = Buffer.from([SECTION.description, 0, 0, 0, 0]);

const bad = (what: string): Error => new Error(`unexpected state: ${what}`);

/**
 * @param origin the state that the guest was started from
 * @param devices what QEMU wrote of the guest's devices
 * @throws Error when one of them is not what this QEMU should write
 */
export function joinStates(origin: Buffer, devices: Buffer): Buffer {
  const head = origin.subarray(0, HEADER_BYTES);
  if (!devices.subarray(0, HEADER_BYTES).equals(head)) throw bad("the two differ in their format");
  const memoryEnd = findMemoryEnd(origin);
  return Buffer.concat([
    origin.subarray(0, memoryEnd),
    devices.subarray(HEADER_BYTES),
    NO_DESCRIPTION,
  ]);
}

/** Where the devices begin: behind the last section of the memory. */
function findMemoryEnd(state: Buffer): number {
  const name = state.indexOf(RAM_NAME);
  if (name < 0 || state[name - SECTION_BYTES] !== SECTION.start) throw bad("it has no memory");
  let type: number | undefined = SECTION.start;
  let at = name + RAM_NAME.length;
  for (;;) {
    at = skipRecords(state, at);
    if (state[at] !== SECTION.footer) throw bad("a section has no footer");
    at += SECTION_BYTES;
    if (at > state.length) throw bad("it ends within the memory");
    if (type === SECTION.end) return at;
    type = state[at];
    if (type !== SECTION.part && type !== SECTION.end) throw bad("the memory has no end");
    at += SECTION_BYTES;
  }
}

/** Behind the record that ends the section. */
function skipRecords(state: Buffer, from: number): number {
  for (let at = from; at + 8 <= state.length;) {
    const low = state.readUInt32BE(at + 4);
    const flags = low % PAGE_BYTES;
    const total = state.readUInt32BE(at) * 2 ** 32 + low - flags;
    at += 8;
    if (flags === FLAG.end) return at;
    const kind = flags & ~FLAG.sameBlock;
    if (kind === FLAG.sizes) at = skipSizes(state, at, total);
    else if (kind === FLAG.page || kind === FLAG.zero) {
      if ((flags & FLAG.sameBlock) === 0) at += 1 + (state[at] ?? 0);
      at += kind === FLAG.page ? PAGE_BYTES : 1;
    } else throw bad(`flags ${flags} of a page`);
  }
  throw bad("it ends within the memory");
}

/** Name, length and, because memory in files is left out, address of each block. */
function skipSizes(state: Buffer, from: number, total: number): number {
  let at = from;
  for (let sum = 0; sum < total;) {
    at += 1 + (state[at] ?? 0);
    sum += Number(state.readBigUInt64BE(at));
    at += 16;
  }
  return at;
}
