/** The page of retention, and deleting by hand what it names. */
import type { Hono } from "hono";
import { policyInForce } from "../domain/index.ts";
import type { RetentionReport } from "../domain/index.ts";
import { act, ask, contextOf, withNotice } from "./actions.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { html } from "./html.ts";
import { retentionPage } from "./pages/retention.ts";
import { readRetention, retentionEffects, type RetentionForm } from "./retention-models.ts";
import { createSubmissions } from "./submissions.ts";

export function registerRetention(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, commands, clock } = ui;
  const submissions = createSubmissions<string>();
  const formOf = (c: UiContext): RetentionForm => ({
    keepLast: (c.req.query("keep_last") ?? "").slice(0, 10),
    unusedDays: (c.req.query("unused_days") ?? "").slice(0, 10),
  });
  const preview = (c: UiContext, form: RetentionForm): Promise<RetentionReport> =>
    commands.applyRetention({ dryRun: true, policy: readRetention(form) }, contextOf(c));
  app.get("/storage/retention", async (c) => {
    const form = formOf(c);
    const report = await preview(c, form);
    return ui.show(c, {
      title: "Retention",
      tone: "idle",
      section: "storage",
      path: "/ui/storage/retention",
      command: commandLines.retentionPreview(),
      body: retentionPage({
        nodes: queries.nodes(),
        inForce: policyInForce(queries.nodes()),
        report,
        form,
        isTried: Object.keys(readRetention(form)).length > 0,
        now: clock.now(),
      }),
    });
  });
  app.get("/storage/retention/apply", async (c) => {
    const form = formOf(c);
    const report = await preview(c, form);
    return ask(ui, c, "storage", {
      title: "Delete what retention names?",
      effects: retentionEffects(report),
      action: "/ui/storage/retention/apply",
      verb: "Delete them",
      kind: "danger",
      command: commandLines.retention(form),
      back: "/ui/storage/retention",
      fields: html`<input type="hidden" name="keep_last" value="${form.keepLast}" /><input
          type="hidden"
          name="unused_days"
          value="${form.unusedDays}"
        />`,
      ...(report.in_touch
        ? {}
        : { blocked: "This node does not agree with the others yet, so nothing is taken away." }),
    });
  });
  app.post("/storage/retention/apply", (c) =>
    act(c, submissions, async (form, context) => {
      const policy = readRetention({
        keepLast: form["keep_last"] ?? "",
        unusedDays: form["unused_days"] ?? "",
      });
      const { items } = await commands.applyRetention({ dryRun: false, policy }, context);
      const isWhole = items.every(({ deleted, kept_by }) => deleted || kept_by !== "");
      const code = isWhole ? "retention-applied" : "retention-partly-applied";
      return withNotice("/ui/storage/retention", code);
    }),
  );
}
