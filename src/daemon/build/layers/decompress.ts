/**
 * Layer blobs to archive bytes, streaming. gzip runs in zlib's thread pool, so inflating the next
 * piece overlaps with reading this one. zstd is the reference decoder in WebAssembly on the calling
 * thread, on every Node: the built-in one of newer versions ends at the first frame of several.
 */
import { pipeline, type Transform } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import zlib from "node:zlib";
import type { LayerDescriptor } from "../../../domain/index.ts";
import { MAGIC_BYTES, sniffCompression } from "../source/compression.ts";
import { AppError } from "../../../domain/core.ts";
import { refusal, type RefusalReason } from "./refusal.ts";
import { decodeZstd } from "./zstd-wasm.ts";

/**
 * Bytes per piece that comes out, and pieces that may wait for the reader. Each piece costs a
 * wake-up of a pool thread: below 1 MiB these add up.
 */
const PIECE_BYTES = 1024 * 1024;
const PIECES_AHEAD = 4;
const INPUT_BYTES = 1024 * 1024;

type Source = AsyncIterable<Uint8Array>;

/**
 * What the bytes themselves say decides, since media types in the wild are often wrong; but a layer
 * that is said to be compressed and is not is refused.
 * @throws AppError image_refused (bad_gzip, bad_zstd, truncated_gzip, truncated_zstd,
 *   compressed_trailing_data); errors of the source as they are.
 */
export async function* decompress(
  source: Source,
  declared: LayerDescriptor["compression"],
): AsyncGenerator<Buffer> {
  const { head, rest } = await peek(source);
  const found = sniffCompression(head) ?? "none";
  if (found === "none" && declared !== "none") {
    if (head.length === 0) throw refusal(TRUNCATED[declared], "the layer's blob is empty");
    throw refusal(BAD[declared], `the layer's blob is not ${declared} data`);
  }
  if (found === "none") yield* plain(rest);
  else if (found === "gzip") yield* inflate(rest, "gzip", gunzip());
  else {
    yield* decodeZstd(rest);
  }
}

const BAD = { gzip: "bad_gzip", zstd: "bad_zstd" } as const;
const TRUNCATED = { gzip: "truncated_gzip", zstd: "truncated_zstd" } as const;

/** Reads until the compression can be told; `rest` yields everything, the head included. */
async function peek(source: Source): Promise<{ head: Buffer; rest: Source }> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = head.length === 0 ? asBuffer(next.value) : Buffer.concat([head, next.value]);
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    try {
      if (head.length > 0) yield head;
      for (;;) {
        const next = await iterator.next();
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return { head, rest: all() };
}

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

async function* plain(source: Source): AsyncGenerator<Buffer> {
  for await (const bytes of source) yield asBuffer(bytes);
}

/** With input waiting in the stream itself, the next piece is begun without a turn of the loop. */
const STREAM_OPTIONS = { chunkSize: PIECE_BYTES, writableHighWaterMark: INPUT_BYTES };

const gunzip = (): Inflater => zlib.createGunzip(STREAM_OPTIONS);

type Inflater = Transform & { readonly bytesWritten: number };

async function* inflate(
  source: Source,
  format: "gzip" | "zstd",
  stream: Inflater,
): AsyncGenerator<Buffer> {
  let compressed = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const bytes of source) {
      compressed += bytes.length;
      yield bytes;
    }
  }
  const fed = new Promise<void>((resolve) => {
    // The error, if any, also comes out of the iteration below.
    pipeline(counted(), stream, () => {
      resolve();
    });
  });
  try {
    yield* onePieceATurn(stream);
  } catch (error) {
    throw inflateError(error, format);
  } finally {
    stream.destroy();
    await fed;
  }
  if (stream.bytesWritten < compressed) {
    throw refusal("compressed_trailing_data", `the layer's blob goes on after its ${format} data`);
  }
}

/**
 * The stream's pieces, one in each turn of the event loop. zlib starts on the next piece when the
 * loop gets to it, right after it has handed over the last: taking one piece a turn keeps a pool
 * thread and this one both busy, where the stream's own iterator would join several pieces (and
 * copy them) while the pool waits.
 */
async function* onePieceATurn(stream: Inflater): AsyncGenerator<Buffer> {
  const queue: Buffer[] = [];
  let state: "open" | "ended" | { readonly error: unknown } = "open";
  let wake: () => void = () => undefined;
  stream.on("data", (piece: Buffer) => {
    queue.push(piece);
    if (queue.length >= PIECES_AHEAD) stream.pause();
    wake();
  });
  stream.on("end", () => {
    state = "ended";
    wake();
  });
  stream.on("error", (error) => {
    state = { error };
    wake();
  });
  for (;;) {
    const piece = queue.shift();
    if (piece !== undefined) {
      if (stream.isPaused()) stream.resume();
      yield piece;
      if (queue.length > 0) await nextTurn();
    } else if ((state as string) === "ended") return;
    else if (typeof state === "object") throw (state as { error: unknown }).error;
    else {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
}

function inflateError(error: unknown, format: "gzip" | "zstd"): unknown {
  if (error instanceof AppError || !(error instanceof Error)) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (!/^(Z_|ZSTD_|ERR_ZSTD)/.test(code)) return error;
  const cut = code === "Z_BUF_ERROR" || code === "ZSTD_error_srcSize_wrong";
  const reason: RefusalReason = cut ? TRUNCATED[format] : BAD[format];
  const what = cut ? "ends too early" : "is damaged";
  return refusal(reason, `the layer's ${format} data ${what}`, {}, error);
}
