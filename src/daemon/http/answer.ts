/** Answers: JSON bodies and problem+json, with the headers every answer of the API carries. */
import { HTTPException } from "hono/http-exception";
import type { ZodError } from "zod";
import {
  AppError,
  errorText,
  isAppError,
  type ErrorCode,
  type FieldProblem,
} from "../../domain/index.ts";

/** Plain object: @hono/node-server writes it out without building a Headers. */
export const API_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "application/json",
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** A JSON answer. */
export const json = (
  value: unknown,
  status = 200,
  headers?: Readonly<Record<string, string>>,
): Response =>
  new Response(JSON.stringify(value), {
    status,
    headers: headers === undefined ? { ...API_HEADERS } : { ...API_HEADERS, ...headers },
  });

/** RFC 9457 answer for an error; whatever is not an AppError is `internal` and says nothing. */
export function problem(
  error: unknown,
  requestId: string,
  more: Readonly<Record<string, string>> = {},
): Response {
  const known = toAppError(error);
  const headers: Record<string, string> = { "content-type": "application/problem+json", ...more };
  if (known.code === "unauthorized") headers["www-authenticate"] = 'Bearer realm="templatecenter"';
  if (known.row.retryable) headers["retry-after"] = "1";
  if (known.row.status === 405 && Array.isArray(known.meta["allow"])) {
    headers["allow"] = known.meta["allow"].join(", ");
  }
  if (known.row.status === 416)
    headers["content-range"] = `bytes */${String(known.meta["size_bytes"])}`;
  return json(known.toProblem(requestId), known.row.status, headers);
}

/** Errors of the frame and of the platform in our words; anything unknown becomes `internal`. */
export function toAppError(error: unknown): AppError {
  if (isAppError(error)) {
    return error.code === "internal"
      ? new AppError("internal", undefined, { cause: error })
      : error;
  }
  if (error instanceof HTTPException && error.status < 500) {
    return new AppError("invalid_request", "the request is not valid", { cause: error });
  }
  return new AppError("internal", undefined, { cause: error });
}

/** Text for the log line of a failed request: the cause chain of what was hidden. */
export const failureText = (error: unknown): string => errorText(error);

const escapePointer = (key: PropertyKey): string =>
  String(key).replaceAll("~", "~0").replaceAll("/", "~1");

/** RFC 6901 JSON pointer of a path. */
export const pointerOf = (path: readonly PropertyKey[]): string =>
  path.map((key) => `/${escapePointer(key)}`).join("");

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1);

type Issue = ZodError["issues"][number];

function* problemsOf(issue: Issue, at: readonly PropertyKey[]): Generator<FieldProblem> {
  const path = [...at, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    for (const key of issue.keys) {
      yield { pointer: pointerOf([...path, key]), detail: "is not a known field" };
    }
    return;
  }
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) {
    yield { pointer: pointerOf(path), detail: `is required (${issue.expected})` };
    return;
  }
  const text = issue.message.replace(/^Invalid input: /, "");
  yield { pointer: pointerOf(path), detail: lowerFirst(text) };
}

/**
 * `invalid_request` that names every wrong field. The message carries the first of them, because
 * it is all that many clients show.
 */
export function invalidFields(error: ZodError, what: string): AppError<"invalid_request"> {
  const errors = error.issues.flatMap((issue) => [...problemsOf(issue, [])]).slice(0, 50);
  const [first] = errors;
  const where = first === undefined ? "" : `: ${first.pointer || "/"} ${first.detail}`;
  return new AppError("invalid_request", `${what} is not valid${where}`, { meta: { errors } });
}

/** An error with one wrong field. */
export const invalidField = (
  pointer: string,
  detail: string,
  code: ErrorCode = "invalid_request",
): AppError =>
  new AppError(code, `${pointer.slice(1)} ${detail}`, { meta: { errors: [{ pointer, detail }] } });
