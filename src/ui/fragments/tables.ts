/** Tables of rows; the rows have the ids. */
import type { JobInfo, TemplateInfo } from "../../domain/index.ts";
import { html, join, type Html } from "../html.ts";
import { jobRow } from "./job-row.ts";
import { templateRow } from "./template-row.ts";

const heads = (names: readonly string[]): Html =>
  html`<thead>
    <tr>
      ${join(names.map((name) => html`<th scope="col">${name}</th>`))}
    </tr>
  </thead>`;

/** A table that scrolls by itself where it is too wide. */
export const table = (caption: string, names: readonly string[], rows: readonly Html[]): Html =>
  html`<div class="tbl" tabindex="0" role="group" aria-label="${caption}">
    <table class="rows">
      <caption class="vh">
        ${caption}
      </caption>
      ${heads(names)}
      <tbody>
        ${join(rows)}
      </tbody>
    </table>
  </div>`;

export const templateTable = (
  templates: readonly TemplateInfo[],
  jobOf: (template: TemplateInfo) => JobInfo | undefined,
  now: number,
): Html =>
  html`<div class="tbl">
    <table class="rows">
      <caption class="vh">
        Templates
      </caption>
      ${heads(["Status", "Template", "Image", "Replicas", "Size", "Changed"])}
      <tbody>
        ${join(templates.map((template) => templateRow(template, jobOf(template), now)))}
      </tbody>
    </table>
  </div>`;

export const jobTable = (jobs: readonly JobInfo[], now: number): Html =>
  html`<div class="tbl">
    <table class="rows">
      <caption class="vh">
        Jobs
      </caption>
      ${heads(["Status", "Job", "Image", "Progress or outcome", "Took", "Started"])}
      <tbody>
        ${join(jobs.map((job) => jobRow(job, now)))}
      </tbody>
    </table>
  </div>`;
