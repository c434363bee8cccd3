import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import type { AppContext } from "../ports.ts";
import { flag, param, route, type Route } from "../route.ts";
import {
  CreateSnapshot,
  DeliverSnapshot,
  Lineage,
  Rollback,
  SnapshotOperationView,
  SnapshotView,
  pageOf,
  listOf,
} from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "snapshots";

/** Who leaves is not waited for; the operation goes on all the same. */
const waiting = (c: AppContext) => ({ ...callContext(c), signal: c.req.raw.signal });

const create = route(
  {
    method: "post",
    path: "/v1/sandboxes/{id}/snapshots",
    summary: "Freeze a running sandbox into a snapshot; answers when it is READY",
    tag,
    body: CreateSnapshot,
    answers: {
      201: {
        description: "the operation, which has ended",
        schema: SnapshotOperationView,
        headers: { Location: "/v1/snapshots/{id} of the snapshot" },
      },
    },
  },
  async ({ commands }, c, { body }) => {
    const done = await commands.createSnapshot(param(c), body, waiting(c));
    return json(done, 201, { location: `/v1/snapshots/${done.snapshot_id}` });
  },
);

const rollback = route(
  {
    method: "post",
    path: "/v1/sandboxes/{id}/rollback",
    summary: "Put a running sandbox back to one of its own snapshots",
    tag,
    body: Rollback,
    answers: { 200: { description: "the sandbox runs on it", schema: SnapshotOperationView } },
  },
  async ({ commands }, c, { body }) =>
    json(await commands.rollbackSandbox(param(c), body, waiting(c))),
);

const list = route(
  {
    method: "get",
    path: "/v1/snapshots",
    summary: "Snapshots of sandboxes, most recently updated first",
    tag,
    query: z.strictObject({
      snapshot_id: z.string().max(256).optional(),
      sandbox_id: z.string().max(256).optional().describe("the sandbox it was taken of"),
      name: z.string().max(256).optional().describe("its display name"),
      status: z.string().max(64).optional().describe("DELETING ones only when asked for"),
      limit: z.coerce.number().int().min(1).optional().describe("20 by default, 100 at most"),
      next_token: z.string().max(64).optional(),
    }),
    answers: { 200: { description: "one page of snapshots", schema: pageOf(SnapshotView) } },
  },
  ({ queries }, _c, { query }) => json(queries.listSnapshots(query)),
);

const info = route(
  {
    method: "get",
    path: "/v1/snapshots/{id}",
    summary: "One snapshot, with its replicas and who runs on it",
    tag,
    query: z.strictObject({ include_request: flag.optional() }),
    answers: { 200: { description: "the snapshot", schema: SnapshotView } },
  },
  ({ queries }, c, { query }) =>
    json(queries.snapshot(param(c), { includeRequest: query.include_request === true })),
);

const nodes = route(
  {
    method: "get",
    path: "/v1/snapshots/{id}/nodes",
    summary: "Nodes that a sandbox can be started on from the snapshot",
    tag,
    answers: { 200: { description: "ids of the nodes", schema: listOf(z.string()) } },
  },
  ({ queries }, c) => json({ items: queries.snapshotNodes(param(c)) }),
);

const deliver = route(
  {
    method: "post",
    path: "/v1/snapshots/{id}/nodes",
    summary: "Bring a snapshot to other nodes; answers when a sandbox can be started on it there",
    tag,
    body: DeliverSnapshot,
    answers: { 200: { description: "the nodes have it", schema: SnapshotOperationView } },
  },
  async ({ commands }, c, { body }) =>
    json(await commands.deliverSnapshot(param(c), body, waiting(c))),
);

const remove = route(
  {
    method: "delete",
    path: "/v1/snapshots/{id}",
    summary: "Delete a snapshot that no sandbox runs on; answers when it is gone",
    tag,
    query: z.strictObject({ request_id: z.string().trim().min(1).max(256).optional() }),
    answers: { 200: { description: "it is gone", schema: SnapshotOperationView } },
  },
  async ({ commands }, c, { query }) =>
    json(await commands.deleteSnapshot(param(c), query, callContext(c))),
);

const operation = route(
  {
    method: "get",
    path: "/v1/snapshot-operations/{id}",
    summary: "One operation on a snapshot",
    tag,
    answers: { 200: { description: "the operation", schema: SnapshotOperationView } },
  },
  ({ queries }, c) => json(queries.snapshotOperation(param(c))),
);

const tree = route(
  {
    method: "get",
    path: "/v1/lineage",
    summary: "What came from what: templates, their snapshots and those of their sandboxes",
    tag,
    query: z.strictObject({
      id: z.string().max(256).optional().describe("only the tree that it is in"),
    }),
    answers: {
      200: { description: "parents before their children", schema: listOf(Lineage) },
    },
  },
  ({ queries }, _c, { query }) => json({ items: queries.lineage(query.id) }),
);

export const snapshotRoutes: readonly Route[] = [
  create,
  rollback,
  list,
  info,
  nodes,
  deliver,
  remove,
  operation,
  tree,
];
