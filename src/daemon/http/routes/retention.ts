/** Retention: templates that go by themselves. */
import { z } from "@hono/zod-openapi";
import { DURATION, durationMs } from "../../config.ts";
import { json } from "../answer.ts";
import { count, flag, route, type Route } from "../route.ts";
import { RetentionReportView } from "../schemas.ts";
import { callContext } from "./templates.ts";

const apply = route(
  {
    method: "post",
    path: "/v1/retention",
    summary: "Delete the templates that retention names, now, or only say which",
    tag: "retention",
    query: z.strictObject({
      dry_run: flag.optional(),
      keep_last: count(0, 1_000)
        .optional()
        .describe("instead of what the nodes are configured with"),
      unused_ttl: z
        .string()
        .regex(DURATION, "must be a duration as 0s, 15m or 720h")
        .transform(durationMs)
        .optional()
        .describe("instead of what the nodes are configured with: 720h"),
    }),
    answers: {
      200: { description: "what goes, why, and what stays", schema: RetentionReportView },
    },
  },
  async ({ commands }, c, { query }) => {
    const { dry_run: dryRun = false, keep_last, unused_ttl: unused_ttl_ms } = query;
    const policy = {
      ...(keep_last === undefined ? {} : { keep_last }),
      ...(unused_ttl_ms === undefined ? {} : { unused_ttl_ms }),
    };
    return json(await commands.applyRetention({ dryRun, policy }, callContext(c)));
  },
);

export const retentionRoutes: readonly Route[] = [apply];
