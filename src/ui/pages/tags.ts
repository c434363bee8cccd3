/** Tags: the list, one with its history, and which one shall point at a template. */
import type { Page, TagRecord } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox, confirmLink, emptyState } from "../fragments/bits.ts";
import { tagHistory, tagPath, tagTable } from "../fragments/tag-parts.ts";
import { html, nothing, type Html } from "../html.ts";
import { beforeOf, pointsAt, type FindTemplate } from "../tag-models.ts";
import { block, pager } from "./list.ts";

export const tagsPage = (
  page: Page<TagRecord>,
  path: string,
  find: FindTemplate,
  now: number,
): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/templates">Templates</a></p>
        <h1>Tags</h1>
        <p class="lead">
          A tag stands for a template wherever its id does, and moves from build to build.
        </p>
      </div>
      <div class="acts"><a class="btn primary" href="/ui/promote">Promote</a></div>
    </div>
    ${block(
      "tags",
      "tags-changed",
      path,
      page.items.length === 0
        ? emptyState(
            "No tags yet",
            "A template with a name has a tag of that name. Others are made by promoting one.",
            commandBox(commandLines.promote("NAME", "TEMPLATE"), "Make one"),
          )
        : html`${tagTable(page.items, find, now)}${pager(path, page.next_token)}`,
    )}`;

/** Id rule: `tag-NAME`. */
export const tagBody = (tag: TagRecord, find: FindTemplate, now: number): Html => {
  const path = tagPath(tag.name);
  return html`<div id="tag-${tag.name}">
    <div class="head">
      <div>
        <p class="crumb"><a href="/ui/tags">Tags</a></p>
        <h1>${tag.name}</h1>
        <p class="lead">Points at ${pointsAt(tag.template_id, find)}.</p>
      </div>
      <div class="acts">
        <a class="btn primary" href="/ui/promote?tag=${tag.name}">Move</a>
        ${
          beforeOf(tag) === undefined
            ? html`<button type="button" class="btn" disabled>Roll back</button>
                <span class="sub">it has pointed nowhere else</span>`
            : confirmLink(`${path}/rollback`, "Roll back")
        }
        ${confirmLink(`${path}/delete`, "Delete", "danger")}
      </div>
    </div>
    ${tagHistory(tag, find, now)}
  </div>`;
};

export const tagPage = (tag: TagRecord, find: FindTemplate, now: number): Html =>
  html`${tagBody(tag, find, now)}
    <section class="card">
      <h2>From the command line</h2>
      ${commandBox(commandLines.promote(tag.name, "TEMPLATE", tag.template_id), "Move")}
      ${commandBox(commandLines.rollbackTag(tag.name, tag.template_id), "Back")}
      ${commandBox(commandLines.runSandbox(tag.name), "Run")}
    </section>`;

export interface PromoteForm {
  readonly tag: string;
  readonly template: string;
}

/** A GET form: the next page says what will happen, and only its button does it. */
export const promotePage = (
  { tag, template }: PromoteForm,
  known: readonly string[],
  problem: string,
): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/tags">Tags</a></p>
        <h1>Make a tag point at a template</h1>
      </div>
    </div>
    <form class="card form" method="get" action="/ui/promote">
      ${
        problem === ""
          ? nothing
          : html`<p class="problems" role="alert" id="promote-problem">${problem}</p>`
      }
      <div class="field">
        <label for="promote-tag">Tag</label
        ><input
          id="promote-tag"
          name="tag"
          value="${tag}"
          list="known-tags"
          required
          maxlength="64"
          spellcheck="false"
          autocapitalize="off"
          autocomplete="off"
          aria-describedby="h-promote-tag"
        />
        <p class="hint" id="h-promote-tag">
          Lower-case letters, digits and dashes; one that is there moves, another is made
        </p>
        <datalist id="known-tags">
          ${known.map((name) => html`<option value="${name}"></option>`)}
        </datalist>
      </div>
      <div class="field">
        <label for="promote-template">Template</label
        ><input
          id="promote-template"
          name="template"
          value="${template}"
          required
          maxlength="256"
          spellcheck="false"
          autocapitalize="off"
          autocomplete="off"
          aria-describedby="h-promote-template"
        />
        <p class="hint" id="h-promote-template">Its id or its name</p>
      </div>
      <div class="acts">
        <button type="submit" class="btn primary">Go on</button
        ><a class="btn" href="${template === "" ? "/ui/tags" : `/ui/templates/${template}`}"
          >Back</a
        >
      </div>
    </form>`;
