/** Messages of the protocol "register", checked at the receiving side. */
import { z } from "zod";
import { RECORD_KINDS, voterConfigSchema } from "../domain/index.ts";
import { decodeJson, encodeJson } from "./json-body.ts";

const ballotSchema = z.tuple([z.number().int().nonnegative(), z.string().max(256)]);
export type WireBallot = z.infer<typeof ballotSchema>;

const acceptedSchema = z.object({
  b: ballotSchema,
  n: z.number().int().nonnegative(),
  x: z.unknown().optional(),
});
export type WireAccepted = z.infer<typeof acceptedSchema>;

/** `kind/id` as a key of the table: never the row of the voters, nothing that a table refuses. */
const keySchema = z
  .string()
  .max(1_024)
  .regex(new RegExp(`^(?:${RECORD_KINDS.join("|")})/[^\\u0000-\\u001f\\u007f]+$`));

const operationSchema = z.object({
  k: keySchema,
  /** Prepare with that ballot, */
  p: ballotSchema.optional(),
  /** or accept that value, and promise `next`. */
  a: acceptedSchema.optional(),
  next: ballotSchema.optional(),
});
export type WireOperation = z.infer<typeof operationSchema>;

export const requestSchema = z.looseObject({
  v: z.literal(1),
  voters: voterConfigSchema,
  ops: z.array(operationSchema).max(1_000).optional(),
  dump: z.object({ after: z.string().max(1_024) }).optional(),
});
export type RegisterRequest = z.infer<typeof requestSchema>;

const resultSchema = z.object({
  ok: z.boolean(),
  /** When refused: what was promised to another. */
  promised: ballotSchema.optional(),
  accepted: acceptedSchema.optional(),
  /** The configuration in which the voter accepted that; absent: it took it over. */
  in: z.number().int().positive().optional(),
});
export type WireResult = z.infer<typeof resultSchema>;

export const answerSchema = z.looseObject({
  v: z.literal(1),
  /** The newest configuration that the voter knows. */
  voters: voterConfigSchema.optional(),
  /** False: it does not serve the configuration of the request, and `results` is empty. */
  served: z.boolean(),
  results: z.array(resultSchema).optional(),
  rows: z.array(z.object({ k: keySchema, p: ballotSchema, a: acceptedSchema })).optional(),
  next: z.string().optional(),
});
export type RegisterAnswer = z.infer<typeof answerSchema>;

export const encodeMessage = (message: RegisterRequest | RegisterAnswer): Uint8Array =>
  encodeJson(message);

/** @throws AppError wire_invalid */
export const decodeMessage = <T>(schema: z.ZodType<T>, body: Uint8Array): T =>
  decodeJson(schema, body, "a message about registers");
