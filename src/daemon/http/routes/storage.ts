/** How full the nodes' disks are, and what may still be written there. */
import { z } from "@hono/zod-openapi";
import { json } from "../answer.ts";
import { flag, route, type Route } from "../route.ts";
import { StorageStates } from "../schemas.ts";

const list = route(
  {
    method: "get",
    path: "/v1/storage",
    summary: "The storage of every node; nodes whose state is old or unknown are asked first",
    tag: "storage",
    query: z.strictObject({ refresh: flag.optional().describe("ask all of them") }),
    answers: {
      200: {
        description: "by node; `error` when a node could not be asked",
        schema: StorageStates,
      },
    },
  },
  async ({ queries }, _c, { query }) =>
    json(await queries.refreshStorage({ force: query.refresh === true })),
);

export const storageRoutes: readonly Route[] = [list];
