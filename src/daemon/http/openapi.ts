/** openapi.json, made from the table of routes. */
import { OpenAPIHono, z } from "@hono/zod-openapi";
import type { AnswerSpec, Route, RouteSpec } from "./route.ts";
import { ROUTES } from "./routes/all.ts";
import { Problem } from "./schemas.ts";

const text = z.string();

function answerOf(spec: AnswerSpec) {
  const type = spec.contentType ?? (spec.schema === undefined ? undefined : "application/json");
  const headers = Object.fromEntries(
    Object.entries(spec.headers ?? {}).map(([name, description]) => [
      name,
      { description, schema: { type: "string" as const } },
    ]),
  );
  return {
    description: spec.description,
    ...(spec.headers === undefined ? {} : { headers }),
    ...(type === undefined ? {} : { content: { [type]: { schema: spec.schema ?? text } } }),
  };
}

function requestHeaders(spec: RouteSpec): z.ZodObject {
  const changes = spec.method !== "get" && spec.reads !== true;
  const common: Record<string, string> = {
    "X-Request-Id": "comes back in the answer, in logs and in audit rows",
    ...(changes ? { "Idempotency-Key": "the same key gets the same answer for 24 hours" } : {}),
  };
  const all = Object.entries({ ...common, ...spec.headers });
  return z.object(
    Object.fromEntries(all.map(([name, about]) => [name, text.optional().describe(about)])),
  );
}

function operationId({ method, path }: RouteSpec): string {
  const words = path.replace("/v1/", "/").split(/[^A-Za-z]+/);
  const name = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1));
  return method + name.join("");
}

function bodyOf({ body, upload }: RouteSpec) {
  if (body === undefined && upload === undefined) return {};
  const binary = z.string().openapi({ format: "binary" });
  const type = upload ?? "application/json";
  return { body: { required: true, content: { [type]: { schema: body ?? binary } } } };
}

function register(app: OpenAPIHono, { spec }: Route): void {
  const names = [...spec.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? "");
  const params = z.object(Object.fromEntries(names.map((name) => [name, text])));
  const answers = Object.entries(spec.answers).map(([status, answer]) => [
    status,
    answerOf(answer),
  ]);
  const failure = { "application/problem+json": { schema: Problem } };
  app.openAPIRegistry.registerPath({
    method: spec.method,
    path: spec.path,
    operationId: operationId(spec),
    summary: spec.summary,
    tags: [spec.tag],
    request: {
      ...(names.length === 0 ? {} : { params }),
      query: spec.query as z.ZodObject,
      headers: requestHeaders(spec),
      ...bodyOf(spec),
    },
    responses: {
      ...(Object.fromEntries(answers) as Record<string, ReturnType<typeof answerOf>>),
      default: { description: "what went wrong, with its code", content: failure },
    },
    ...(spec.method === "get" || spec.reads === true ? {} : { security: [{ bearer: [] }, {}] }),
  });
}

/** The OpenAPI 3.1 document. Depends on nothing but the version, so that it can be committed. */
export function openApiDocument(version: string): Record<string, unknown> {
  const app = new OpenAPIHono();
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
    description: "needed for changes over TCP when the daemon has tokens configured",
  });
  for (const route of ROUTES) register(app, route);
  const info = {
    title: "templatecenter",
    version,
    description: "Sandbox templates without a centre: OCI image to READY template to sandbox.",
    license: { name: "Apache-2.0", identifier: "Apache-2.0" },
  };
  const servers = [{ url: "http://127.0.0.1:7330", description: "default listener" }];
  return { ...app.getOpenAPI31Document({ openapi: "3.1.0", info, servers }) };
}
