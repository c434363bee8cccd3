/** Receives a running guest's migration stream: memory into a sparse file, the rest beside it. */
import { once } from "node:events";
import { open, rm, writeFile, type FileHandle } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { VM_FILES } from "./command.ts";
import { PAGE_BYTES, RamStream, type RamSink } from "./ram-stream.ts";

/** Pages that follow each other are written at once, up to this much. */
const RUN_BYTES = 1_048_576;

/** Collects pages into runs; `drain` writes those that are finished. */
class MemoryFile {
  readonly #file: FileHandle;
  readonly #written: Uint8Array;
  #run: { offset: number; length: number; bytes: Buffer } | undefined;
  readonly #full: { offset: number; bytes: Buffer }[] = [];

  constructor(file: FileHandle, sizeBytes: number) {
    this.#file = file;
    this.#written = new Uint8Array(sizeBytes / PAGE_BYTES);
  }

  page(offset: number, page: Buffer): void {
    const run = this.#run;
    this.#written[offset / PAGE_BYTES] = 1;
    if (run !== undefined && run.offset + run.length === offset && run.length < RUN_BYTES) {
      page.copy(run.bytes, run.length);
      run.length += page.length;
      return;
    }
    this.#close();
    const bytes = Buffer.allocUnsafe(RUN_BYTES);
    page.copy(bytes);
    this.#run = { offset, length: page.length, bytes };
  }

  /** The file has a hole there unless the page was something else before. */
  zero(offset: number): void {
    if (this.#written[offset / PAGE_BYTES] === 1) this.page(offset, Buffer.alloc(PAGE_BYTES));
  }

  #close(): void {
    if (this.#run === undefined) return;
    const { offset, length, bytes } = this.#run;
    this.#full.push({ offset, bytes: bytes.subarray(0, length) });
    this.#run = undefined;
  }

  async drain(options: { all: boolean } = { all: false }): Promise<void> {
    if (options.all) this.#close();
    for (const { offset, bytes } of this.#full.splice(0)) {
      await this.#file.write(bytes, 0, bytes.length, offset);
    }
  }
}

export interface LiveReceiver {
  /** Resolves when memory and state are written, the stream having ended; rejects otherwise. */
  readonly written: Promise<void>;
  /** Ends what is under way. */
  close(): Promise<void>;
}

/**
 * Listens in the VM's folder (`VM_FILES.incoming`), and writes to the folder `to`.
 * @param memoryBytes length of the guest's memory
 */
export async function receiveLive(
  vmDir: string,
  to: string,
  memoryBytes: number,
): Promise<LiveReceiver> {
  await rm(join(vmDir, VM_FILES.incoming), { force: true });
  // Its descriptor makes the socket's path short.
  const folder = await open(vmDir);
  const server = createServer();
  const sockets = new Set<Socket>();
  const written = new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("close", () => reject(new Error("nothing was received")));
    server.once("connection", (socket) => {
      sockets.add(socket);
      // QEMU sees the channel's end, and lets the guest run.
      const received = receive(socket, to, memoryBytes).finally(() => socket.destroy());
      received.then(resolve, reject);
    });
  });
  written.catch(() => undefined);
  try {
    server.listen({ path: `/proc/self/fd/${folder.fd}/${VM_FILES.incoming}` });
    await once(server, "listening");
  } catch (error) {
    await folder.close();
    throw error;
  }
  return {
    written,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await written.catch(() => undefined);
      await folder.close();
    },
  };
}

async function receive(socket: Socket, to: string, memoryBytes: number): Promise<void> {
  const file = await open(join(to, VM_FILES.memory), "wx", 0o640);
  try {
    await file.truncate(memoryBytes);
    const memory = new MemoryFile(file, memoryBytes);
    const state: Buffer[] = [];
    const sink: RamSink = {
      page: (offset, bytes) => memory.page(offset, bytes),
      zero: (offset) => memory.zero(offset),
      state: (bytes) => state.push(bytes),
    };
    const stream = new RamStream(sink, memoryBytes);
    for await (const chunk of socket) {
      stream.push(chunk as Buffer);
      await memory.drain();
    }
    stream.end();
    await memory.drain({ all: true });
    await writeFile(join(to, VM_FILES.state), Buffer.concat(state), { mode: 0o640 });
  } finally {
    await file.close();
  }
}
