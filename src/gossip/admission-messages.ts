/** Messages of protocol "join" as bytes: JSON, checked by whoever reads it. */
import type { z } from "zod";
import { AppError } from "../domain/index.ts";

const BODY_BYTES = 65_536;

export const encodeAdmission = (body: object): Uint8Array =>
  new TextEncoder().encode(JSON.stringify({ v: 1, ...body }));

/** @throws AppError wire_invalid for what is over the limit, no JSON, or of another shape */
export function decodeAdmission<T>(
  schema: z.ZodType<T>,
  body: Uint8Array,
  limitBytes = BODY_BYTES,
): T {
  try {
    if (body.length > limitBytes) throw new RangeError("too large");
    return schema.parse(JSON.parse(new TextDecoder().decode(body)));
  } catch (error) {
    throw new AppError("wire_invalid", "an admission message is not valid", { cause: error });
  }
}
