/**
 * The one route on the way of every sandbox start, so it is kept lean: it stands beside the chain of
 * middleware, makes the same checks as plain calls, and writes its headers once.
 */
import { Hono } from "hono";
import { problem } from "../answer.ts";
import { boundBody, needsBound, readBody } from "../body.ts";
import { logFailure } from "../middleware/access-log.ts";
import type { HostCheck } from "../middleware/host.ts";
import type { HttpMetrics } from "../middleware/metrics.ts";
import { requestIdOf } from "../middleware/request-id.ts";
import { doorOf, type AppContext, type AppEnv, type RouteDeps } from "../ports.ts";
import { noQuery, type Route } from "../route.ts";
import { Resolved, SandboxRequestBody } from "../schemas.ts";

export const RESOLVE_PATH = "/v1/resolve";

const spec: Route["spec"] = {
  method: "post",
  path: RESOLVE_PATH,
  summary: "Template or snapshot, node, replica and effective request for a sandbox request",
  tag: "resolve",
  query: noQuery,
  body: SandboxRequestBody,
  reads: true,
  answers: { 200: { description: "where and what to start", schema: Resolved } },
};

/** Programs read this answer, not browsers: of the headers, what a cache or a sniffer needs. */
const HEADERS: Readonly<Record<string, string>> = {
  "content-type": "application/json",
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
};

/**
 * An application of this one route: with a single handler the router's answer is called without
 * the machinery that chains middleware.
 */
export function createResolveApp(
  deps: RouteDeps,
  parts: { checkHost: HostCheck; metrics: HttpMetrics },
): Hono<AppEnv> {
  const { clock, commands, log, random } = deps;
  const handle = async (c: AppContext, requestId: string): Promise<Response> => {
    try {
      parts.checkHost(c);
      if (needsBound(c)) await boundBody(c);
      const result = commands.resolve(await readBody(c, SandboxRequestBody));
      return new Response(JSON.stringify(result), {
        headers: { ...HEADERS, "x-request-id": requestId },
      });
    } catch (error) {
      logFailure(log, error, { request_id: requestId, route: RESOLVE_PATH });
      return problem(error, requestId, { "x-request-id": requestId });
    }
  };
  const app = new Hono<AppEnv>();
  app.post(RESOLVE_PATH, async (c) => {
    const started = clock.monotonic();
    const requestId = requestIdOf(c.req.header("x-request-id"), random);
    const answer = await handle(c, requestId);
    const ms = clock.monotonic() - started;
    parts.metrics.observe(RESOLVE_PATH, "POST", answer.status, ms / 1_000);
    log.debug("request", { request_id: requestId, route: RESOLVE_PATH, door: doorOf(c), ms });
    return answer;
  });
  return app;
}

/** True for the one path that goes to `createResolveApp`, whatever follows as query. */
export function isResolve(request: Request): boolean {
  if (request.method !== "POST") return false;
  const { url } = request;
  const at = url.indexOf("/", 8);
  const end = at + RESOLVE_PATH.length;
  return url.startsWith(RESOLVE_PATH, at) && (url.length === end || url[end] === "?");
}

/** For openapi.json and the table of allowed methods only. */
export const resolveRoute: Route = { spec, register: () => undefined };
