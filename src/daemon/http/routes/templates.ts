import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import type { AppContext } from "../ports.ts";
import { flag, param, route, type Route } from "../route.ts";
import {
  CommitTemplate,
  CreateFromImage,
  CreateTemplate,
  Job,
  RedoTemplate,
  Rendered,
  Replica,
  SandboxRequestBody,
  Template,
  pageOf,
  pageQuery,
  listOf,
} from "../schemas.ts";

const tag = "templates";

/** What commands are told about the caller. They go on when the caller leaves: no signal. */
export const callContext = (c: AppContext) => ({
  requestId: c.get("requestId"),
  actor: c.get("actor") ?? "anonymous",
});

const fromImage = route(
  {
    method: "post",
    path: "/v1/templates/from-image",
    summary: "Make a template from an OCI image; answers with the job that does it",
    tag,
    body: CreateFromImage,
    headers: { Prefer: "wait=N holds the answer until the job has ended, at most N (900) seconds" },
    answers: {
      202: {
        description: "the job has been accepted",
        schema: Job,
        headers: { Location: "/v1/jobs/{id} of the job" },
      },
      200: { description: "with Prefer: wait, the job has ended", schema: Job },
    },
  },
  async ({ commands }, c, { body }) => {
    const job = await commands.createFromImage(body, callContext(c));
    return json(job, 202, { location: `/v1/jobs/${job.job_id}` });
  },
);

const create = route(
  {
    method: "post",
    path: "/v1/templates",
    summary: "Make a template from a prepared request over a root filesystem that is there",
    tag,
    body: CreateTemplate,
    answers: {
      201: {
        description: "the template, whose job has ended",
        schema: Template,
        headers: { Location: "/v1/templates/{id} of the template" },
      },
    },
  },
  async ({ commands }, c, { body }) => {
    // Who leaves is not waited for; the job goes on all the same.
    const context = { ...callContext(c), signal: c.req.raw.signal };
    const one = await commands.createTemplate(body, context);
    return json(one, 201, { location: `/v1/templates/${one.template_id}` });
  },
);

const commit = route(
  {
    method: "post",
    path: "/v1/templates/commit",
    summary: "Make a template of a running sandbox; answers with the job that does it",
    tag,
    body: CommitTemplate,
    headers: { Prefer: "wait=N holds the answer until the job has ended, at most N (900) seconds" },
    answers: {
      202: {
        description: "the job has been accepted, or was before",
        schema: Job,
        headers: { Location: "/v1/jobs/{id} of the job" },
      },
      200: { description: "with Prefer: wait, the job has ended", schema: Job },
    },
  },
  async ({ commands }, c, { body }) => {
    const job = await commands.commitSandbox(body, callContext(c));
    return json(job, 202, { location: `/v1/jobs/${job.job_id}` });
  },
);

const redo = route(
  {
    method: "post",
    path: "/v1/templates/{id}/redo",
    summary: "Make replicas anew; what is there serves until the new one is ready",
    tag,
    body: RedoTemplate,
    headers: { Prefer: "wait=N holds the answer until the job has ended, at most N (900) seconds" },
    answers: {
      202: {
        description: "the job has been accepted",
        schema: Job,
        headers: { Location: "/v1/jobs/{id} of the job" },
      },
      200: { description: "with Prefer: wait, the job has ended", schema: Job },
    },
  },
  async ({ commands }, c, { body }) => {
    const job = await commands.redoTemplate(param(c), body, callContext(c));
    return json(job, 202, { location: `/v1/jobs/${job.job_id}` });
  },
);

const list = route(
  {
    method: "get",
    path: "/v1/templates",
    summary: "Templates, most recently updated first",
    tag,
    query: z.strictObject({
      ...pageQuery,
      status: z.string().max(64).optional(),
      label: z.string().max(512).optional().describe("KEY or KEY=VALUE"),
      text: z.string().max(256).optional().describe("part of the id, name or image"),
    }),
    answers: { 200: { description: "one page of templates", schema: pageOf(Template) } },
  },
  ({ queries }, _c, { query }) => json(queries.listTemplates(query)),
);

const info = route(
  {
    method: "get",
    path: "/v1/templates/{id}",
    summary: "One template, by id or display name, with its replicas",
    tag,
    query: z.strictObject({ include_request: flag.optional() }),
    answers: {
      200: {
        description: "the template; create_request with include_request=true",
        schema: Template.extend({ create_request: SandboxRequestBody.optional() }),
      },
    },
  },
  ({ queries }, c, { query }) => {
    const template = queries.template(param(c));
    if (query.include_request !== true) return json(template);
    const create_request = queries.templateRequest(template.template_id);
    return json({ ...template, create_request });
  },
);

const request = route(
  {
    method: "get",
    path: "/v1/templates/{id}/request",
    summary: "The stored create request, with a fresh request id",
    tag,
    answers: { 200: { description: "the request", schema: SandboxRequestBody } },
  },
  ({ queries }, c) => json(queries.templateRequest(queries.template(param(c)).template_id)),
);

const render = route(
  {
    method: "post",
    path: "/v1/templates/{id}/render",
    summary: "What a sandbox would be started with; nothing is started",
    tag,
    body: SandboxRequestBody,
    reads: true,
    answers: { 200: { description: "the request, merged and as a guest", schema: Rendered } },
  },
  ({ queries }, c, { body }) => json(queries.renderRequest(param(c), body)),
);

const replicas = route(
  {
    method: "get",
    path: "/v1/templates/{id}/replicas",
    summary: "The template's replicas, by node",
    tag,
    answers: { 200: { description: "the replicas", schema: listOf(Replica) } },
  },
  ({ queries }, c) => json({ items: queries.replicas(queries.template(param(c)).template_id) }),
);

const kind = route(
  {
    method: "get",
    path: "/v1/templates/{id}/kind",
    summary: "Whether the id is a template's or a snapshot's",
    tag,
    answers: {
      200: {
        description: "the kind",
        schema: z.object({ template_id: z.string(), kind: z.enum(["template", "snapshot"]) }),
      },
    },
  },
  ({ queries }, c) => {
    const template = queries.template(param(c));
    return json({ template_id: template.template_id, kind: template.kind });
  },
);

const remove = route(
  {
    method: "delete",
    path: "/v1/templates/{id}",
    summary: "Delete a template and its replicas",
    tag,
    query: z.strictObject({ force: flag.optional() }),
    answers: {
      200: { description: "it is gone", schema: z.object({ template_id: z.string() }) },
    },
  },
  async ({ commands }, c, { query }) =>
    json(await commands.deleteTemplate(param(c), { force: query.force }, callContext(c))),
);

export const templateRoutes: readonly Route[] = [
  create,
  fromImage,
  commit,
  redo,
  list,
  info,
  request,
  render,
  replicas,
  kind,
  remove,
];
