/** Redo from the page: a choice, what it would do, and only then the act. */
import type { Hono } from "hono";
import { act, ask, withNotice } from "./actions.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiEnv } from "./context.ts";
import { join } from "./html.ts";
import { credentialFields, redoFields, redoPage } from "./pages/redo.ts";
import { nodeChoices, readRedo, redoEffects, redoRequest, tryPreview } from "./redo-models.ts";
import { createSubmissions } from "./submissions.ts";
import { templateName } from "./view-models.ts";

/** Registers the choice, the confirmation and the form of redo. */
export function registerRedo(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, commands } = ui;
  const submissions = createSubmissions<string>();
  app.get("/templates/:id/redo", (c) => {
    const template = queries.template(c.req.param("id"));
    const id = template.template_id;
    const form = readRedo({
      mode: c.req.query("redo_mode"),
      nodes: c.req.queries("node") ?? [],
      memoryOnly: c.req.query("memory_only") === "on",
    });
    return ui.show(c, {
      title: `Redo ${templateName(template)}`,
      tone: "idle",
      section: "templates",
      path: `/ui/templates/${id}/redo`,
      body: redoPage({
        template,
        form,
        nodes: nodeChoices(queries.nodes(), form.nodes),
        all: tryPreview(() => queries.redoPreview(id, { redo_mode: "ALL" })),
        failed: tryPreview(() => queries.redoPreview(id, { redo_mode: "FAILED_ONLY" })),
      }),
    });
  });
  app.get("/templates/:id/redo/confirm", (c) => {
    const template = queries.template(c.req.param("id"));
    const id = template.template_id;
    const form = readRedo({
      mode: c.req.query("redo_mode"),
      nodes: c.req.queries("node") ?? [],
      memoryOnly: c.req.query("memory_only") === "on",
    });
    const preview = tryPreview(() => queries.redoPreview(id, redoRequest(form)));
    const isBlocked = typeof preview === "string";
    return ask(ui, c, "templates", {
      title: `Make replicas of ${templateName(template)} anew?`,
      effects: isBlocked ? [] : redoEffects(form, preview),
      action: `/ui/templates/${id}/redo`,
      verb: "Redo",
      kind: "primary",
      command: commandLines.redo(id, form),
      back: `/ui/templates/${id}`,
      fields: join([redoFields(form), credentialFields]),
      ...(isBlocked ? { blocked: preview } : {}),
    });
  });
  app.post("/templates/:id/redo", (c) =>
    act(c, submissions, async (sent, context) => {
      const form = readRedo({
        mode: sent["redo_mode"],
        nodes: (sent["nodes"] ?? "").split(","),
        memoryOnly: sent["memory_only"] === "on",
      });
      const user = (sent["registry_username"] ?? "").trim();
      const password = sent["registry_password"] ?? "";
      const request = {
        ...redoRequest(form),
        ...(user === "" ? {} : { registry_username: user }),
        ...(password === "" ? {} : { registry_password: password }),
      };
      const job = await commands.redoTemplate(c.req.param("id"), request, context);
      return withNotice(`/ui/jobs/${job.job_id}`, "redo-submitted");
    }),
  );
}
