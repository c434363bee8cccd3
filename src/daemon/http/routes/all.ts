/** Every route of the API, in the order in which they are tried. */
import type { Route } from "../route.ts";
import { artifactRoutes } from "./artifacts.ts";
import { bundleRoutes } from "./bundles.ts";
import { clusterRoutes } from "./cluster.ts";
import { compatRoutes } from "./compat.ts";
import { eventRoutes } from "./events.ts";
import { gcRoutes } from "./gc.ts";
import { healthRoutes } from "./health.ts";
import { jobRoutes } from "./jobs.ts";
import { nodeRoutes } from "./nodes.ts";
import { resolveRoute } from "./resolve.ts";
import { runtimeRefRoutes } from "./runtime-refs.ts";
import { retentionRoutes } from "./retention.ts";
import { snapshotRoutes } from "./snapshots.ts";
import { sandboxRoutes } from "./sandboxes.ts";
import { storageRoutes } from "./storage.ts";
import { tagRoutes } from "./tags.ts";
import { templateRoutes } from "./templates.ts";

export const ROUTES: readonly Route[] = [
  ...templateRoutes,
  ...tagRoutes,
  ...jobRoutes,
  ...artifactRoutes,
  ...bundleRoutes,
  ...gcRoutes,
  ...retentionRoutes,
  ...compatRoutes,
  resolveRoute,
  ...sandboxRoutes,
  ...runtimeRefRoutes,
  ...snapshotRoutes,
  ...nodeRoutes,
  ...storageRoutes,
  ...clusterRoutes,
  ...eventRoutes,
  ...healthRoutes,
];
