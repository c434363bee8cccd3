/** What travels between catalogs: entries, headers of entries, and the questions of the feed. */
import { z } from "zod";
import { ENTRY_SCHEMAS, type Entry, type EntryKind } from "../../domain/index.ts";
import { decodeJson } from "../json-body.ts";

export { encodeJson as encode } from "../json-body.ts";

const name = z.string().min(1).max(512);
const version = z.number().int().positive();

/** An entry; without `x` a tombstone. `at`: wall clock of its making, for the lag. */
export const wireEntrySchema = z.looseObject({
  o: name,
  k: z.string().max(64),
  i: name,
  n: version,
  x: z.unknown().optional(),
  at: z.number().optional(),
});
export type WireEntry = z.infer<typeof wireEntrySchema>;

const headerSchema = z.tuple([name, z.string().max(64), name, version]);
export type WireHeader = z.infer<typeof headerSchema>;

export const batchSchema = z.looseObject({
  v: z.literal(1),
  /** State hash of the sender after these entries. */
  h: z.string().max(128),
  e: z.array(wireEntrySchema).max(10_000),
});

export const questionSchema = z.discriminatedUnion("q", [
  z.looseObject({ v: z.literal(1), q: z.literal("state"), h: z.string().max(128) }),
  z.looseObject({
    v: z.literal(1),
    q: z.literal("headers"),
    since: z.number().int().nonnegative(),
  }),
  z.looseObject({
    v: z.literal(1),
    q: z.literal("values"),
    keys: z.array(z.tuple([name, z.string().max(64), name])).max(2_000),
  }),
  /** Which of these deletions, with their versions, the asked one could not undo. */
  z.looseObject({
    v: z.literal(1),
    q: z.literal("settled"),
    keys: z.array(z.tuple([name, z.string().max(64), name, version])).max(2_000),
  }),
  /** "You lack something that I have": the asked one pulls. */
  z.looseObject({ v: z.literal(1), q: z.literal("pull") }),
]);
export type Question = z.infer<typeof questionSchema>;

export const stateAnswerSchema = z.looseObject({
  h: z.string().max(128),
  /** Names the feed: another one when the peer's catalog is not the one it was. */
  feed: z.string().max(128),
  seq: z.number().int().nonnegative(),
});
export const headersAnswerSchema = z.looseObject({
  headers: z.array(headerSchema),
  /** Sequence up to which this page reaches; and whether there is more. */
  seq: z.number().int().nonnegative(),
  more: z.boolean(),
});
export const settledAnswerSchema = z.looseObject({ ok: z.array(z.boolean()) });
export const valuesAnswerSchema = z.looseObject({ e: z.array(wireEntrySchema) });

/** @throws AppError wire_invalid */
export const decode = <T>(schema: z.ZodType<T>, body: Uint8Array): T =>
  decodeJson(schema, body, "a message about the catalog");

export const toWire = (entry: Entry, at?: number): WireEntry => ({
  o: entry.owner,
  k: entry.kind,
  i: entry.id,
  n: entry.version,
  ...(entry.value === undefined ? {} : { x: entry.value }),
  ...(at === undefined ? {} : { at }),
});

/** What became of a received entry: usable, of a kind that only newer versions know, or wrong. */
export type Parsed = { readonly entry: Entry } | "unknown" | "invalid";

export function fromWire({ o, k, i, n, x }: WireEntry): Parsed {
  if (!Object.hasOwn(ENTRY_SCHEMAS, k)) return "unknown";
  const address = { owner: o, kind: k as EntryKind, id: i, version: n };
  if (x === undefined) return { entry: address };
  const parsed = ENTRY_SCHEMAS[address.kind].safeParse(x);
  return parsed.success ? { entry: { ...address, value: parsed.data } } : "invalid";
}
