/**
 * The HTTP application: resolve on its own beside the rest, then the chain of middleware, the
 * routes, the page, and what is answered when nothing matches.
 */
import { Hono } from "hono";
import { AppError } from "../../domain/index.ts";
import { API_HEADERS, problem } from "./answer.ts";
import { accessLog, logFailure } from "./middleware/access-log.ts";
import { audit } from "./middleware/audit.ts";
import { authenticate } from "./middleware/auth.ts";
import { bodyLimit } from "./middleware/body-limit.ts";
import { createHostCheck, hostMiddleware } from "./middleware/host.ts";
import { idempotency } from "./middleware/idempotency.ts";
import { createHttpMetrics, measure, routeOf } from "./middleware/metrics.ts";
import { sameOrigin } from "./middleware/origin.ts";
import { preferWait } from "./middleware/prefer-wait.ts";
import { requestId } from "./middleware/request-id.ts";
import { secureHeaders } from "./middleware/secure-headers.ts";
import { openApiDocument } from "./openapi.ts";
import type { AppContext, AppDeps, AppEnv, Bindings, EventStreams, RouteDeps } from "./ports.ts";
import { routerPath } from "./route.ts";
import { ROUTES } from "./routes/all.ts";
import { createResolve, isResolve, RESOLVE_PATH } from "./routes/resolve.ts";
import { createEventStreams } from "./streams.ts";

export interface HttpApp {
  fetch(request: Request, bindings?: Bindings): Response | Promise<Response>;
  /** The open event streams, which `listen` ends when it closes. */
  readonly streams: EventStreams;
}

/** Builds the application; it listens nowhere yet. */
export function createApp(given: AppDeps): HttpApp {
  const streams = createEventStreams({ clock: given.clock });
  const deps: RouteDeps = { ...given, streams };
  const { clock, log } = deps;
  const metrics = createHttpMetrics(deps.metrics, () => streams.size());
  const checkHost = createHostCheck(deps.allowedHosts);
  const app = new Hono<AppEnv>();

  app.onError((error, c) => {
    c.set("failure", error);
    const fields = { request_id: c.get("requestId"), method: c.req.method, route: routeOf(c) };
    logFailure(log, error, fields);
    return problem(error, c.get("requestId"));
  });
  const resolve = createResolve(deps, { checkHost, metrics });
  app.use(
    requestId(deps.random),
    accessLog(log, clock),
    measure(metrics, clock),
    secureHeaders,
    audit(deps.audit, log),
    hostMiddleware(checkHost),
    sameOrigin,
    authenticate(deps.auth, deps.ui !== undefined),
    bodyLimit,
  );
  app.use("/v1/*", preferWait(deps.queries, clock, streams), idempotency(deps.idempotency));
  for (const route of ROUTES) route.register(app, deps);
  registerDocument(app, deps.version);
  app.get("/", (c) => c.redirect("/ui/", 302));
  if (deps.ui !== undefined) app.route("/ui", deps.ui);
  app.notFound(unmatched(app));
  return {
    streams,
    fetch: (request, bindings) =>
      isResolve(request) ? resolve(request, bindings) : app.fetch(request, bindings),
  };
}

function registerDocument(app: Hono<AppEnv>, version: string): void {
  let text: string | undefined;
  app.get("/v1/openapi.json", () => {
    text ??= JSON.stringify(openApiDocument(version));
    return new Response(text, { headers: { ...API_HEADERS } });
  });
}

/** 405 with Allow when the path exists for other methods, else 404. */
function unmatched(app: Hono<AppEnv>) {
  let table: { pattern: RegExp; method: string }[] | undefined;
  const resolve = { path: RESOLVE_PATH, method: "POST" };
  const build = () =>
    [...app.routes, resolve]
      .filter((route) => route.method !== "ALL")
      .map(({ path, method }) => ({
        method,
        pattern: new RegExp(
          `^${routerPath(path).replaceAll(/:\w+/g, "[^/]+").replace("*", ".*")}$`,
        ),
      }));
  return (c: AppContext): Response => {
    table ??= build();
    const methods = new Set(
      table.filter((row) => row.pattern.test(c.req.path)).map((row) => row.method),
    );
    if (methods.has("GET")) methods.add("HEAD");
    const error =
      methods.size === 0
        ? new AppError("not_found", `there is no ${c.req.path}`)
        : new AppError("method_not_allowed", `${c.req.path} does not take ${c.req.method}`, {
            meta: { allow: [...methods].sort() },
          });
    c.set("failure", error);
    return problem(error, c.get("requestId"));
  };
}
