/**
 * Layers are read strictly in order while the following ones are downloaded beside (spec §3.6). The
 * layer opened first comes straight from its source; what is fetched ahead waits in scratch files
 * that have no name any more by the time they are written, so that nothing is left even by kill -9.
 */
import { mkdir, open, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../../domain/index.ts";
import { SOURCE_LIMITS } from "./limits.ts";

export interface OpenOptions {
  readonly signal?: AbortSignal;
  readonly onBytes?: (bytes: number) => void;
}

/** A whole number of 1 and above, at most 32; anything else is the default of 6 (spec §3.6). */
export function parsePrefetch(value: number | string | undefined): number {
  const count = typeof value === "string" ? Number(value.trim() || Number.NaN) : (value ?? 0);
  if (!Number.isInteger(count) || count < 1) return SOURCE_LIMITS.prefetchDefault;
  return Math.min(count, SOURCE_LIMITS.prefetchMax);
}

/** A nameless file in `dir`; its space is given back when it is closed. */
export async function openScratch(dir: string, name: string): Promise<FileHandle> {
  await mkdir(dir, { recursive: true });
  const path = join(dir, name);
  const handle = await open(path, "wx+", 0o600);
  try {
    await unlink(path);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** @throws AppError disk_space_low when the disk is full */
export async function writeAll(handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  try {
    for (let done = 0; done < bytes.length;) {
      done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
    }
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code !== "ENOSPC" && code !== "EDQUOT") throw cause;
    throw new AppError("disk_space_low", "no space left for downloaded layers", { cause });
  }
}

/** A layer that is being fetched ahead, or has been. */
class Slot {
  readonly stop = new AbortController();
  readonly handle: FileHandle;
  written = 0;
  state: "running" | "done" | { readonly error: unknown } = "running";
  onBytes: ((bytes: number) => void) | undefined;
  task: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;

  constructor(handle: FileHandle) {
    this.handle = handle;
  }

  notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  async changed(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

export interface PrefetchInput {
  readonly layers: number;
  /** Downloads at once, and layers kept ahead of the last one opened. */
  readonly limit: number;
  readonly scratchDir: string;
  /** The verified bytes of a layer. */
  readonly download: (index: number, signal: AbortSignal) => AsyncIterable<Uint8Array>;
}

export class LayerPrefetch {
  readonly #input: PrefetchInput;
  /** Aborted by `close`, and by the first download that fails: the others are of no use then. */
  readonly #all = new AbortController();
  readonly #slots = new Map<number, Promise<Slot>>();
  readonly #started = new Set<number>();
  #running = 0;
  #last = -1;

  constructor(input: PrefetchInput) {
    this.#input = input;
  }

  async *open(index: number, options: OpenOptions = {}): AsyncGenerator<Uint8Array, void> {
    const slot = this.#slots.get(index);
    this.#slots.delete(index);
    this.#started.add(index);
    this.#last = Math.max(this.#last, index);
    if (slot === undefined) yield* this.#readDirect(index, options);
    else yield* this.#readSlot(await slot, options);
  }

  /** Ends all downloads and gives their space back. */
  async close(): Promise<void> {
    this.#all.abort(new AppError("job_cancelled", "the image was closed while it was read"));
    const slots = [...this.#slots.values()];
    this.#slots.clear();
    await Promise.allSettled(slots.map(async (slot) => await release(await slot)));
  }

  async *#readDirect(index: number, options: OpenOptions): AsyncGenerator<Uint8Array, void> {
    this.#running += 1;
    this.#pump();
    const signals = [this.#all.signal, ...(options.signal === undefined ? [] : [options.signal])];
    const signal = AbortSignal.any(signals);
    try {
      for await (const bytes of this.#input.download(index, signal)) {
        options.onBytes?.(bytes.length);
        yield bytes;
      }
    } catch (error) {
      this.#all.abort(error);
      throw error;
    } finally {
      this.#running -= 1;
      this.#pump();
    }
  }

  async *#readSlot(slot: Slot, options: OpenOptions): AsyncGenerator<Uint8Array, void> {
    const { signal, onBytes } = options;
    const wake = () => slot.notify();
    signal?.addEventListener("abort", wake);
    if (slot.written > 0) onBytes?.(slot.written);
    slot.onBytes = onBytes;
    this.#pump();
    try {
      for (let at = 0; ;) {
        signal?.throwIfAborted();
        if (typeof slot.state === "object") throw slot.state.error;
        if (at < slot.written) {
          const buffer = Buffer.allocUnsafe(Math.min(SOURCE_LIMITS.readBytes, slot.written - at));
          const { bytesRead } = await slot.handle.read(buffer, 0, buffer.length, at);
          at += bytesRead;
          yield buffer.subarray(0, bytesRead);
        } else if (slot.state === "done") return;
        else await slot.changed();
      }
    } finally {
      signal?.removeEventListener("abort", wake);
      await release(slot);
    }
  }

  #pump(): void {
    const { layers, limit } = this.#input;
    const end = Math.min(layers, this.#last + 1 + limit);
    for (let index = this.#last + 1; index < end; index += 1) {
      if (this.#all.signal.aborted || this.#running >= limit) return;
      if (this.#started.has(index)) continue;
      this.#started.add(index);
      this.#running += 1;
      const slot = this.#startSlot(index);
      // Its reader gets the error; until there is one, it is not an unhandled rejection.
      slot.catch(() => undefined);
      this.#slots.set(index, slot);
    }
  }

  async #startSlot(index: number): Promise<Slot> {
    try {
      const slot = new Slot(await openScratch(this.#input.scratchDir, `layer-${index}.part`));
      slot.task = this.#fill(index, slot);
      return slot;
    } catch (error) {
      this.#running -= 1;
      this.#all.abort(error);
      throw error;
    }
  }

  /** Never rejects: the outcome is the slot's state. */
  async #fill(index: number, slot: Slot): Promise<void> {
    const signal = AbortSignal.any([this.#all.signal, slot.stop.signal]);
    try {
      for await (const bytes of this.#input.download(index, signal)) {
        await writeAll(slot.handle, bytes, slot.written);
        slot.written += bytes.length;
        slot.onBytes?.(bytes.length);
        slot.notify();
      }
      slot.state = "done";
    } catch (error) {
      slot.state = { error };
      if (!slot.stop.signal.aborted) this.#all.abort(error);
    } finally {
      this.#running -= 1;
      slot.notify();
      this.#pump();
    }
  }
}

async function release(slot: Slot): Promise<void> {
  slot.stop.abort(new AppError("job_cancelled", "the layer is not read any more"));
  await slot.task;
  await slot.handle.close().catch(() => undefined);
}
