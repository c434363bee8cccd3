import type { JobInfo, TemplateInfo } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { icon } from "../icons.ts";
import { formatBytes } from "../format.ts";
import { status } from "../status.ts";
import { replicaCounts, replicaViews, templateName } from "../view-models.ts";
import { statusMark, timeAgo } from "./bits.ts";
import { labelLinks } from "./labels.ts";
import { progressBar } from "./job-progress.ts";

/** `7/8` and one shape per node, up to eight of them. */
function replicaStrip(template: TemplateInfo): Html {
  const { ready, wanted } = replicaCounts(template);
  if (wanted === 0) return html`<span class="dim">–</span>`;
  const shapes = replicaViews(template).slice(0, 8);
  return html`<span class="strip"
    >${ready}/${wanted}${join(
      shapes.map((view) => html`<i class="${view.actual.tone}">${icon(view.actual.shape)}</i>`),
    )}</span
  >`;
}

/** Id rule: `template-row-TEMPLATE`. */
export const templateRow = (template: TemplateInfo, job: JobInfo | undefined, now: number): Html =>
  html`<tr id="template-row-${template.template_id}">
    <td>${statusMark(status(template.status))}</td>
    <th scope="row">
      <a class="row" href="/ui/templates/${template.template_id}">${templateName(template)}</a>
      ${template.display_name === "" ? nothing : html`<span class="sub">${template.template_id}</span>`}
      ${Object.keys(template.labels).length === 0 ? nothing : labelLinks(template.labels, 3)}
    </th>
    <td>
      ${
        job !== undefined && isActiveJob(job)
          ? progressBar(job)
          : html`<span class="clip" title="${template.image_info}">${template.image_info}</span>`
      }
    </td>
    <td>${replicaStrip(template)}</td>
    <td class="num">
      ${template.artifact_size_bytes > 0 ? formatBytes(template.artifact_size_bytes) : "–"}
    </td>
    <td class="num">${timeAgo(template.updated_at, now)}</td>
  </tr>`;
