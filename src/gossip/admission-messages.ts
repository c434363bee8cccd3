/** Messages of protocol "join" as bytes: JSON, checked by whoever reads it. */
import type { z } from "zod";
import { decodeJson, encodeJson } from "./json-body.ts";

const BODY_BYTES = 65_536;

export const encodeAdmission = (body: object): Uint8Array => encodeJson({ v: 1, ...body });

/** @throws AppError wire_invalid for what is over the limit, no JSON, or of another shape */
export const decodeAdmission = <T>(
  schema: z.ZodType<T>,
  body: Uint8Array,
  limitBytes = BODY_BYTES,
): T => decodeJson(schema, body, "an admission message", limitBytes);
