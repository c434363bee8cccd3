/** Artifacts and their bytes: ranges, validators and the download token of spec §2.5. */
import { z } from "@hono/zod-openapi";
import { AppError, errorText, type ArtifactInfo, type LogFields } from "../../../domain/index.ts";
import { API_HEADERS, json } from "../answer.ts";
import { equalSecrets, mayChange } from "../middleware/auth.ts";
import type { AppContext, RouteDeps } from "../ports.ts";
import { evaluateRange } from "../range.ts";
import { flag, param, route, type Route } from "../route.ts";
import { Artifact, listOf } from "../schemas.ts";

const tag = "artifacts";

const list = route(
  {
    method: "get",
    path: "/v1/artifacts",
    summary: "Root filesystem artifacts",
    tag,
    answers: { 200: { description: "the artifacts", schema: listOf(Artifact) } },
  },
  ({ queries }) => json({ items: queries.listArtifacts() }),
);

const info = route(
  {
    method: "get",
    path: "/v1/artifacts/{id}",
    summary: "One artifact",
    tag,
    query: z.strictObject({ include_token: flag.optional() }),
    answers: {
      200: {
        description: "the artifact; download_token with include_token=true, for who may change",
        schema: Artifact.extend({ download_token: z.string().optional() }),
      },
    },
  },
  ({ queries, commands, auth }, c, { query }) => {
    const artifact = queries.artifact(param(c));
    if (query.include_token !== true) return json(artifact);
    if (!mayChange({ trusted: c.get("trusted") }, auth)) {
      throw new AppError("unauthorized", "the download token needs a bearer token");
    }
    const download_token = commands.artifactToken(artifact.artifact_id);
    return json({ ...artifact, download_token });
  },
);

/**
 * The token to open the artifact with. The unix socket and bearer tokens need none.
 * @throws AppError artifact_token_invalid
 */
function tokenOf(deps: RouteDeps, c: AppContext, id: string, query: string | undefined): string {
  const expected = deps.commands.artifactToken(id);
  const given = query ?? c.req.header("x-cube-artifact-token");
  if (given === undefined && c.get("trusted")) return expected;
  if (expected !== "" && !equalSecrets(given ?? "", expected)) {
    throw new AppError("artifact_token_invalid", `the token for artifact ${id} is not valid`);
  }
  return expected;
}

/** A failure in mid-stream cannot be answered any more: the connection is cut short instead. */
function bodyStream(
  body: AsyncIterable<Uint8Array>,
  lengthBytes: number,
  onError: (error: unknown) => void,
): ReadableStream<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  let sent = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await iterator.next();
        if (next.done !== true) {
          sent += next.value.byteLength;
          return controller.enqueue(next.value);
        }
        // Fewer bytes than promised would leave the reader waiting for the rest.
        if (sent !== lengthBytes) throw new AppError("artifact_corrupt", "the file is shorter");
        controller.close();
      } catch (error) {
        onError(error);
        controller.close();
      }
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

const contentHeaders = (artifact: ArtifactInfo): Record<string, string> => ({
  ...API_HEADERS,
  "content-type": "application/octet-stream",
  "cache-control": "private, no-cache",
  "accept-ranges": "bytes",
  etag: `"${artifact.digest}"`,
  "x-cube-artifact-id": artifact.artifact_id,
});

async function send(deps: RouteDeps, c: AppContext, token: string | undefined): Promise<Response> {
  const artifact = deps.queries.artifact(param(c));
  const id = artifact.artifact_id;
  const secret = tokenOf(deps, c, id, token);
  if (artifact.status !== "READY" && artifact.status !== "CLEANUP_PENDING") {
    throw new AppError("artifact_not_ready", `artifact ${id} is ${artifact.status}`);
  }
  const headers = contentHeaders(artifact);
  const size = artifact.ext4_size_bytes;
  const choice = evaluateRange(size, headers["etag"] ?? "", (name) => c.req.header(name));
  if (choice.kind === "unchanged") return new Response(null, { status: 304, headers });
  if (choice.kind === "unsatisfiable") {
    throw new AppError("range_not_satisfiable", `artifact ${id} has ${size} bytes`, {
      meta: { size_bytes: size },
    });
  }
  const range = choice.kind === "range" ? choice.range : undefined;
  const length = range === undefined ? size : range.end - range.start + 1;
  headers["content-length"] = String(length);
  if (range !== undefined) headers["content-range"] = `bytes ${range.start}-${range.end}/${size}`;
  const status = range === undefined ? 200 : 206;
  if (c.req.method === "HEAD") return new Response(null, { status, headers });
  const { body } = await deps.commands.openArtifact(id, secret, range);
  const fields: LogFields = { request_id: c.get("requestId"), artifact_id: id };
  const stream = bodyStream(body, length, (error) => {
    deps.log.error("artifact download cut short", { ...fields, error: errorText(error) });
    c.env?.outgoing?.destroy();
  });
  return new Response(stream, { status, headers });
}

const content = route(
  {
    method: "get",
    path: "/v1/artifacts/{id}/content",
    summary: "The artifact's bytes; HEAD, one byte range, and conditions on the ETag",
    tag,
    query: z.strictObject({ token: z.string().max(256).optional() }),
    headers: {
      "X-Cube-Artifact-Token": "the download token, instead of the token parameter",
      Range: "one range of bytes",
    },
    answers: {
      200: { description: "all bytes", contentType: "application/octet-stream" },
      206: { description: "the bytes asked for", contentType: "application/octet-stream" },
      304: { description: "the caller has these bytes" },
    },
  },
  (deps, c, { query }) => send(deps, c, query.token),
);

export const artifactRoutes: readonly Route[] = [list, info, content];
