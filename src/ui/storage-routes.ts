/** The page of storage and garbage collection. */
import type { Hono } from "hono";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiEnv } from "./context.ts";
import { storagePage } from "./pages/storage.ts";

export function registerStorage(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, commands, clock } = ui;
  app.get("/storage", async (c) => {
    const context = { requestId: c.get("requestId"), actor: "page" };
    const plan = await commands.collectGarbage({ dryRun: true }, context);
    const list = queries.storage();
    const isFull = list.items.some(({ writable }) => !writable);
    return ui.show(c, {
      title: isFull ? "Short of room: storage" : "Storage",
      tone: isFull ? "warn" : "idle",
      section: "storage",
      path: "/ui/storage",
      jsonUrl: "/v1/storage",
      command: commandLines.storage(),
      body: storagePage(list, plan, clock.now()),
    });
  });
}
