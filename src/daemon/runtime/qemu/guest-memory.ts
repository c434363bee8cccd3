/**
 * A guest's memory as its host sees it. A sandbox maps its snapshot's memory file copy-on-write, so
 * its memory is that file but for the pages it has written, and the kernel knows which those are:
 * they are no file's any more (Linux Documentation/admin-guide/mm/pagemap.rst). QEMU's own record
 * of written pages, which its migration goes by, is not used: under TCG it loses some.
 */
import { readSync } from "node:fs";
import { open, readFile, type FileHandle } from "node:fs/promises";

const PAGE_BYTES = 4_096;
/** Of the upper half of a page's entry: in memory, on swap, a file's or shared. */
const ENTRY = { present: 0x8000_0000, swapped: 0x4000_0000, file: 0x2000_0000 } as const;
const ENTRY_BYTES = 8;
/** So much is read at a time without letting others run: many short runs are read fast this way. */
const AT_ONCE_BYTES = 4_194_304;
/** More is not kept in this process while the guest stands still, but written at once. */
const KEPT_BYTES = 268_435_456;

interface Mapping {
  readonly address: number;
  readonly bytes: number;
  readonly offset: number;
}

interface Run {
  readonly offset: number;
  readonly address: number;
  bytes: number;
}

export class GuestMemory {
  readonly #mappings: readonly Mapping[];
  readonly #memory: FileHandle;
  readonly #pagemap: FileHandle;
  /** Taken before the guest stands still: getting memory takes time. */
  #kept: Buffer = Buffer.alloc(0);

  private constructor(mappings: readonly Mapping[], memory: FileHandle, pagemap: FileHandle) {
    this.#mappings = mappings;
    this.#memory = memory;
    this.#pagemap = pagemap;
  }

  /**
   * @param inode of the memory file that the process maps
   * @throws Error when it maps no such file, or its memory may not be read
   */
  static async open(pid: number, inode: number, memoryBytes: number): Promise<GuestMemory> {
    const mappings = readMappings(await readFile(`/proc/${pid}/maps`, "utf8"), inode);
    const mapped = mappings.reduce((sum, { bytes }) => sum + bytes, 0);
    if (mapped !== memoryBytes) throw new Error("the guest's memory is not mapped as expected");
    const memory = await open(`/proc/${pid}/mem`, "r");
    try {
      return new GuestMemory(mappings, memory, await open(`/proc/${pid}/pagemap`, "r"));
    } catch (error) {
      await memory.close();
      throw error;
    }
  }

  /** While the guest runs: makes ready to keep as much as it has written by now, and some more. */
  async prepare(): Promise<void> {
    const bytes = (await this.#written()).reduce((sum, run) => sum + run.bytes, 0);
    this.#kept = Buffer.alloc(Math.min(KEPT_BYTES, Math.ceil(bytes * 1.25) + 4_194_304));
  }

  /**
   * The pages that the guest, which stands still, has written since it was started.
   * @param file a copy of the memory file, which the pages go to
   * @returns what is left to be written, for which the guest need not wait
   */
  async take(file: FileHandle): Promise<() => Promise<void>> {
    const kept: { readonly run: Run; readonly from: number }[] = [];
    let used = 0;
    let atOnce = AT_ONCE_BYTES;
    for (const run of await this.#written()) {
      if (used + run.bytes > this.#kept.length) {
        await this.#copy(run, file);
        continue;
      }
      const into = this.#kept.subarray(used, used + run.bytes);
      atOnce -= run.bytes;
      if (atOnce > 0) readAll(readSync(this.#memory.fd, into, 0, into.length, run.address), into);
      else {
        await this.#read(run.address, into);
        atOnce = AT_ONCE_BYTES;
      }
      kept.push({ run, from: used });
      used += run.bytes;
    }
    return async () => {
      for (const { run, from } of kept) await file.write(this.#kept, from, run.bytes, run.offset);
    };
  }

  async close(): Promise<void> {
    await this.#memory.close();
    await this.#pagemap.close();
  }

  async #read(address: number, into: Buffer): Promise<void> {
    readAll((await this.#memory.read(into, 0, into.length, address)).bytesRead, into);
  }

  async #copy(run: Run, file: FileHandle): Promise<void> {
    const part = Buffer.alloc(Math.min(run.bytes, 1_048_576));
    for (let done = 0; done < run.bytes; done += part.length) {
      const piece = part.subarray(0, Math.min(part.length, run.bytes - done));
      await this.#read(run.address + done, piece);
      await file.write(piece, 0, piece.length, run.offset + done);
    }
  }

  async #written(): Promise<Run[]> {
    const runs: Run[] = [];
    for (const { address, bytes, offset } of this.#mappings) {
      const entries = Buffer.alloc((bytes / PAGE_BYTES) * ENTRY_BYTES);
      const at = (address / PAGE_BYTES) * ENTRY_BYTES;
      await this.#pagemap.read(entries, 0, entries.length, at);
      for (let page = 0; page < bytes / PAGE_BYTES; page++) {
        if (!isWritten(entries.readUInt32LE(page * ENTRY_BYTES + 4))) continue;
        const from = page * PAGE_BYTES;
        const last = runs.at(-1);
        const follows = last !== undefined && last.offset + last.bytes === offset + from;
        if (follows) last.bytes += PAGE_BYTES;
        else runs.push({ offset: offset + from, address: address + from, bytes: PAGE_BYTES });
      }
    }
    return runs;
  }
}

function readAll(bytesRead: number, into: Buffer): void {
  if (bytesRead !== into.length) throw new Error("the guest's memory could not be read");
}

const isWritten = (entry: number): boolean =>
  (entry & ENTRY.swapped) !== 0 || ((entry & ENTRY.present) !== 0 && (entry & ENTRY.file) === 0);

/** `7f00-7f01 rw-p 00000000 fe:00 1234  /path`: those of the file, in the order of its content. */
export function readMappings(maps: string, inode: number): Mapping[] {
  const found: Mapping[] = [];
  for (const line of maps.split("\n")) {
    const [range = "", mode, offset = "", , number] = line.split(/\s+/);
    if (Number(number) !== inode || mode?.endsWith("p") !== true) continue;
    const [from = "", to = ""] = range.split("-");
    const address = Number.parseInt(from, 16);
    const bytes = Number.parseInt(to, 16) - address;
    found.push({ address, bytes, offset: Number.parseInt(offset, 16) });
  }
  return found.sort((a, b) => a.offset - b.offset);
}
