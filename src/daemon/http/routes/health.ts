/** Probes and metrics; they read the last checks' results and never the disk. */
import { z } from "@hono/zod-openapi";
import { API_HEADERS, json } from "../answer.ts";
import type { AppContext, HealthCheck } from "../ports.ts";
import { flag, route, type Route } from "../route.ts";

const tag = "operations";
const query = z.strictObject({ verbose: z.union([flag, z.literal("")]).optional() });
const checks = z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string() }));
const Health = z.object({ status: z.enum(["ok", "unavailable"]), checks: checks.optional() });

interface Report {
  readonly ok: boolean;
  readonly checks: readonly HealthCheck[];
}

function answer(c: AppContext, report: Report, verbose: boolean): Response {
  const status = report.ok ? 200 : 503;
  const word = report.ok ? "ok" : "unavailable";
  const wantsText = !(c.req.header("accept") ?? "").includes("json");
  if (verbose && wantsText) {
    const lines = report.checks.map(
      ({ name, ok, detail }) => `[${ok ? "+" : "-"}]${name} ${detail || (ok ? "ok" : "failed")}`,
    );
    const headers = { ...API_HEADERS, "content-type": "text/plain; charset=utf-8" };
    return new Response(`${[...lines, word].join("\n")}\n`, { status, headers });
  }
  return json({ status: word, ...(verbose ? { checks: report.checks } : {}) }, status);
}

const isVerbose = (value: boolean | "" | undefined): boolean => value === "" || value === true;

const probe = (path: string, summary: string, read: "live" | "ready"): Route =>
  route(
    {
      method: "get",
      path,
      summary,
      tag,
      query,
      answers: {
        200: { description: "yes", schema: Health },
        503: { description: "no", schema: Health },
      },
    },
    ({ health }, c, input) => answer(c, health[read](), isVerbose(input.query.verbose)),
  );

const metrics = route(
  {
    method: "get",
    path: "/metrics",
    summary: "Metrics in Prometheus' text format",
    tag,
    answers: { 200: { description: "the metrics", contentType: "text/plain" } },
  },
  async (deps) =>
    new Response(await deps.metrics.metrics(), {
      headers: { ...API_HEADERS, "content-type": deps.metrics.contentType },
    }),
);

export const healthRoutes: readonly Route[] = [
  probe("/healthz", "Whether the process turns", "live"),
  probe("/readyz", "Whether the node may get traffic", "ready"),
  metrics,
];
