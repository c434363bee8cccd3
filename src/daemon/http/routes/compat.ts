/** Compat: which replicas fit what their nodes would boot now, and what an upgrade would break. */
import { z } from "@hono/zod-openapi";
import { COMPAT_STATUSES, upgradeOf, upgradeQuerySchema } from "../../../domain/index.ts";
import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import {
  AdoptedCompatView,
  CompatMatrix,
  CompatPreviewView,
  CompatScanView,
  RescanCompat,
  ResnapshotState,
  pageQuery,
} from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "compat";

const matrix = route(
  {
    method: "get",
    path: "/v1/compat",
    summary: "Templates by nodes: does each replica fit what its node would boot now",
    tag,
    query: z.strictObject({
      ...pageQuery,
      status: z.enum(COMPAT_STATUSES).optional().describe("only templates that are so overall"),
      template_id: z.string().max(256).optional().describe("only that one"),
    }),
    answers: {
      200: { description: "one page of templates, and the sums over all", schema: CompatMatrix },
    },
  },
  ({ queries }, _c, { query }) => json(queries.compat(query)),
);

const preview = route(
  {
    method: "get",
    path: "/v1/compat/preview",
    summary: "What would be stale if every node had these versions",
    tag,
    query: upgradeQuerySchema,
    answers: { 200: { description: "what would change", schema: CompatPreviewView } },
  },
  ({ queries }, _c, { query }) => json(queries.compatPreview(upgradeOf(query))),
);

const rescan = route(
  {
    method: "post",
    path: "/v1/compat/rescan",
    summary: "Judge the replicas of nodes again, one node after the other, until one fails",
    tag,
    body: RescanCompat,
    answers: { 200: { description: "what each scan found", schema: CompatScanView } },
  },
  async ({ commands }, c, { body }) => json(await commands.rescanCompat(body, callContext(c))),
);

const adopt = route(
  {
    method: "post",
    path: "/v1/templates/{id}/compat/adopt",
    summary: "Take replicas of unknown versions as made with what their nodes have now",
    tag,
    answers: { 200: { description: "which have taken them over", schema: AdoptedCompatView } },
  },
  async ({ commands }, c) => json(await commands.adoptCompatBaseline(param(c), callContext(c))),
);

const resnapshot = route(
  {
    method: "get",
    path: "/v1/compat/resnapshot",
    summary: "Stale replicas that are made again by themselves: whose turn it is, and how it went",
    tag,
    answers: { 200: { description: "where it is", schema: ResnapshotState } },
  },
  ({ queries }) => json(queries.resnapshot()),
);

const resume = route(
  {
    method: "post",
    path: "/v1/compat/resnapshot/resume",
    summary: "Go on after a failure; nothing happens when nothing has stopped",
    tag,
    answers: { 200: { description: "where it is", schema: ResnapshotState } },
  },
  async ({ commands }, c) => json(await commands.resumeResnapshot(callContext(c))),
);

export const compatRoutes: readonly Route[] = [matrix, preview, rescan, adopt, resnapshot, resume];
