/**
 * The one route on the way of every sandbox start, so it is kept lean: it stands beside the chain
 * of middleware, makes the same checks as plain calls, and writes its headers once.
 */
import { problem } from "../answer.ts";
import { checkDeclaredLength, checkJsonType, countedBody, parseBody } from "../body.ts";
import { logFailure } from "../middleware/access-log.ts";
import type { HostCheck } from "../middleware/host.ts";
import type { HttpMetrics } from "../middleware/metrics.ts";
import { requestIdOf } from "../middleware/request-id.ts";
import type { Bindings, RouteDeps } from "../ports.ts";
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

export type ResolveHandler = (request: Request, bindings?: Bindings) => Promise<Response>;

/** Node has the headers parsed already; without a listener (in a test) the request's are read. */
const headerOf = (request: Request, bindings: Bindings | undefined, name: string) => {
  const value =
    bindings?.incoming === undefined
      ? (request.headers.get(name) ?? undefined)
      : bindings.incoming.headers[name];
  return typeof value === "string" ? value : undefined;
};

/** Answers that are kept, and the longest request that one is kept for. */
const KEPT_ANSWERS = 1_024;
const KEPT_REQUEST_CHARACTERS = 4_096;

/**
 * Resolve is a function of the request's text and of the state: a fleet asks for the same
 * templates with the same words over and over, so that an answer is kept until a template, replica
 * or node changes.
 */
function createAnswers({ commands, queries }: RouteDeps): (text: string) => string {
  const kept = new Map<string, string>();
  let revision = -1;
  return (text) => {
    if (queries.resolveRevision() !== revision) {
      kept.clear();
      revision = queries.resolveRevision();
    }
    const known = kept.get(text);
    if (known !== undefined) return known;
    const answer = JSON.stringify(commands.resolve(parseBody(text, SandboxRequestBody)));
    if (text.length <= KEPT_REQUEST_CHARACTERS && kept.size < KEPT_ANSWERS) kept.set(text, answer);
    return answer;
  };
}

/** Answers requests for which `isResolve` holds, without the machinery that chains middleware. */
export function createResolve(
  deps: RouteDeps,
  parts: { checkHost: HostCheck; metrics: HttpMetrics },
): ResolveHandler {
  const { clock, log, random } = deps;
  const answerTo = createAnswers(deps);
  const bodyOf = (request: Request, header: (name: string) => string | undefined) => {
    checkDeclaredLength(header("content-length"));
    checkJsonType(header("content-type"));
    if (header("transfer-encoding") === undefined) return request.text();
    return countedBody(request).then((bytes) => bytes.toString("utf8"));
  };
  return async (request, bindings) => {
    const started = clock.monotonic();
    const header = (name: string) => headerOf(request, bindings, name);
    const requestId = requestIdOf(header("x-request-id"), random);
    const door = bindings?.door ?? "tcp";
    let answer: Response;
    try {
      parts.checkHost(door, header("host"));
      const text = await bodyOf(request, header);
      const headers = { ...HEADERS, "x-request-id": requestId };
      answer = new Response(answerTo(text), { headers });
    } catch (error) {
      logFailure(log, error, { request_id: requestId, route: RESOLVE_PATH });
      answer = problem(error, requestId, { "x-request-id": requestId });
    }
    const ms = clock.monotonic() - started;
    parts.metrics.observe(RESOLVE_PATH, "POST", answer.status, ms / 1_000);
    log.debug("request", { request_id: requestId, route: RESOLVE_PATH, door, ms });
    return answer;
  };
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
