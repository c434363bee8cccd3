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
export function checkDeclaredLength(length: string | undefined): void {
  if (length !== undefined && Number(length) > LIMITS.requestBodyBytes) throw tooLarge();
}

/**
 * The body counted while it is read, for one without a declared length.
 * @throws AppError payload_too_large
 */
export async function countedBody(request: Request): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of (request.body ?? []) as AsyncIterable<Uint8Array>) {
    size += part.byteLength;
    if (size > LIMITS.requestBodyBytes) throw tooLarge();
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/**
 * Bounds the body before anybody reads it: one with a declared length by that length, one without
 * by counting it into memory.
 * @throws AppError payload_too_large
 */
export async function boundBody(c: AppContext): Promise<void> {
  checkDeclaredLength(c.req.header("content-length"));
  if (c.req.header("transfer-encoding") === undefined) return;
  const { url, method, headers, signal } = c.req.raw;
  const body = await countedBody(c.req.raw);
  c.req.raw = new Request(url, { method, headers, signal, body });
}

/** @throws AppError unsupported_media_type */
export function checkJsonType(type: string | undefined): void {
  if (type !== undefined && (type === "application/json" || JSON_TYPE.test(type))) return;
  throw new AppError("unsupported_media_type", "the body must be sent as application/json", {
    meta: { expected: "application/json" },
  });
}

/**
 * The text of a parse error is not passed on: it quotes the body, which may hold a password.
 * @throws AppError invalid_request, for what is no JSON and for each field that is wrong
 */
export function parseBody<B extends ZodType>(text: string, schema: B): output<B> {
  const parsed = schema.safeParse(parseJson(text));
  if (!parsed.success) throw invalidFields(parsed.error, "the request body");
  return parsed.data;
}

function parseJson(text: string): unknown {
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

/** @throws AppError unsupported_media_type, invalid_request */
export async function readBody<B extends ZodType>(c: AppContext, schema: B): Promise<output<B>> {
  checkJsonType(c.req.header("content-type"));
  return parseBody(await c.req.text(), schema);
}

/** @throws AppError invalid_request; pointers name the query parameter: `/limit` */
export function readQuery<Q extends ZodType>(c: AppContext, schema: Q): output<Q> {
  const parsed = schema.safeParse(c.req.query());
  if (!parsed.success) throw invalidFields(parsed.error, "the query string");
  return parsed.data;
}
