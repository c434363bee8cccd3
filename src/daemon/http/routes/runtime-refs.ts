import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import { AcquireRef, ObservedRefsBody, RuntimeRefView } from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "runtime-refs";

const ofSandbox = {
  sandbox_id: z.string().trim().min(1, "must not be blank").max(256),
};

const refList = z.object({
  items: z.array(RuntimeRefView),
  count: z.number().int().describe("of all, also beyond the first 5,000 of a node"),
  unanswered: z
    .array(z.object({ node_id: z.string(), reason: z.string() }))
    .describe("nodes that did not answer: what they hold counts as held"),
});

const listOfSnapshot = route(
  {
    method: "get",
    path: "/v1/snapshots/{id}/runtime-refs",
    summary: "Sandboxes that run on a snapshot or template now, asked of every node",
    tag,
    answers: { 200: { description: "the active refs", schema: refList } },
  },
  async ({ queries }, c) => json(await queries.runtimeRefs(param(c))),
);

const ofOne = route(
  {
    method: "get",
    path: "/v1/runtime-refs",
    summary: "The newest active ref of a sandbox, on whichever node it is",
    tag,
    query: z.strictObject(ofSandbox),
    answers: { 200: { description: "the ref", schema: RuntimeRefView } },
  },
  async ({ queries }, _c, { query }) => json(await queries.runtimeRefOf(query.sandbox_id)),
);

const acquire = route(
  {
    method: "post",
    path: "/v1/runtime-refs",
    summary: "A sandbox of a runtime beside this daemon runs on that snapshot from now on",
    tag,
    body: AcquireRef,
    answers: {
      201: { description: "the ref; others of the sandbox are released", schema: RuntimeRefView },
    },
  },
  async ({ commands }, c, { body }) =>
    json(await commands.acquireRuntimeRef(body, callContext(c)), 201),
);

const release = route(
  {
    method: "delete",
    path: "/v1/runtime-refs",
    summary: "Release all refs of a sandbox; none is no error",
    tag,
    query: z.strictObject({
      ...ofSandbox,
      reason: z.string().min(1).max(1_024).optional(),
    }),
    answers: {
      200: { description: "how many were released", schema: z.object({ released: z.number() }) },
    },
  },
  async ({ commands }, c, { query }) => {
    const reason = query.reason ?? "released by request";
    const released = await commands.releaseRuntimeRefs(query.sandbox_id, reason, callContext(c));
    return json({ released });
  },
);

const observe = route(
  {
    method: "put",
    path: "/v1/nodes/self/runtime-refs",
    summary: "What a runtime beside this daemon sees running on this node, or why it cannot look",
    tag,
    body: ObservedRefsBody,
    answers: { 204: { description: "its refs are as observed; on an error they stay" } },
  },
  async ({ commands }, c, { body }) => {
    await commands.observeRuntimeRefs(body, callContext(c));
    return new Response(null, { status: 204 });
  },
);

export const runtimeRefRoutes: readonly Route[] = [
  listOfSnapshot,
  ofOne,
  acquire,
  release,
  observe,
];
