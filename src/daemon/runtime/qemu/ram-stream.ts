/**
 * QEMU's migration stream of a running guest, taken apart while it comes (QEMU docs/devel/migration
 * and migration/ram.c): the pages of the guest's memory go to one side, all the rest to the other.
 * That other side is a state as QEMU itself writes it when the memory is in a shared file, so
 * that a restore need not know how its snapshot was made.
 *
 *   "QEVM" version, configuration
 *   START ram: sizes of the blocks … EOS, footer
 *   PART ram: pages … EOS, footer          (any number of times, while the guest runs)
 *   END ram: pages … EOS, footer           (the guest stands still)
 *   devices, descriptions                  (passed on as they are)
 */
const SECTION = { part: 2, end: 3, footer: 0x7e } as const;
const FLAG = { zero: 0x02, sizes: 0x04, page: 0x08, end: 0x10, sameBlock: 0x20 } as const;
export const PAGE_BYTES = 4_096;
/** Header of the section that begins the memory: name, instance 0, version 4. */
const RAM_HEADER = Buffer.from("\x03ram\0\0\0\0\0\0\0\x04", "latin1");
const SECTION_START = 1;
/** Type and number before the name. */
const START_BYTES = 5;
/** Version and configuration are some hundred bytes. */
const PREAMBLE_LIMIT = 65_536;

export interface RamSink {
  /** A page of the guest's memory; the bytes are only valid during the call. */
  page(offset: number, bytes: Buffer): void;
  /** A page that is all zeros. */
  zero(offset: number): void;
  /** The next bytes of the state without the memory; kept by the callee. */
  state(bytes: Buffer): void;
}

const bad = (what: string): Error => new Error(`unexpected migration stream: ${what}`);

export class RamStream {
  readonly #sink: RamSink;
  readonly #memoryBytes: number;
  #rest: Buffer = Buffer.alloc(0);
  #at = 0;
  #parse: () => boolean = () => this.#preamble();
  /** Name of the block that the next page belongs to when it names none. */
  #block = "";
  #memoryBlock: string | undefined;
  /** Header of the section that is being read, until a page of it has been passed on. */
  #pending: Buffer | undefined;
  #section: number = SECTION_START;
  #tail = false;

  /** @param memoryBytes length of the guest's memory, by which its block is known */
  constructor(sink: RamSink, memoryBytes: number) {
    this.#sink = sink;
    this.#memoryBytes = memoryBytes;
  }

  /** @throws Error when the bytes are not what this QEMU should write */
  push(chunk: Buffer): void {
    if (this.#tail) return this.#sink.state(Buffer.from(chunk));
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#at = 0;
    while (!this.#tail && this.#parse());
    const left = this.#rest.subarray(this.#at);
    this.#rest = this.#tail ? Buffer.alloc(0) : Buffer.from(left);
    if (this.#tail && left.length > 0) this.#sink.state(Buffer.from(left));
  }

  /** @throws Error when the stream ended before the memory did */
  end(): void {
    if (!this.#tail) throw bad("it ended within the memory");
  }

  #has(bytes: number): boolean {
    return this.#rest.length - this.#at >= bytes;
  }

  #take(bytes: number): Buffer {
    const taken = this.#rest.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return taken;
  }

  #preamble(): boolean {
    const found = this.#rest.indexOf(RAM_HEADER);
    if (found < 0) {
      if (this.#rest.length > PREAMBLE_LIMIT) throw bad("it has no memory");
      return false;
    }
    if (this.#rest[found - START_BYTES] !== SECTION_START) throw bad("the memory has no start");
    this.#sink.state(Buffer.from(this.#take(found + RAM_HEADER.length)));
    this.#parse = () => this.#record();
    return true;
  }

  /** Type and number of the next section of the memory, or everything behind the last. */
  #header(): boolean {
    if (this.#section === SECTION.end) {
      this.#tail = true;
      return false;
    }
    if (!this.#has(5)) return false;
    const header = Buffer.from(this.#take(5));
    this.#section = header[0] ?? 0;
    if (this.#section === SECTION.end) this.#sink.state(header);
    else if (this.#section === SECTION.part) this.#pending = header;
    else throw bad(`section of type ${this.#section} between memory`);
    this.#parse = () => this.#record();
    return true;
  }

  #footer(): boolean {
    if (!this.#has(5)) return false;
    if (this.#rest[this.#at] !== SECTION.footer) throw bad("a section has no footer");
    const footer = Buffer.from(this.#take(5));
    if (this.#pending === undefined) this.#sink.state(Buffer.concat([eos(), footer]));
    this.#pending = undefined;
    this.#parse = () => this.#header();
    return true;
  }

  #record(): boolean {
    if (!this.#has(8)) return false;
    const from = this.#at;
    const high = this.#rest.readUInt32BE(from);
    const low = this.#rest.readUInt32BE(from + 4);
    const flags = low % PAGE_BYTES;
    const address = high * 2 ** 32 + (low - flags);
    this.#at += 8;
    if (this.#content(flags, address)) return true;
    // Not all of it has come: read again from its beginning.
    this.#at = from;
    return false;
  }

  #content(flags: number, address: number): boolean {
    if (flags === FLAG.end) {
      this.#parse = () => this.#footer();
      return true;
    }
    if (flags === FLAG.sizes) return this.#sizes(address);
    const kind = flags & ~FLAG.sameBlock;
    if (kind !== FLAG.page && kind !== FLAG.zero) throw bad(`flags ${flags} of a page`);
    const named = (flags & FLAG.sameBlock) === 0 ? this.#name() : this.#block;
    if (named === undefined || !this.#has(kind === FLAG.page ? PAGE_BYTES : 1)) return false;
    this.#block = named;
    const bytes = this.#take(kind === FLAG.page ? PAGE_BYTES : 1);
    if (named !== this.#memoryBlock) this.#passOn(kind, address, bytes);
    else if (address + PAGE_BYTES > this.#memoryBytes) throw bad("a page behind the memory");
    else if (kind === FLAG.page) this.#sink.page(address, bytes);
    else if (bytes[0] === 0) this.#sink.zero(address);
    else this.#sink.page(address, Buffer.alloc(PAGE_BYTES, bytes));
    return true;
  }

  /** A name with its length before it; undefined when it has not come yet. */
  #name(): string | undefined {
    const length = this.#rest[this.#at];
    if (length === undefined || !this.#has(1 + length)) return undefined;
    return this.#take(1 + length).toString("latin1", 1);
  }

  /** The blocks: name, length, and the address, which is there because of x-ignore-shared. */
  #sizes(total: number): boolean {
    const from = this.#at - 8;
    let sum = 0;
    while (sum < total) {
      const name = this.#name();
      if (name === undefined || !this.#has(16)) return false;
      const length = Number(this.#take(16).readBigUInt64BE());
      sum += length;
      if (length === this.#memoryBytes && /(^|\/)ram$/.test(name)) this.#memoryBlock = name;
    }
    if (this.#memoryBlock === undefined) throw bad("it has no block of the memory's length");
    this.#sink.state(Buffer.from(this.#rest.subarray(from, this.#at)));
    return true;
  }

  /** A page of firmware or tables: with its block's name, since pages between are left out. */
  #passOn(kind: number, address: number, bytes: Buffer): void {
    if (this.#pending !== undefined) this.#sink.state(this.#pending);
    this.#pending = undefined;
    const name = Buffer.from(this.#block, "latin1");
    const head = Buffer.alloc(9);
    head.writeBigUInt64BE(BigInt(address) + BigInt(kind));
    head[8] = name.length;
    this.#sink.state(Buffer.concat([head, name, bytes]));
  }
}

function eos(): Buffer {
  const record = Buffer.alloc(8);
  record.writeBigUInt64BE(BigInt(FLAG.end));
  return record;
}
