/**
 * The one route on the way of every sandbox start, so it is kept lean: it stands before the chain
 * of middleware, makes the same checks as plain calls, and writes its headers once.
 */
import type { Hono } from "hono";
import { API_HEADERS, problem } from "../answer.ts";
import { boundBody, readBody } from "../body.ts";
import { logFailure } from "../middleware/access-log.ts";
import type { HostCheck } from "../middleware/host.ts";
import type { HttpMetrics } from "../middleware/metrics.ts";
import { requestIdOf } from "../middleware/request-id.ts";
import { doorOf, type AppContext, type AppEnv, type RouteDeps } from "../ports.ts";
import { noQuery, type Route } from "../route.ts";
import { Resolved, SandboxRequestBody } from "../schemas.ts";

const PATH = "/v1/resolve";

const spec: Route["spec"] = {
  method: "post",
  path: PATH,
  summary: "Template or snapshot, node, replica and effective request for a sandbox request",
  tag: "resolve",
  query: noQuery,
  body: SandboxRequestBody,
  reads: true,
  answers: { 200: { description: "where and what to start", schema: Resolved } },
};

/** Registers the route; the caller does it before any middleware. */
export function registerResolve(
  app: Hono<AppEnv>,
  deps: RouteDeps,
  parts: { checkHost: HostCheck; metrics: HttpMetrics },
): void {
  const { clock, commands, log, random } = deps;
  const handle = async (c: AppContext, requestId: string): Promise<Response> => {
    try {
      parts.checkHost(c);
      await boundBody(c);
      const result = commands.resolve(await readBody(c, SandboxRequestBody));
      return new Response(JSON.stringify(result), {
        headers: { ...API_HEADERS, "x-request-id": requestId },
      });
    } catch (error) {
      logFailure(log, error, { request_id: requestId, route: PATH });
      const answer = problem(error, requestId);
      answer.headers.set("x-request-id", requestId);
      return answer;
    }
  };
  app.post(PATH, async (c) => {
    const started = clock.monotonic();
    const requestId = requestIdOf(c.req.header("x-request-id"), random);
    const answer = await handle(c, requestId);
    const ms = clock.monotonic() - started;
    parts.metrics.observe(PATH, "POST", answer.status, ms / 1_000);
    log.debug("request", {
      request_id: requestId,
      method: "POST",
      route: PATH,
      door: doorOf(c),
      ms,
    });
    return answer;
  });
}

/** For openapi.json and the table of allowed methods only. */
export const resolveRoute: Route = { spec, register: () => undefined };
