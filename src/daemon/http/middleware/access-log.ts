/**
 * One line per request: mutations at info, reads at debug, 5xx as the error's own level with the
 * cause chain. The query string is left out: it may hold an artifact's token.
 */
import type { Clock, Log } from "../../../domain/index.ts";
import { failureText, toAppError } from "../answer.ts";
import { doorOf, type AppMiddleware } from "../ports.ts";
import { routeOf } from "./metrics.ts";

const isRead = (method: string): boolean => ["GET", "HEAD", "OPTIONS"].includes(method);

/** Logs what a 5xx answer hides. */
export function logFailure(log: Log, error: unknown, fields: Record<string, unknown>): void {
  const known = toAppError(error);
  if (known.row.status < 500) return;
  const detail = { ...fields, code: known.code, error: failureText(error) };
  if (known.row.level === "error") log.error("request failed", detail);
  else log.warn("request failed", detail);
}

export const accessLog =
  (log: Log, clock: Clock): AppMiddleware =>
  async (c, next) => {
    const started = clock.monotonic();
    await next();
    const fields = {
      request_id: c.get("requestId"),
      method: c.req.method,
      route: routeOf(c),
      path: c.req.path,
      status: c.res.status,
      ms: Math.round((clock.monotonic() - started) * 100) / 100,
      actor: c.get("actor") ?? "anonymous",
      door: doorOf(c),
    };
    if (isRead(c.req.method)) log.debug("request", fields);
    else log.info("request", fields);
  };
