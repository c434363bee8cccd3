/**
 * One row per route: it registers the handler, parses what comes in, and makes the route's part of
 * openapi.json, so that none of the three can differ from the others.
 */
import type { Hono } from "hono";
import { z, type ZodType, type output } from "zod";
import { readBody, readQuery } from "./body.ts";
import type { AppContext, AppEnv, RouteDeps } from "./ports.ts";

export interface AnswerSpec {
  readonly description: string;
  /** JSON body; absent when there is none or when `contentType` is given. */
  readonly schema?: ZodType;
  readonly contentType?: string;
  /** Header name → what it says. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface RouteSpec {
  readonly method: "get" | "post" | "put" | "delete";
  /** With parameters in braces, as OpenAPI writes them. */
  readonly path: string;
  readonly summary: string;
  readonly tag: string;
  readonly query: ZodType;
  readonly body?: ZodType;
  /** Media type of a body that is a stream; `isUpload` knows the route too. */
  readonly upload?: string;
  readonly answers: Readonly<Record<number, AnswerSpec>>;
  /** Request headers besides those that every route takes. */
  readonly headers?: Readonly<Record<string, string>>;
  /** A POST that changes nothing: no token, no Idempotency-Key, no audit row. */
  readonly reads?: boolean;
}

export interface Route {
  readonly spec: RouteSpec;
  register(app: Hono<AppEnv>, deps: RouteDeps): void;
}

/** `/v1/jobs/{id}` as the router writes it. */
export const routerPath = (path: string): string => path.replaceAll(/\{(\w+)\}/g, ":$1");

/** A route without query parameters refuses all of them. */
export const noQuery = z.strictObject({});

type Handle<Q extends ZodType, B extends ZodType> = (
  deps: RouteDeps,
  c: AppContext,
  input: { query: output<Q>; body: output<B> },
) => Response | Promise<Response>;

/** @throws (on requests) AppError invalid_request, unsupported_media_type, payload_too_large */
export function route<Q extends ZodType = typeof noQuery, B extends ZodType = z.ZodUndefined>(
  spec: Omit<RouteSpec, "query" | "body"> & { query?: Q; body?: B },
  handle: Handle<Q, B>,
): Route {
  const { body } = spec;
  const query: ZodType = spec.query ?? noQuery;
  return {
    spec: { ...spec, query },
    register(app, deps) {
      app.on(spec.method.toUpperCase(), routerPath(spec.path), async (c: AppContext) =>
        handle(deps, c, {
          query: readQuery(c, query) as output<Q>,
          body: (body === undefined ? undefined : await readBody(c, body)) as output<B>,
        }),
      );
    },
  };
}

/** A path parameter; the router only matches when it is there. */
export const param = (c: AppContext, name = "id"): string => c.req.param(name) ?? "";

/** `true` or `1`, `false` or `0`. */
export const flag = z
  .enum(["true", "1", "false", "0"])
  .transform((text) => text === "true" || text === "1");

/** A whole number in a query string. */
export const count = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be from ${min} to ${max}`);
