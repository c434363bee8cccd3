/** The two filtered lists. Each refetches itself, with its own filter, when it is told to. */
import { JOB_STATUSES, TEMPLATE_STATUSES } from "../../domain/index.ts";
import type { JobInfo, Page, TemplateInfo } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox, emptyState } from "../fragments/bits.ts";
import { noTemplates } from "../fragments/overview-parts.ts";
import { jobTable, templateTable } from "../fragments/tables.ts";

export interface ListFilter {
  readonly text: string;
  readonly status: string;
  /** `KEY` or `KEY=VALUE`; blank: any. */
  readonly label: string;
  /** The page's own address with its query. */
  readonly path: string;
}

export const options = (states: readonly string[], chosen: string): Html =>
  join(
    states.map((state) =>
      state === chosen
        ? html`<option value="${state}" selected>${status(state).word}</option>`
        : html`<option value="${state}">${status(state).word}</option>`,
    ),
  );

const searchBox = (text: string): Html =>
  html`<label for="filter" class="vh">Name, id or image</label
    ><input
      type="search"
      id="filter"
      name="text"
      value="${text}"
      placeholder="Name, id or image"
      autocomplete="off"
    />`;

const labelBox = (label: string): Html =>
  html`<label for="label" class="vh">Label: key or key=value</label
    ><input
      type="search"
      id="label"
      name="label"
      value="${label}"
      placeholder="Label: key or key=value"
      autocomplete="off"
    />`;

/** A GET form; with script it filters while one types. */
export const filterForm = (
  action: string,
  target: string,
  fields: Html,
  filtered: boolean,
  trigger = "change, submit",
): Html =>
  html`<form
    class="filter"
    role="search"
    method="get"
    action="${action}"
    hx-get="${action}"
    hx-trigger="${trigger}"
    hx-push-url="true"
    hx-target="#${target}"
    hx-select="#${target}"
    hx-swap="outerMorph"
    hx-sync="this:replace"
  >
    ${fields}<button type="submit" class="btn">Filter</button>${
      filtered ? html`<a href="${action}">Clear</a>` : nothing
    }
  </form>`;

export const pager = (path: string, next: string | undefined): Html => {
  if (next === undefined) return nothing;
  const url = new URL(path, "http://page");
  url.searchParams.set("next_token", next);
  return html`<p class="pager"><a href="${url.pathname + url.search}">Next page</a></p>`;
};

export const block = (id: string, event: string, path: string, content: Html): Html =>
  html`<div
    id="${id}"
    hx-get="${path}"
    hx-trigger="${event} from:body"
    hx-select="#${id}"
    hx-target="#${id}"
    hx-swap="outerMorph"
  >
    ${content}
  </div>`;

const noMatch = (action: string): Html =>
  emptyState("Nothing matches", "No entry has all of what the filter asks for.", clearLink(action));
const clearLink = (action: string): Html => html`<p><a href="${action}">Clear the filter</a></p>`;

export function templatesPage(
  page: Page<TemplateInfo>,
  jobOf: (template: TemplateInfo) => JobInfo | undefined,
  filter: ListFilter,
  now: number,
): Html {
  const filtered = filter.text !== "" || filter.status !== "" || filter.label !== "";
  const content =
    page.items.length > 0
      ? join([templateTable(page.items, jobOf, now), pager(filter.path, page.next_token)])
      : filtered
        ? noMatch("/ui/templates")
        : noTemplates();
  const states = html`<label for="state" class="vh">Status</label
    ><select id="state" name="status">
      <option value="">Any status</option>
      ${options(TEMPLATE_STATUSES, filter.status)}
    </select>`;
  return html`<div class="head">
      <div><h1>Templates</h1></div>
      <div class="acts">
        <a class="btn primary" href="/ui/templates/new">New template</a
        ><a class="btn" href="/ui/import">Import</a><a class="btn" href="/ui/tags">Tags</a>
      </div>
    </div>
    ${filterForm(
      "/ui/templates",
      "templates",
      join([searchBox(filter.text), labelBox(filter.label), states]),
      filtered,
      "input changed delay:250ms from:find input, change, submit",
    )}
    ${block("templates", "templates-changed", filter.path, content)}`;
}

export function jobsPage(page: Page<JobInfo>, filter: ListFilter, now: number): Html {
  const filtered = filter.status !== "";
  const empty = filtered
    ? noMatch("/ui/jobs")
    : emptyState(
        "No jobs yet",
        "A job is the work of making a template. Ended jobs stay here for a while.",
        commandBox(commandLines.create(), "Start one"),
      );
  const content =
    page.items.length === 0
      ? empty
      : join([jobTable(page.items, now), pager(filter.path, page.next_token)]);
  const states = html`<label for="state" class="vh">Status</label
    ><select id="state" name="status">
      <option value="">Any status</option>
      ${options(JOB_STATUSES, filter.status)}
    </select>`;
  return html`<div class="head">
      <div><h1>Jobs</h1></div>
    </div>
    ${filterForm("/ui/jobs", "jobs", states, filtered)}
    ${block("jobs", "jobs-changed", filter.path, content)}`;
}
