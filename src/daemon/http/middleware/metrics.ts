/** Counts and times requests by route pattern, never by id. */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { matchedRoutes } from "hono/route";
import type { Clock } from "../../../domain/index.ts";
import type { AppContext, AppMiddleware } from "../ports.ts";

export interface HttpMetrics {
  observe(route: string, method: string, status: number, seconds: number): void;
}

const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** Registers the HTTP metrics; a second app on the same registry shares them. */
export function createHttpMetrics(registry: Registry, streams: () => number): HttpMetrics {
  const registers = [registry];
  const find = <T>(name: string, make: () => T): T =>
    (registry.getSingleMetric(name) as T | undefined) ?? make();
  const requests = find(
    "templatecenter_http_requests_total",
    () =>
      new Counter({
        name: "templatecenter_http_requests_total",
        help: "HTTP requests answered, by route pattern.",
        labelNames: ["route", "method", "status"],
        registers,
      }),
  );
  const durations = find(
    "templatecenter_http_request_duration_seconds",
    () =>
      new Histogram({
        name: "templatecenter_http_request_duration_seconds",
        help: "Time from a request's head to its answer's head.",
        labelNames: ["route", "method"],
        buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
        registers,
      }),
  );
  find(
    "templatecenter_sse_streams",
    () =>
      new Gauge({
        name: "templatecenter_sse_streams",
        help: "Event streams open now.",
        registers,
        collect() {
          this.set(streams());
        },
      }),
  );
  return {
    observe(route, method, status, seconds) {
      const known = METHODS.has(method) ? method : "other";
      requests.inc({ route, method: known, status });
      durations.observe({ route, method: known }, seconds);
    },
  };
}

/** The pattern of the route that answered, in OpenAPI's braces; `unmatched` when none did. */
export function routeOf(c: AppContext): string {
  const path = matchedRoutes(c).findLast((route) => route.method !== "ALL")?.path;
  return path === undefined ? "unmatched" : path.replaceAll(/:(\w+)(?:\{[^}]*\})?/g, "{$1}");
}

export const measure =
  (metrics: HttpMetrics, clock: Clock): AppMiddleware =>
  async (c, next) => {
    const started = clock.monotonic();
    await next();
    const seconds = (clock.monotonic() - started) / 1_000;
    metrics.observe(routeOf(c), c.req.method, c.res.status, seconds);
  };
