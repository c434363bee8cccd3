/**
 * What nodes of a swarm say to each other: four bytes length, a JSON head, then binary. Chunks are
 * told by index; bitfields and chunk bytes are in the binary part.
 */
import { z } from "zod";
import { AppError, REQUEST_CHUNKS_MAX } from "../../domain/index.ts";

/** An artifact of 1 TiB has so many chunks. */
const INDEX_MAX = 2 ** 24;
const HEAD_BYTES_MAX = 256 * 1024;
/** Have-indexes in one answer; the rest comes with the next. */
export const HAVES_MAX = 4_096;
/** Bytes of a manifest in one answer. */
export const MANIFEST_PART_BYTES = 512 * 1024;
export const FETCHERS_MAX = 32;

const version = z.literal(1);
const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const index = z.number().int().nonnegative().max(INDEX_MAX);
const cursor = z.number().int().nonnegative();
const log = z.string().max(32);
/** Where the asker stands in the log of chunks that the asked one has got since it began. */
const position = { log: log.optional(), cursor: cursor.optional() };

export const swarmRequestSchema = z.discriminatedUnion("kind", [
  z.object({ v: version, kind: z.literal("manifest"), digest, offset: cursor }),
  z.object({ v: version, kind: z.literal("have"), digest, ...position }),
  z.object({
    v: version,
    kind: z.literal("chunks"),
    digest,
    indexes: z.array(index).min(1).max(REQUEST_CHUNKS_MAX),
    ...position,
  }),
  /** Any chunks that the asked one has given to nobody; the bitfield says which not. */
  z.object({
    v: version,
    kind: z.literal("fresh"),
    digest,
    limit: z.number().int().positive().max(REQUEST_CHUNKS_MAX),
  }),
]);
export type SwarmRequest = z.infer<typeof swarmRequestSchema>;

export const manifestAnswerSchema = z.object({ v: version, total: cursor });

const haves = {
  complete: z.boolean(),
  log,
  cursor,
  /** Got since the asker's position, when that is of this log. */
  haves: z.array(index).max(HAVES_MAX).optional(),
};

/** Without `haves` the binary part is the whole bitfield. */
export const haveAnswerSchema = z.object({
  v: version,
  ...haves,
  /** Node ids that have asked for this artifact of late. */
  fetchers: z.array(z.string().max(256)).max(FETCHERS_MAX),
});
export type HaveAnswer = z.infer<typeof haveAnswerSchema>;

export const chunksAnswerSchema = z.object({
  v: version,
  ...haves,
  /** In the order of their bytes: index, bytes here, whether deflated. */
  chunks: z.array(z.tuple([index, z.number().int().nonnegative(), z.boolean()])),
  /** Asked for and not here. */
  missing: z.array(index),
  /** Nothing fresh is left for the asker. */
  exhausted: z.boolean(),
});
export type ChunksAnswer = z.infer<typeof chunksAnswerSchema>;

export type HavesPart = Pick<HaveAnswer, "complete" | "log" | "cursor" | "haves">;

export function encodeMessage(head: unknown, body: readonly Uint8Array[] = []): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const length = body.reduce((sum, part) => sum + part.length, 4 + text.length);
  // Every byte of it is written below.
  const bytes = Buffer.allocUnsafeSlow(length);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  let at = 4 + text.length;
  for (const part of body) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** @throws AppError wire_invalid */
export function decodeMessage<T>(
  schema: z.ZodType<T>,
  bytes: Uint8Array,
): { head: T; body: Uint8Array } {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = view.getUint32(0, true);
    if (length > HEAD_BYTES_MAX || 4 + length > bytes.length) {
      throw new RangeError("the head is longer than the message");
    }
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(4, 4 + length));
    const head = schema.parse(JSON.parse(text));
    return { head, body: bytes.subarray(4 + length) };
  } catch (cause) {
    throw new AppError("wire_invalid", "a swarm message is not valid", { cause });
  }
}
