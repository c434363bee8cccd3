/** Templates and snapshots as one file: streamed out, and streamed in. */
import { z } from "@hono/zod-openapi";
import { AppError, parseTemplateId, type ImportRequest } from "../../../domain/index.ts";
import { API_HEADERS, json } from "../answer.ts";
import { mayChange } from "../middleware/auth.ts";
import type { AppContext, RouteDeps } from "../ports.ts";
import { flag, param, route, type Route } from "../route.ts";
import { ImportedView } from "../schemas.ts";
import { BUNDLE_TYPE, sendBundle } from "../bundle-files.ts";
import { IMPORT_PATH, uploadOf } from "../upload.ts";
import { callContext } from "./templates.ts";

async function send(deps: RouteDeps, c: AppContext, kind: string): Promise<Response> {
  if (!mayChange({ trusted: c.get("trusted") }, deps.auth)) {
    throw new AppError(
      "unauthorized",
      "a bundle holds the whole template: it needs a bearer token",
    );
  }
  const id = kind === "snapshot" ? deps.queries.snapshot(param(c)).snapshot_id : param(c);
  if (c.req.method === "HEAD") {
    deps.queries.template(id);
    return new Response(null, { headers: { ...API_HEADERS, "content-type": BUNDLE_TYPE } });
  }
  const context = { ...callContext(c), signal: c.req.raw.signal };
  return sendBundle(deps, id, context, API_HEADERS, c.env?.outgoing);
}

const answers = { 200: { description: "the bundle", contentType: BUNDLE_TYPE } };

const exportTemplate = route(
  {
    method: "get",
    path: "/v1/templates/{id}/export",
    summary: "A template as one signed file; needs the right to change when tokens are configured",
    tag: "bundles",
    answers,
  },
  (deps, c) => send(deps, c, "template"),
);

const exportSnapshot = route(
  {
    method: "get",
    path: "/v1/snapshots/{id}/export",
    summary: "A snapshot as one signed file, from a node that holds it",
    tag: "bundles",
    answers,
  },
  (deps, c) => send(deps, c, "snapshot"),
);

const listOfText = z
  .string()
  .max(8_192)
  .transform((text) => text.split(",").filter((part) => part !== ""));

const importBundle = route(
  {
    method: "post",
    path: IMPORT_PATH,
    summary: "Take a bundle in; nothing of it is visible before all of it was verified",
    tag: "bundles",
    query: z.strictObject({
      template_id: z.string().max(256).optional().describe("under this id instead of its own"),
      new_id: flag.optional().describe("under a new id"),
      display_name: z.string().max(256).optional(),
      distribution_scope: listOfText.optional().describe("nodes that may hold it, by commas"),
      trust: listOfText.optional().describe("peer ids of keys to trust besides the members'"),
    }),
    upload: BUNDLE_TYPE,
    answers: {
      202: {
        description: "a job makes it READY",
        schema: ImportedView,
        headers: { Location: "/v1/jobs/{id} of the job" },
      },
      201: {
        description: "a snapshot, which is READY",
        schema: ImportedView,
        headers: { Location: "/v1/snapshots/{id} of it" },
      },
      200: { description: "it was here already", schema: ImportedView },
    },
  },
  async ({ commands }, c, { query }) => {
    const { template_id, new_id, ...rest } = query;
    const request: ImportRequest = {
      ...(template_id === undefined ? {} : { template_id: parseTemplateId(template_id) }),
      ...(new_id === undefined ? {} : { new_id }),
      ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)),
    };
    const context = { ...callContext(c), signal: c.req.raw.signal };
    const done = await commands.importBundle(uploadOf(c), request, context);
    if (done.outcome === "present") return json(done);
    const location =
      done.outcome === "accepted"
        ? `/v1/jobs/${done.job_id}`
        : `/v1/snapshots/${encodeURIComponent(done.template_id)}`;
    return json(done, done.outcome === "accepted" ? 202 : 201, { location });
  },
);

export const bundleRoutes: readonly Route[] = [exportTemplate, exportSnapshot, importBundle];
