/** An audit row for every change that was asked for, refused ones included. */
import type { Log } from "../../../domain/index.ts";
import { failureText, toAppError } from "../answer.ts";
import { fromOf, type AppContext, type AppMiddleware, type AuditPort } from "../ports.ts";
import { isChange } from "./auth.ts";
import { routeOf } from "./metrics.ts";

/** What was changed: the id in the path, else the one in Location. */
const subjectOf = (c: AppContext): string =>
  c.req.param("id") ?? c.res.headers.get("location")?.split("/").at(-1) ?? "";

export const audit =
  (port: AuditPort, log: Log): AppMiddleware =>
  async (c, next) => {
    await next();
    if (!isChange(c.req.method) || c.res.headers.has("idempotency-replayed")) return;
    const failure = c.get("failure");
    const row = {
      request_id: c.get("requestId"),
      actor: c.get("actor") ?? "anonymous",
      action: `${c.req.method} ${routeOf(c)}`,
      subject: subjectOf(c).slice(0, 256),
      result: failure === undefined ? "ok" : toAppError(failure).code,
      details: { from: fromOf(c), status: c.res.status },
    };
    try {
      await port.append(row);
    } catch (error) {
      // The change has been made; an answer that denies it would be worse than a missing row.
      log.error("audit row not written", { ...row, error: failureText(error) });
    }
  };
