/** Garbage collection: what goes, and why something is still here or not there. */
import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import { flag, param, route, type Route } from "../route.ts";
import { Artifact, ArtifactWhyView, GcReportView, TemplateWhyView } from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "gc";

const collect = route(
  {
    method: "post",
    path: "/v1/gc",
    summary: "Collect artifacts that nobody refers to and whose grace is over, now",
    tag,
    query: z.strictObject({ dry_run: flag.optional() }),
    answers: { 200: { description: "what goes, why and where", schema: GcReportView } },
  },
  async ({ commands }, c, { query }) =>
    json(await commands.collectGarbage({ dryRun: query.dry_run === true }, callContext(c))),
);

const whyArtifact = route(
  {
    method: "get",
    path: "/v1/artifacts/{id}/why",
    summary: "Why the artifact is still here: every reference, on every node",
    tag,
    answers: { 200: { description: "its references", schema: ArtifactWhyView } },
  },
  ({ queries }, c) => json(queries.whyArtifact(param(c))),
);

const whyTemplate = route(
  {
    method: "get",
    path: "/v1/templates/{id}/why",
    summary: "Who uses the template or snapshot, and why it is not ready on a node",
    tag,
    answers: { 200: { description: "its users and its nodes", schema: TemplateWhyView } },
  },
  async ({ queries }, c) => json(await queries.whyTemplate(param(c))),
);

const undelete = route(
  {
    method: "post",
    path: "/v1/artifacts/{id}/undelete",
    summary: "Keep an artifact that is about to go; possible until its copies are removed",
    tag,
    answers: { 200: { description: "the artifact", schema: Artifact } },
  },
  async ({ commands }, c) => json(await commands.undeleteArtifact(param(c), callContext(c))),
);

export const gcRoutes: readonly Route[] = [collect, whyArtifact, whyTemplate, undelete];
