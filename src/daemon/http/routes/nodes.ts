import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import { Node, listOf } from "../schemas.ts";

const tag = "nodes";

const list = route(
  {
    method: "get",
    path: "/v1/nodes",
    summary: "The nodes that are known",
    tag,
    answers: { 200: { description: "the nodes", schema: listOf(Node) } },
  },
  ({ queries }) => json({ items: queries.nodes() }),
);

const self = route(
  {
    method: "get",
    path: "/v1/nodes/self",
    summary: "The node that answers",
    tag,
    answers: { 200: { description: "this node", schema: Node } },
  },
  ({ queries }) => json(queries.node("self")),
);

const info = route(
  {
    method: "get",
    path: "/v1/nodes/{id}",
    summary: "One node",
    tag,
    answers: { 200: { description: "the node", schema: Node } },
  },
  ({ queries }, c) => json(queries.node(param(c))),
);

export const nodeRoutes: readonly Route[] = [list, self, info];
