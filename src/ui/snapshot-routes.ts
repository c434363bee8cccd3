/** Pages of snapshots of running sandboxes. */
import type { Hono } from "hono";
import { isAppError } from "../domain/index.ts";
import type { LineageEntry, Queries } from "../domain/index.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { snapshotPage, snapshotsPage, snapshotTitle } from "./pages/snapshots.ts";
import { readSnapshotQuery } from "./snapshot-models.ts";
import { status } from "./status.ts";

interface PageTools {
  /** The API's twin of a page, for those who ask for JSON. */
  twin(c: UiContext, url: string): Response | undefined;
  pathOf(c: UiContext): string;
  streamUrl(topic: string): string;
}

/** The tree that it is in; empty while nothing is recorded of it. */
export function lineageOf(queries: Queries, id: string): readonly LineageEntry[] {
  try {
    return queries.lineage(id);
  } catch (error) {
    if (isAppError(error)) return [];
    throw error;
  }
}

export function registerSnapshots(app: Hono<UiEnv>, ui: Ui, tools: PageTools): void {
  const { queries, clock } = ui;
  app.get("/snapshots", (c) => {
    const search = new URL(tools.pathOf(c), "http://page").search;
    const jsonUrl = `/v1/snapshots${search}`;
    const query = readSnapshotQuery((name) => c.req.query(name));
    return (
      tools.twin(c, jsonUrl) ??
      ui.show(c, {
        title: "Snapshots",
        tone: "idle",
        section: "snapshots",
        path: tools.pathOf(c),
        jsonUrl,
        command: commandLines.snapshots(),
        streamUrl: tools.streamUrl("snapshots"),
        body: snapshotsPage(
          queries.listSnapshots(query.filter),
          query,
          tools.pathOf(c),
          clock.now(),
        ),
      })
    );
  });
  app.get("/snapshots/:id", (c) => {
    const snapshot = queries.snapshot(c.req.param("id"));
    const id = snapshot.snapshot_id;
    const jsonUrl = `/v1/snapshots/${id}`;
    return (
      tools.twin(c, jsonUrl) ??
      ui.show(c, {
        title: snapshotTitle(snapshot),
        tone: status(snapshot.status).tone,
        section: "snapshots",
        path: `/ui/snapshots/${id}`,
        jsonUrl,
        command: commandLines.snapshot(id),
        streamUrl: tools.streamUrl(`snapshot:${id}`),
        body: snapshotPage({ snapshot, lineage: lineageOf(queries, id), now: clock.now() }),
      })
    );
  });
}
