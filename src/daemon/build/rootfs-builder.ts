/**
 * The port `RootfsBuilder`: opens the layers where the network is, on the main thread, and has the
 * rest done by a thread of its own for each build (rootfs-thread.ts).
 */
import { rm } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import type { Clock, ResolvedImage, RootfsBuilder, RootfsBuildResult } from "../../domain/index.ts";
import type { FromThread, ToThread } from "./rootfs-messages.ts";
import type { LayerLimits } from "./layers/limits.ts";
import { AppError } from "../../domain/index.ts";
import { BuildMeter } from "./build-meter.ts";
import { errorOf, errorParts } from "./rootfs-messages.ts";
import { LAYER_LIMITS } from "./layers/limits.ts";
import { refusal } from "./layers/refusal.ts";
import { runBuild, type RunHooks, type RunRequest, type RunResult } from "./rootfs-run.ts";

/** Compressed bytes on their way to the thread; more only costs memory. */
const WINDOW_BYTES = 4 * 1024 * 1024;
/** Pieces are gathered to about this size before they change threads. */
const PIECE_BYTES = 256 * 1024;
/**
 * The thread's own heap. The tree of 500 000 entries takes about half of it; past it the build
 * fails and the daemon goes on.
 */
const THREAD_HEAP_MB = 768;

type BuildOptions = Parameters<RootfsBuilder["build"]>[2];

export interface RootfsBuilderParts {
  readonly clock: Clock;
  readonly limits?: Partial<LayerLimits>;
  /**
   * The build thread's entry. Null runs builds on the caller's thread, which is also what happens
   * when this file runs as TypeScript (under vitest), where a thread could not load its entry.
   */
  readonly threadEntry?: URL | null;
}

export function createRootfsBuilder(parts: RootfsBuilderParts): RootfsBuilder {
  const compiled = import.meta.url.endsWith(".js");
  const entry = compiled ? new URL("./rootfs-thread.js", import.meta.url) : null;
  const threadEntry = parts.threadEntry === undefined ? entry : parts.threadEntry;
  return {
    async build(image, outputPath, options) {
      options.signal?.throwIfAborted();
      const meter = new BuildMeter(parts.clock, image.layers, options.onProgress);
      const request: RunRequest = {
        outputPath,
        imageDigest: image.digest,
        layers: image.layers.map(({ compression, diffId, sizeBytes }) => {
          return { compression, diffId, sizeBytes };
        }),
        bake: options.bake ?? {},
        extraFreeBytes: options.extraFreeBytes ?? 0,
        sync: options.sync,
        limits: { ...LAYER_LIMITS, ...parts.limits },
      };
      const result =
        threadEntry === null
          ? await buildHere(request, image, options, meter)
          : await new ThreadBuild(request, image, options, meter).run(threadEntry);
      return resultOf(result, meter);
    },
  };
}

const resultOf = (result: RunResult, meter: BuildMeter): RootfsBuildResult => ({
  ...result,
  timings: meter.end(),
});

function buildHere(
  request: RunRequest,
  image: ResolvedImage,
  { signal }: BuildOptions,
  meter: BuildMeter,
): Promise<RunResult> {
  const hooks: RunHooks = {
    signal,
    openLayer: (index) => image.openLayer(index, { signal, onBytes: meter.onBytes }),
    onProgress: (progress) => {
      meter.onRun(progress);
    },
  };
  return runBuild(request, hooks);
}

/** One build in its thread. */
class ThreadBuild {
  private readonly request: RunRequest;
  private readonly image: ResolvedImage;
  private readonly signal: AbortSignal | undefined;
  private readonly meter: BuildMeter;
  /** Ends the source's streams when the build is over, however it ended. */
  private readonly stop = new AbortController();
  private underWay = 0;
  private wake: (() => void) | undefined;
  /** What the source threw, if it did: better than what came back from the thread. */
  private sourceError: Error | undefined;
  private threadFailed = false;

  constructor(request: RunRequest, image: ResolvedImage, options: BuildOptions, meter: BuildMeter) {
    this.request = request;
    this.image = image;
    this.signal = options.signal;
    this.meter = meter;
  }

  async run(entry: URL): Promise<RunResult> {
    const worker = new Worker(entry, {
      workerData: this.request,
      resourceLimits: { maxOldGenerationSizeMb: THREAD_HEAP_MB },
      name: "rootfs",
      execArgv: [],
    });
    try {
      return await this.follow(worker);
    } catch (error) {
      await worker.terminate();
      // A thread that fails removes its file; one that is ended or crashes cannot.
      if (!this.threadFailed) await rm(this.request.outputPath, { force: true });
      throw error;
    } finally {
      this.stop.abort();
      this.wake?.();
      await worker.terminate();
    }
  }

  private follow(worker: Worker): Promise<RunResult> {
    return new Promise<RunResult>((resolve, reject) => {
      const onAbort = () => {
        reject(this.signal?.reason as Error);
      };
      this.signal?.addEventListener("abort", onAbort, { once: true });
      worker.on("message", (message: FromThread) => {
        if (message.kind === "open") void this.send(worker, message.layer);
        else if (message.kind === "taken") this.taken(message.bytes);
        else if (message.kind === "progress") this.meter.onRun(message.progress);
        else if (message.kind === "done") resolve(message.result);
        else {
          this.threadFailed = true;
          reject(this.sourceError ?? errorOf(message.error));
        }
      });
      worker.on("error", (error) => {
        reject(crashError(error));
      });
      worker.on("exit", (code) => {
        this.signal?.removeEventListener("abort", onAbort);
        reject(new AppError("internal", `the build thread ended early with code ${code}`));
      });
    });
  }

  /** Sends one layer's blob, never more than the window ahead of the thread. Never rejects. */
  private async send(worker: Worker, layer: number): Promise<void> {
    const post = (message: ToThread, transfer: ArrayBuffer[] = []): void => {
      worker.postMessage(message, transfer);
    };
    const { signal } = this.stop;
    try {
      const source = this.image.openLayer(layer, { signal, onBytes: this.meter.onBytes });
      for await (const bytes of gather(source)) {
        while (this.underWay > WINDOW_BYTES && !signal.aborted) {
          await new Promise<void>((resolve) => {
            this.wake = resolve;
          });
        }
        if (signal.aborted) return;
        this.underWay += bytes.length;
        post({ kind: "bytes", layer, bytes }, [bytes.buffer]);
      }
      post({ kind: "end", layer });
    } catch (error) {
      this.sourceError = error instanceof Error ? error : errorOf(errorParts(error));
      post({ kind: "fail", error: errorParts(error) });
    }
  }

  private taken(bytes: number): void {
    this.underWay -= bytes;
    this.wake?.();
  }
}

/** Copies what comes into buffers of their own, which can change threads without a second copy. */
async function* gather(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let buffer = new Uint8Array(PIECE_BYTES);
  let filled = 0;
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + PIECE_BYTES - filled);
      buffer.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < PIECE_BYTES) continue;
      yield buffer;
      buffer = new Uint8Array(PIECE_BYTES);
      filled = 0;
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled);
}

function crashError(error: unknown): AppError {
  if (error instanceof Error && "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY") {
    return refusal("out_of_memory", "the image has more entries than a build has memory for");
  }
  return new AppError("internal", "the build thread crashed", { cause: error });
}
