/** Pages and forms of tags. */
import type { Hono } from "hono";
import { nameSchema } from "../domain/index.ts";
import type { TagRecord } from "../domain/index.ts";
import { actOrAgain, act, ask, withNotice, type FormBody } from "./actions.ts";
import { pathOf, streamUrl, twin } from "./addresses.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { tagPath } from "./fragments/tag-parts.ts";
import { html } from "./html.ts";
import { promotePage, tagPage, tagsPage, type PromoteForm } from "./pages/tags.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";
import {
  beforeOf,
  movedText,
  promotePlan,
  rollbackTagPlan,
  type FindTemplate,
} from "./tag-models.ts";
import { findTag, findTemplate } from "./regions.ts";
import { sentence } from "./view-models.ts";

const ROWS = 100;
/** Names that the form suggests. */
const KNOWN = 200;

export function registerTags(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  const submissions = createSubmissions<string>();
  const find: FindTemplate = (id) => findTemplate(queries, id);
  app.get("/tags", (c) => {
    const token = c.req.query("next_token");
    const page = queries.listTags({
      limit: ROWS,
      ...(token === undefined ? {} : { next_token: token }),
    });
    return (
      twin(c, "/v1/tags") ??
      ui.show(c, {
        title: "Tags",
        tone: "idle",
        section: "templates",
        path: pathOf(c),
        jsonUrl: "/v1/tags",
        command: commandLines.tags(),
        streamUrl: streamUrl(ui, "tags"),
        body: tagsPage(page, pathOf(c), find, clock.now()),
      })
    );
  });
  app.get("/tags/:name", (c) => {
    const tag = queries.tag(c.req.param("name"));
    const jsonUrl = `/v1/tags/${tag.name}`;
    return (
      twin(c, jsonUrl) ??
      ui.show(c, {
        title: `Tag ${tag.name}`,
        tone: "idle",
        section: "templates",
        path: tagPath(tag.name),
        jsonUrl,
        command: commandLines.tag(tag.name),
        streamUrl: streamUrl(ui, `tag:${tag.name}`),
        body: tagPage(tag, find, clock.now()),
      })
    );
  });
  registerPromote(app, ui, submissions, find);
  registerRollback(app, ui, submissions, find);
  registerDelete(app, ui, submissions, find);
}

function registerPromote(
  app: Hono<UiEnv>,
  ui: Ui,
  submissions: Submissions<string>,
  find: FindTemplate,
): void {
  const { queries, commands, clock } = ui;
  const choose = (c: UiContext, form: PromoteForm, problem: string) =>
    ui.show(
      c,
      {
        title: problem === "" ? "Promote" : "Not done: promote",
        tone: problem === "" ? "idle" : "bad",
        section: "templates",
        path: "/ui/promote",
        body: promotePage(
          form,
          queries.listTags({ limit: KNOWN }).items.map(({ name }) => name),
          problem,
        ),
      },
      problem === "" ? 200 : 422,
    );
  /** What is wrong with the choice; blank: nothing. */
  const problemOf = ({ tag, template }: PromoteForm): string => {
    const { error } = nameSchema.safeParse(tag);
    if (error !== undefined) return `A tag's name ${error.issues[0]?.message ?? "is refused"}.`;
    return find(template) === undefined ? `There is no template ${template}.` : "";
  };
  app.get("/promote", (c) => {
    const form: PromoteForm = {
      tag: (c.req.query("tag") ?? "").trim().slice(0, 256),
      template: (c.req.query("template") ?? "").trim().slice(0, 256),
    };
    if (form.tag === "" || form.template === "") return choose(c, form, "");
    const problem = problemOf(form);
    const template = find(form.template);
    if (problem !== "" || template === undefined) return choose(c, form, problem);
    const tag = findTag(queries, form.tag);
    const { effects, blocked } = promotePlan(form.tag, tag, template, find);
    const id = template.template_id;
    return ask(ui, c, "templates", {
      title: `Promote ${form.tag}?`,
      effects,
      action: "/ui/promote",
      verb: tag === undefined ? "Make tag" : "Move tag",
      kind: "primary",
      command: commandLines.promote(form.tag, id, tag?.template_id ?? null),
      back: `/ui/templates/${id}`,
      fields: html`<input type="hidden" name="tag" value="${form.tag}" /><input
          type="hidden"
          name="template"
          value="${id}"
        /><input type="hidden" name="expected" value="${tag?.template_id ?? ""}" />`,
      ...(blocked === undefined ? {} : { blocked }),
    });
  });
  const refused = (c: UiContext, { tag: name = "", template = "" }: FormBody) =>
    ask(
      ui,
      c,
      "templates",
      {
        title: `Tag ${name} was not moved`,
        effects: [],
        action: "/ui/promote",
        verb: "",
        kind: "primary",
        command: commandLines.tag(name),
        back: "/ui/tags",
        blocked: movedText(name, findTag(queries, name), find, clock.now()),
        wayOut: html`<a
          class="btn primary"
          href="/ui/promote?${new URLSearchParams({ tag: name, template }).toString()}"
          >Look again</a
        >`,
      },
      409,
    );
  app.post("/promote", (c) =>
    actOrAgain(
      c,
      submissions,
      async (form, context) => {
        const name = form["tag"] ?? "";
        const expected = form["expected"] ?? "";
        const request = {
          template_id: form["template"] ?? "",
          expected_template_id: expected === "" ? null : expected,
        };
        const tag = await commands.promoteTag(name, request, context);
        return withNotice(tagPath(tag.name), "tag-moved");
      },
      (error, form) => {
        if (error.code === "tag_moved") return refused(c, form);
        const { tag = "", template = "" } = form;
        return choose(c, { tag, template }, sentence(error.message));
      },
    ),
  );
}

function registerRollback(
  app: Hono<UiEnv>,
  ui: Ui,
  submissions: Submissions<string>,
  find: FindTemplate,
): void {
  const { queries, commands, clock } = ui;
  const show = (c: UiContext, tag: TagRecord, refusal?: string) => {
    const { effects, blocked } = rollbackTagPlan(tag, find);
    const why = refusal ?? blocked;
    const path = tagPath(tag.name);
    return ask(
      ui,
      c,
      "templates",
      {
        title: refusal === undefined ? `Roll ${tag.name} back?` : `Tag ${tag.name} was not moved`,
        effects: refusal === undefined ? effects : [],
        action: `${path}/rollback`,
        verb: "Roll back",
        kind: "danger",
        command: commandLines.rollbackTag(tag.name, tag.template_id),
        back: path,
        fields: html`<input type="hidden" name="expected" value="${tag.template_id}" />`,
        ...(why === undefined ? {} : { blocked: why }),
        ...(refusal === undefined || beforeOf(tag) === undefined
          ? {}
          : { wayOut: html`<a class="btn primary" href="${path}/rollback">Look again</a>` }),
      },
      refusal === undefined ? 200 : 409,
    );
  };
  app.get("/tags/:name/rollback", (c) => show(c, queries.tag(c.req.param("name"))));
  app.post("/tags/:name/rollback", (c) =>
    actOrAgain(
      c,
      submissions,
      async (form, context) => {
        const expected = form["expected"] ?? "";
        const request = expected === "" ? {} : { expected_template_id: expected };
        const tag = await commands.rollbackTag(c.req.param("name"), request, context);
        return withNotice(tagPath(tag.name), "tag-rolled-back");
      },
      (error) => {
        const tag = findTag(queries, c.req.param("name"));
        if (tag === undefined) return undefined;
        const moved = error.code === "tag_moved";
        const words = moved ? movedText(tag.name, tag, find, clock.now()) : sentence(error.message);
        return show(c, tag, words);
      },
    ),
  );
}

function registerDelete(
  app: Hono<UiEnv>,
  ui: Ui,
  submissions: Submissions<string>,
  find: FindTemplate,
): void {
  const { queries, commands } = ui;
  app.get("/tags/:name/delete", (c) => {
    const tag = queries.tag(c.req.param("name"));
    const isName = find(tag.template_id)?.display_name === tag.name;
    return ask(ui, c, "templates", {
      title: `Delete tag ${tag.name}?`,
      effects: [
        `Nothing is called ${tag.name} any more, and its history goes. This cannot be undone.`,
        "The templates that it has pointed at stay.",
        ...(isName ? ["It is the name of its template, which is called by its id then."] : []),
      ],
      action: `${tagPath(tag.name)}/delete`,
      verb: "Delete tag",
      kind: "danger",
      command: commandLines.deleteTag(tag.name),
      back: tagPath(tag.name),
    });
  });
  app.post("/tags/:name/delete", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.deleteTag(c.req.param("name"), context);
      return withNotice("/ui/tags", "tag-deleted");
    }),
  );
}
