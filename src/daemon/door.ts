/** The page and the API, on their listeners. */
import { join } from "node:path";
import { LIMITS, type Catalog, type Commands, type Queries } from "../domain/index.ts";
import { createAudit, createIdempotencyStore } from "../storage/index.ts";
import { createUi } from "../ui/index.ts";
import { createApp } from "./http/app.ts";
import { readOut, sendBundle } from "./http/bundle-files.ts";
import { listen, type Listening } from "./http/server.ts";
import { createPageSessions } from "./page-sessions.ts";
import { readTokens } from "./secrets.ts";
import type { Closers } from "./state.ts";
import type { DaemonParts } from "./parts.ts";

/** The page and the API on their listeners; streams end before connections do. */
export async function openDoor(
  parts: DaemonParts,
  core: { catalog: Catalog; queries: Queries; commands: Commands },
  opened: Closers,
): Promise<Listening> {
  const { config, log, clock, random, health, metrics, version } = parts;
  const { catalog, queries, commands } = core;
  const closing = new AbortController();
  const auth = { tokens: await readTokens(config) };
  const ui = createUi({
    queries,
    commands,
    signIns: createPageSessions({ auth, clock, random }),
    version,
    clock,
    random,
    bundleFiles: { send: sendBundle, read: readOut },
    log: log.child({ module: "ui" }),
    signal: closing.signal,
  });
  const app = createApp({
    queries,
    commands,
    idempotency: createIdempotencyStore(catalog, clock),
    audit: createAudit(catalog.table("audit"), clock),
    health,
    metrics: metrics.registry,
    ui,
    auth,
    log: log.child({ module: "http" }),
    clock,
    random,
    version,
    allowedHosts: config.allowed_hosts,
  });
  const { host, port } = config.listen;
  const listening = await listen({
    app,
    host,
    port,
    socketPath: join(config.data_dir, "templatecenter.sock"),
    log,
    clock,
  });
  opened.push(() => {
    closing.abort();
    return listening.close(LIMITS.shutdownGraceMs / 2);
  });
  return listening;
}
