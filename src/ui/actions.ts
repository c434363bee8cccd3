/** Forms that change something: a page that says what will happen, then a post and a redirect. */
import type { Hono } from "hono";
import { AppError, isAppError, isActiveJob } from "../domain/index.ts";
import type { CallContext } from "../domain/index.ts";
import { commandLines } from "./command-lines.ts";
import type { PageView } from "./layout.ts";
import { FIELDS, parseForm, problemsByField, type FormProblems, type FormValues } from "./form.ts";
import { confirmPage, type Confirmation } from "./pages/confirm.ts";
import { collectionEffects } from "./pages/storage.ts";
import { newTemplatePage } from "./pages/new-template.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { isTokenOf, keepSettings, readSettings } from "./session.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";
import { count } from "./format.ts";
import { html } from "./html.ts";
import { deletePlan, guardText, phaseWord, templateName, type NoticeCode } from "./view-models.ts";

export type FormBody = Readonly<Record<string, string>>;

/** The form's text fields. @throws AppError forbidden when its token is not this session's. */
export async function readForm(c: UiContext): Promise<FormBody> {
  const body = await c.req.parseBody();
  const form = Object.fromEntries(
    Object.entries(body).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
  assertToken(c, form["csrf_token"] ?? c.req.header("x-csrf-token"));
  return form;
}

/** @throws AppError forbidden when it is not this session's */
export function assertToken(c: UiContext, sent: string | undefined): void {
  if (isTokenOf(c.get("session"), sent)) return;
  throw new AppError("forbidden", "the form is from an older session; reload it and send it again");
}

export const contextOf = (c: UiContext): CallContext => ({
  requestId: c.get("requestId"),
  actor: c.get("access").name
    ? `token:${c.get("access").name}`
    : `page:${c.get("session").id.slice(0, 8)}`,
});

export const withNotice = (path: string, code: NoticeCode): string => `${path}?notice=${code}`;

/** Runs the act of a form once, then leads to where its result can be seen. */
export async function act(
  c: UiContext,
  submissions: Submissions<string>,
  run: (form: FormBody, context: CallContext) => Promise<string>,
): Promise<Response> {
  const form = await readForm(c);
  const sent = form["idempotency_key"] ?? "";
  const key = sent === "" ? "" : `${c.get("session").id} ${c.req.path} ${sent}`;
  return c.redirect(await submissions.once(key, () => run(form, contextOf(c))), 303);
}

/**
 * As `act`; what the visitor can mend is said in the form itself, with what was sent.
 * @param again the answer to a refusal of the form's own; undefined: it has its own page
 */
export async function actOrAgain(
  c: UiContext,
  submissions: Submissions<string>,
  run: (form: FormBody, context: CallContext) => Promise<string>,
  again: (error: AppError, form: FormBody) => Promise<Response> | undefined,
): Promise<Response> {
  try {
    return await act(c, submissions, run);
  } catch (error) {
    if (!isAppError(error) || error.row.status >= 500 || error.code === "forbidden") throw error;
    const shown = again(error, await readForm(c));
    if (shown === undefined) throw error;
    // For the audit row: it was refused, though it is answered with a page.
    c.set("failure", error);
    return shown;
  }
}

/** The page that says what will happen; 409 or 422 where it was refused already. */
export const ask = (
  ui: Ui,
  c: UiContext,
  section: PageView["section"],
  what: Confirmation,
  code: 200 | 409 | 422 = 200,
) =>
  ui.show(
    c,
    {
      title: code === 200 ? what.title : `Not done: ${what.title}`,
      tone: code === 200 ? "warn" : "bad",
      section,
      path: c.req.path,
      body: confirmPage(ui.pageOf(c), what),
    },
    code,
  );

/** Registers the forms and their confirmation pages. */
export function registerActions(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  registerCreate(app, ui, submissions);
  registerTemplateActions(app, ui, submissions);
  registerJobActions(app, ui, submissions);
  registerSandboxActions(app, ui, submissions);
  registerGcActions(app, ui, submissions);
  app.post("/settings", async (c) => {
    const form = await readForm(c);
    keepSettings(c, ui.queries.nodeId, readSettings(form));
    return c.redirect(withNotice("/ui/help", "settings-saved"), 303);
  });
}

function registerCreate(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const show = (c: UiContext, values: FormValues, problems: FormProblems) =>
    ui.show(
      c,
      {
        title: Object.keys(problems).length === 0 ? "New template" : "Not sent: new template",
        tone: Object.keys(problems).length === 0 ? "idle" : "bad",
        section: "templates",
        path: "/ui/templates/new",
        body: newTemplatePage(ui.pageOf(c), values, problems),
      },
      Object.keys(problems).length === 0 ? 200 : 422,
    );
  app.get("/templates/new", (c) => show(c, { writable_layer_size: "1Gi" }, {}));
  app.post("/templates", async (c) => {
    const form = await readForm(c);
    const values: FormValues = Object.fromEntries(FIELDS.map((name) => [name, form[name] ?? ""]));
    const parsed = parseForm(values);
    if ("problems" in parsed) return show(c, values, parsed.problems);
    try {
      return await act(c, submissions, async (_form, context) => {
        const job = await ui.commands.createFromImage(parsed.request, context);
        return withNotice(`/ui/jobs/${job.job_id}`, "template-submitted");
      });
    } catch (error) {
      if (!isAppError(error) || error.row.status >= 500) throw error;
      const problems = problemsByField(error.meta.errors ?? []);
      if (Object.keys(problems).length > 0) return show(c, values, problems);
      const field = error.code === "invalid_image_reference" ? "source_image_ref" : "form";
      return show(c, values, { [field]: error.message });
    }
  });
}

/** The guard that stands in the way of a deletion, and the way to take it away. */
export const guardOf = (id: string, guard: string) => ({
  blocked: guard,
  wayOut: html`<a class="btn" href="/ui/templates/${id}/unprotect">Unprotect</a>`,
});

function registerTemplateActions(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/templates/:id/delete", (c) => {
    const template = queries.template(c.req.param("id"));
    const plan = deletePlan(template, queries.sandboxes());
    const users = plan.users.map((box) => box.sandbox_id).join(", ");
    const guard = guardText(template);
    return ask(ui, c, "templates", {
      title: `Delete ${templateName(template)}?`,
      effects: plan.effects,
      action: `/ui/templates/${template.template_id}/delete`,
      verb: "Delete template",
      kind: "danger",
      command: commandLines.deleteTemplate(template.template_id),
      back: `/ui/templates/${template.template_id}`,
      ...(guard === undefined ? {} : guardOf(template.template_id, guard)),
      ...(plan.users.length === 0 || guard !== undefined
        ? {}
        : { blocked: `In use by ${count(plan.users.length, "sandbox", "sandboxes")}: ${users}.` }),
    });
  });
  app.post("/templates/:id/delete", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.deleteTemplate(c.req.param("id"), {}, context);
      return withNotice("/ui/templates", "template-deleted");
    }),
  );
  app.get("/templates/:id/run", (c) => {
    const template = queries.template(c.req.param("id"));
    const path = `/ui/templates/${template.template_id}`;
    return ask(ui, c, "templates", {
      title: `Run a sandbox from ${templateName(template)}?`,
      effects: ["It is restored from the snapshot on this node and runs until you stop it."],
      action: `${path}/run`,
      verb: "Run sandbox",
      kind: "primary",
      command: commandLines.runSandbox(template.template_id),
      back: path,
    });
  });
  app.post("/templates/:id/run", (c) =>
    act(c, submissions, async (_form, context) => {
      const box = await commands.runSandbox({ template_id: c.req.param("id") }, context);
      return withNotice(`/ui/nodes/${box.node_id}`, "sandbox-started");
    }),
  );
}

function registerJobActions(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  app.get("/jobs/:id/cancel", (c) => {
    const job = ui.queries.job(c.req.param("id"));
    const phase = phaseWord(job.phase).toLowerCase();
    return ask(ui, c, "jobs", {
      title: `Cancel job ${job.job_id.slice(0, 8)}?`,
      effects: [
        `It stops at ${phase}, ${Math.floor(job.progress)} % done, and ends as failed.`,
        "What it made so far is removed. The image can be submitted again.",
      ],
      action: `/ui/jobs/${job.job_id}/cancel`,
      verb: "Cancel job",
      kind: "danger",
      command: commandLines.cancelJob(job.job_id),
      back: `/ui/jobs/${job.job_id}`,
      ...(isActiveJob(job) ? {} : { blocked: "The job has already ended." }),
    });
  });
  app.post("/jobs/:id/cancel", (c) =>
    act(c, submissions, async (_form, context) => {
      const job = await ui.commands.cancelJob(c.req.param("id"), context);
      return withNotice(`/ui/jobs/${job.job_id}`, "job-cancelled");
    }),
  );
}

function registerSandboxActions(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  app.get("/sandboxes/:id/stop", (c) => {
    const box = ui.queries.sandbox(c.req.param("id"));
    return ask(ui, c, "nodes", {
      title: `Stop sandbox ${box.sandbox_id}?`,
      effects: ["Its guest ends at once, and what it wrote is gone. The template stays."],
      action: `/ui/sandboxes/${box.sandbox_id}/stop`,
      verb: "Stop sandbox",
      kind: "danger",
      command: commandLines.deleteSandbox(box.sandbox_id),
      back: `/ui/nodes/${box.node_id}`,
    });
  });
  app.post("/sandboxes/:id/stop", (c) =>
    act(c, submissions, async (_form, context) => {
      const box = ui.queries.sandbox(c.req.param("id"));
      await ui.commands.deleteSandbox(box.sandbox_id, context);
      return withNotice(`/ui/nodes/${box.node_id}`, "sandbox-stopped");
    }),
  );
}

function registerGcActions(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { commands, clock } = ui;
  app.get("/storage/collect", async (c) => {
    const plan = await commands.collectGarbage({ dryRun: true }, contextOf(c));
    return ask(ui, c, "storage", {
      title: "Collect garbage now?",
      effects: collectionEffects(plan, clock.now()),
      action: "/ui/storage/collect",
      verb: "Collect garbage",
      kind: "danger",
      command: commandLines.collect(),
      back: "/ui/storage",
      ...(plan.in_touch
        ? {}
        : { blocked: "This node does not agree with the others yet, so nothing is taken away." }),
    });
  });
  app.post("/storage/collect", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.collectGarbage({ dryRun: false }, context);
      return withNotice("/ui/storage", "garbage-collected");
    }),
  );
}
