import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import {
  LabelTemplate,
  PromoteTag,
  RollbackTag,
  SnapshotView,
  Tag,
  Template,
  pageOf,
  pageQuery,
} from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "tags";
const one = (description: string) => ({ 200: { description, schema: Tag } });

const list = route(
  {
    method: "get",
    path: "/v1/tags",
    summary: "Tags by name, each with its history",
    tag,
    query: z.strictObject(pageQuery),
    answers: { 200: { description: "one page of tags", schema: pageOf(Tag) } },
  },
  ({ queries }, _c, { query }) => json(queries.listTags(query)),
);

const info = route(
  {
    method: "get",
    path: "/v1/tags/{name}",
    summary: "Where a tag points, and has pointed",
    tag,
    answers: one("the tag"),
  },
  ({ queries }, c) => json(queries.tag(param(c, "name"))),
);

const promote = route(
  {
    method: "put",
    path: "/v1/tags/{name}",
    summary: "Make a tag, or move it to another template, from anywhere or from one only",
    tag,
    body: PromoteTag,
    answers: one("where it points now"),
  },
  async ({ commands }, c, { body }) =>
    json(await commands.promoteTag(param(c, "name"), body, callContext(c))),
);

const rollback = route(
  {
    method: "post",
    path: "/v1/tags/{name}/rollback",
    summary: "Point a tag where it pointed before",
    tag,
    body: RollbackTag,
    answers: one("where it points now"),
  },
  async ({ commands }, c, { body }) =>
    json(await commands.rollbackTag(param(c, "name"), body, callContext(c))),
);

const remove = route(
  {
    method: "delete",
    path: "/v1/tags/{name}",
    summary: "Take a tag away; its template stays",
    tag,
    answers: { 204: { description: "it is gone" } },
  },
  async ({ commands }, c) => {
    await commands.deleteTag(param(c, "name"), callContext(c));
    return c.body(null, 204);
  },
);

const template = { 200: { description: "the template", schema: Template } };

const rename = route(
  {
    method: "put",
    path: "/v1/templates/{id}/alias",
    summary: "Give a template a name that stands for its id, or take it away",
    tag: "templates",
    body: z.strictObject({ alias: z.string().max(64).nullable().optional() }),
    answers: template,
  },
  async ({ commands }, c, { body }) =>
    json(await commands.renameTemplate(param(c), body.alias ?? "", callContext(c))),
);

const label = route(
  {
    method: "put",
    path: "/v1/templates/{id}/labels",
    summary: "Set labels, and take away those that are null",
    tag: "templates",
    body: LabelTemplate,
    answers: template,
  },
  async ({ commands }, c, { body }) =>
    json(await commands.labelTemplate(param(c), body, callContext(c))),
);

const protection = z.strictObject({ protected: z.boolean() });

const protect = route(
  {
    method: "put",
    path: "/v1/templates/{id}/protection",
    summary: "Keep a template from being deleted, also by force, or do so no more",
    tag: "templates",
    body: protection,
    answers: template,
  },
  async ({ commands }, c, { body }) =>
    json(await commands.protectTemplate(param(c), body.protected, callContext(c))),
);

const protectSnapshot = route(
  {
    method: "put",
    path: "/v1/snapshots/{id}/protection",
    summary: "Keep a snapshot from being deleted, or do so no more",
    tag: "snapshots",
    body: protection,
    answers: { 200: { description: "the snapshot", schema: SnapshotView } },
  },
  async ({ commands, queries }, c, { body }) => {
    const { snapshot_id: id } = queries.snapshot(param(c));
    await commands.protectTemplate(id, body.protected, callContext(c));
    return json(queries.snapshot(id));
  },
);

export const tagRoutes: readonly Route[] = [
  list,
  info,
  promote,
  rollback,
  remove,
  rename,
  label,
  protect,
  protectSnapshot,
];
