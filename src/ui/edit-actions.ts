/** Forms for what is said of a template without making anything anew: name, labels, protection. */
import type { Hono } from "hono";
import type { TemplateInfo } from "../domain/index.ts";
import { act, actOrAgain, ask, readForm, withNotice, type FormBody } from "./actions.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { html } from "./html.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";
import { labelChanges, labelLines, parseLabels } from "./tag-models.ts";
import { sentence, templateName } from "./view-models.ts";

/** Registers them for templates and for snapshots, which are templates of another kind. */
export function registerEdits(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  registerRename(app, ui, submissions);
  registerLabels(app, ui, submissions);
  registerProtection(app, ui, submissions);
}

const pathOfTemplate = ({ kind, template_id: id }: TemplateInfo): string => `/ui/${kind}s/${id}`;
const sectionOf = ({ kind }: TemplateInfo) => `${kind}s` as const;

function registerRename(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  const show = (c: UiContext, problem?: string, sent?: FormBody) => {
    const template = queries.template(c.req.param("id") ?? "");
    const id = template.template_id;
    const isTemplate = template.kind === "template";
    const what = {
      title: `Rename ${templateName(template)}`,
      effects: isTemplate
        ? [
            "The name is a tag of its own: it stands wherever the id does.",
            "Left blank, it has none and is called by its id.",
          ]
        : ["Any number of snapshots may have the same name."],
      action: `/ui/templates/${id}/rename`,
      verb: "Save name",
      kind: "primary" as const,
      command: commandLines.rename(id, template.display_name),
      back: pathOfTemplate(template),
      fields: html`<div class="field">
        <label for="display-name">Name</label
        ><input
          id="display-name"
          name="display_name"
          value="${sent?.["display_name"] ?? template.display_name}"
          maxlength="${isTemplate ? 64 : 256}"
          autocomplete="off"
          spellcheck="false"
          autocapitalize="off"
        />
      </div>`,
    };
    return problem === undefined
      ? ask(ui, c, sectionOf(template), what)
      : ask(ui, c, sectionOf(template), { ...what, problem }, 422);
  };
  app.get("/templates/:id/rename", (c) => show(c));
  app.post("/templates/:id/rename", (c) =>
    actOrAgain(
      c,
      submissions,
      async (form, context) => {
        const name = (form["display_name"] ?? "").trim();
        const template = await commands.renameTemplate(c.req.param("id"), name, context);
        return withNotice(pathOfTemplate(template), "template-renamed");
      },
      (error, form) =>
        ["invalid_request", "name_taken"].includes(error.code)
          ? show(c, sentence(error.message), form)
          : undefined,
    ),
  );
}

function registerLabels(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  const show = (c: UiContext, problem?: string, sent?: FormBody) => {
    const template = queries.template(c.req.param("id") ?? "");
    const id = template.template_id;
    const lines = labelLines(template.labels);
    const what = {
      title: `Labels of ${templateName(template)}`,
      effects: ["Only what you change is written: labels that others set meanwhile stay."],
      action: `/ui/templates/${id}/labels`,
      verb: "Save labels",
      kind: "primary" as const,
      command: commandLines.label(id, template.labels),
      back: pathOfTemplate(template),
      fields: html`<input type="hidden" name="shown" value="${sent?.["shown"] ?? lines}" />
        <div class="field">
          <label for="labels">Labels, one on a line: key=value</label
          ><textarea id="labels" name="labels" rows="6" spellcheck="false" autocapitalize="off">
${sent?.["labels"] ?? lines}</textarea>
        </div>`,
    };
    return problem === undefined
      ? ask(ui, c, sectionOf(template), what)
      : ask(ui, c, sectionOf(template), { ...what, problem }, 422);
  };
  app.get("/templates/:id/labels", (c) => show(c));
  app.post("/templates/:id/labels", async (c) => {
    const form = await readForm(c);
    const wanted = parseLabels(form["labels"] ?? "");
    if (typeof wanted === "string") return show(c, wanted, form);
    const shown = parseLabels(form["shown"] ?? "");
    const labels = labelChanges(typeof shown === "string" ? {} : shown, wanted);
    return act(c, submissions, async (_form, context) => {
      const template =
        Object.keys(labels).length === 0
          ? queries.template(c.req.param("id"))
          : await commands.labelTemplate(c.req.param("id"), { labels }, context);
      return withNotice(pathOfTemplate(template), "labels-saved");
    });
  });
}

function registerProtection(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  for (const isProtected of [true, false]) {
    const verb = isProtected ? "protect" : "unprotect";
    app.get(`/templates/:id/${verb}`, (c) => {
      const template = queries.template(c.req.param("id"));
      const id = template.template_id;
      return ask(ui, c, sectionOf(template), {
        title: `${isProtected ? "Protect" : "Unprotect"} ${templateName(template)}?`,
        effects: isProtected
          ? [
              "Nobody can delete it, also not by force, and retention keeps it.",
              "Whoever may change things can take the protection away again.",
            ]
          : ["It can be deleted again, by people and by retention."],
        action: `/ui/templates/${id}/${verb}`,
        verb: isProtected ? "Protect" : "Unprotect",
        kind: isProtected ? "primary" : "danger",
        command: commandLines.protect(template, isProtected),
        back: pathOfTemplate(template),
      });
    });
    app.post(`/templates/:id/${verb}`, (c) =>
      act(c, submissions, async (_form, context) => {
        const id = c.req.param("id");
        const template = await commands.protectTemplate(id, isProtected, context);
        const code = isProtected ? "template-protected" : "template-unprotected";
        return withNotice(pathOfTemplate(template), code);
      }),
    );
  }
}
