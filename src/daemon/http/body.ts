/** Request bodies: bounded, JSON, and checked against a schema exactly once. */
import type { ZodType, output } from "zod";
import { AppError, LIMITS } from "../../domain/index.ts";
import { invalidFields } from "./answer.ts";
import type { AppContext } from "./ports.ts";

const tooLarge = (): AppError =>
  new AppError(
    "payload_too_large",
    `the request body is larger than ${LIMITS.requestBodyBytes} bytes`,
    { meta: { limit_bytes: LIMITS.requestBodyBytes } },
  );

const JSON_TYPE = /^application\/(?:[a-z0-9.-]+\+)?json\s*(?:;|$)/i;

/**
 * Refuses a body whose declared length is over the limit; needs no read.
 * @throws AppError payload_too_large
 */
function checkDeclaredLength(c: AppContext): void {
  const length = c.req.header("content-length");
  if (length !== undefined && Number(length) > LIMITS.requestBodyBytes) throw tooLarge();
}

/** False for a body whose declared length is within the limit: nothing is to be done for it. */
export function needsBound(c: AppContext): boolean {
  const length = c.req.header("content-length");
  return length === undefined || !(Number(length) <= LIMITS.requestBodyBytes);
}

/**
 * Bounds the body before anybody reads it: one with a declared length by that length, one without
 * by counting it into memory.
 * @throws AppError payload_too_large
 */
export async function boundBody(c: AppContext): Promise<void> {
  checkDeclaredLength(c);
  if (c.req.header("transfer-encoding") === undefined || c.req.raw.body === null) return;
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of c.req.raw.body as ReadableStream<Uint8Array>) {
    size += part.byteLength;
    if (size > LIMITS.requestBodyBytes) throw tooLarge();
    parts.push(part);
  }
  const { url, method, headers, signal } = c.req.raw;
  c.req.raw = new Request(url, { method, headers, signal, body: Buffer.concat(parts) });
}

/**
 * The body as JSON. The text of a parse error is not passed on: it quotes the body, which may
 * hold a password.
 * @throws AppError unsupported_media_type, invalid_request
 */
export async function readJson(c: AppContext): Promise<unknown> {
  const type = c.req.header("content-type");
  if (type === undefined || !JSON_TYPE.test(type)) {
    throw new AppError("unsupported_media_type", "the body must be sent as application/json", {
      meta: { expected: "application/json" },
    });
  }
  const text = await c.req.text();
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    const at = /at position (\d+)/.exec(String(error))?.[1];
    const detail = `is not well-formed JSON${at === undefined ? "" : ` at character ${at}`}`;
    throw new AppError("invalid_request", `the body ${detail}`, {
      meta: { errors: [{ pointer: "", detail }] },
    });
  }
}

/** @throws AppError as readJson, and invalid_request naming the fields that are wrong */
export async function readBody<B extends ZodType>(c: AppContext, schema: B): Promise<output<B>> {
  const parsed = schema.safeParse(await readJson(c));
  if (!parsed.success) throw invalidFields(parsed.error, "the request body");
  return parsed.data;
}

/** @throws AppError invalid_request; pointers name the query parameter: `/limit` */
export function readQuery<Q extends ZodType>(c: AppContext, schema: Q): output<Q> {
  const parsed = schema.safeParse(c.req.query());
  if (!parsed.success) throw invalidFields(parsed.error, "the query string");
  return parsed.data;
}
