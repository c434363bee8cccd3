import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import { RunSandbox, Sandbox, listOf } from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "sandboxes";

const run = route(
  {
    method: "post",
    path: "/v1/sandboxes",
    summary: "Start a sandbox on this node from a template's snapshot",
    tag,
    body: RunSandbox,
    answers: {
      201: {
        description: "the sandbox is running",
        schema: Sandbox,
        headers: { Location: "/v1/sandboxes/{id} of the sandbox" },
      },
    },
  },
  async ({ commands }, c, { body }) => {
    const context = { ...callContext(c), signal: c.req.raw.signal };
    const sandbox = await commands.runSandbox(body, context);
    return json(sandbox, 201, { location: `/v1/sandboxes/${sandbox.sandbox_id}` });
  },
);

const list = route(
  {
    method: "get",
    path: "/v1/sandboxes",
    summary: "Sandboxes of this node",
    tag,
    answers: { 200: { description: "the sandboxes", schema: listOf(Sandbox) } },
  },
  ({ queries }) => json({ items: queries.sandboxes() }),
);

const info = route(
  {
    method: "get",
    path: "/v1/sandboxes/{id}",
    summary: "One sandbox",
    tag,
    answers: { 200: { description: "the sandbox", schema: Sandbox } },
  },
  ({ queries }, c) => json(queries.sandbox(param(c))),
);

const remove = route(
  {
    method: "delete",
    path: "/v1/sandboxes/{id}",
    summary: "End a sandbox",
    tag,
    answers: { 204: { description: "it is gone" } },
  },
  async ({ commands }, c) => {
    await commands.deleteSandbox(param(c), callContext(c));
    return new Response(null, { status: 204 });
  },
);

export const sandboxRoutes: readonly Route[] = [run, list, info, remove];
