/**
 * zstd for Node 20: the reference decoder compiled to WebAssembly (`zstddec`). Its generator pulls
 * input synchronously, so it is only advanced while a piece of input, or the end, is at hand.
 */
import { ZSTDDecoder } from "zstddec/stream";
import { refusal } from "./refusal.ts";

/** The decoder yields nothing and takes nothing once it has failed; this often in a row says so. */
const IDLE_STEPS = 16;
/** Copied into the decoder's memory as a whole, so bounded. */
const INPUT_BYTES = 256 * 1024;

/** @throws AppError image_refused (bad_zstd, truncated_zstd) */
export async function* decodeZstd(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const decoder = new ZSTDDecoder();
  await decoder.init();
  const queue: Uint8Array[] = [];
  function* queued(): Generator<Uint8Array> {
    for (let bytes = queue.shift(); bytes !== undefined; bytes = queue.shift()) yield bytes;
  }
  const steps = decoder.decodeStreaming(queued());
  for await (const bytes of pieces(source)) {
    queue.push(bytes);
    // One piece stays behind: the generator asks for the next in the middle of a step.
    while (queue.length > 1) yield* step(steps, queue);
  }
  for (;;) {
    const output = [...step(steps, queue)];
    if (output.length === 0) return;
    yield* output;
  }
}

async function* pieces(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length; at += INPUT_BYTES) {
      yield bytes.subarray(at, at + INPUT_BYTES);
    }
  }
}

/** Advances until there is output or a piece of input is used up. */
function* step(steps: Generator<Uint8Array>, queue: readonly unknown[]): Generator<Buffer> {
  const before = queue.length;
  for (let idle = 0; idle < IDLE_STEPS; idle++) {
    const next = advance(steps);
    if (next.done === true) return;
    if (next.value.length > 0) {
      const { buffer, byteOffset, length } = next.value;
      yield Buffer.from(buffer, byteOffset, length);
      return;
    }
    if (queue.length < before) return;
  }
  throw refusal("bad_zstd", "the layer's zstd data is damaged");
}

function advance(steps: Generator<Uint8Array>): IteratorResult<Uint8Array, unknown> {
  try {
    return steps.next();
  } catch (error) {
    throw refusal("truncated_zstd", "the layer's zstd data ends too early", {}, error);
  }
}
