/**
 * `Idempotency-Key` on changes: the same key with the same request gets the first answer again,
 * with another request it is refused, while the first still runs it is refused for now. A request
 * that failed changed nothing, so its key is forgotten and it can be tried again.
 */
import { createHash } from "node:crypto";
import { AppError, sortKeys } from "../../../domain/index.ts";
import type { AppContext, AppMiddleware, IdempotencyPort, StoredAnswer } from "../ports.ts";
import { isUpload } from "../upload.ts";
import { isChange } from "./auth.ts";

const KEY = /^[\x21-\x7e]{1,255}$/;
/** Their requests or answers carry a secret, which is shown once and kept nowhere. */
const NOT_KEPT: ReadonlySet<string> = new Set(["/v1/cluster/join-tokens", "/v1/cluster/join"]);
const KEPT_HEADERS = ["content-type", "location"];

/** What must be equal: caller, method, path with query, and the body without its password. */
async function requestHash(c: AppContext): Promise<string> {
  const url = new URL(c.req.url);
  const parts = [c.get("actor"), c.req.method, url.pathname + url.search];
  const hash = createHash("sha256").update(
    JSON.stringify([...parts, canonical(await c.req.text())]),
  );
  return hash.digest("hex");
}

/** Member order and spaces make no difference; a guess at a password must not be checkable. */
function canonical(text: string): unknown {
  try {
    const value = sortKeys(JSON.parse(text) as unknown);
    if (typeof value !== "object" || value === null) return value;
    return { ...value, registry_password: undefined };
  } catch {
    return text;
  }
}

const isAnswer = (value: unknown): value is StoredAnswer =>
  typeof value === "object" && value !== null && "status" in value && "body" in value;

function replay(value: unknown): Response {
  if (!isAnswer(value)) throw new AppError("catalog_corrupt", "a stored answer does not read back");
  const headers = { ...value.headers, "idempotency-replayed": "true" };
  return new Response(value.status === 204 ? null : value.body, { status: value.status, headers });
}

async function answerOf(response: Response): Promise<StoredAnswer> {
  const headers: Record<string, string> = {};
  for (const name of KEPT_HEADERS) {
    const value = response.headers.get(name);
    if (value !== null) headers[name] = value;
  }
  return { status: response.status, headers, body: await response.clone().text() };
}

/** @throws AppError invalid_request, idempotency_mismatch, idempotency_in_progress */
export const idempotency =
  (port: IdempotencyPort): AppMiddleware =>
  async (c, next) => {
    const key = c.req.header("idempotency-key");
    const { method, path } = c.req;
    if (key === undefined || !isChange(method) || NOT_KEPT.has(path)) return next();
    // The same bundle again does nothing of itself.
    if (isUpload(method, path)) return next();
    if (!KEY.test(key)) {
      throw new AppError("invalid_request", "Idempotency-Key must be 1 to 255 visible characters");
    }
    const begun = await port.begin(key, await requestHash(c));
    if (begun.state === "replay") {
      c.res = replay(begun.answer);
      return;
    }
    try {
      await next();
    } catch (error) {
      await port.abandon(key);
      throw error;
    }
    if (c.res.status >= 400) await port.abandon(key);
    else await port.finish(key, await answerOf(c.res));
  };
