/** Bodies of messages that are JSON: checked against a schema by whoever reads them. */
import type { z } from "zod";
import { AppError } from "../domain/index.ts";

export const encodeJson = (value: unknown): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(value));

/**
 * @param what the message, as the error names it: "the answer of node-b"
 * @throws AppError wire_invalid for what is over the limit, no JSON, or of another shape
 */
export function decodeJson<T>(
  schema: z.ZodType<T>,
  body: Uint8Array,
  what: string,
  limitBytes = Number.POSITIVE_INFINITY,
): T {
  try {
    if (body.length > limitBytes) throw new RangeError("too large");
    return schema.parse(JSON.parse(new TextDecoder().decode(body)));
  } catch (cause) {
    throw new AppError("wire_invalid", `${what} does not fit its schema`, { cause });
  }
}
