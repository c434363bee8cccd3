/** Compat of one template: what each node has, what it would need, and what can be done. */
import type { TemplateCompatRow, TemplateNodeCompat } from "../../domain/index.ts";
import { MEANINGS, adoptPlan, deltaText, resnapshotPlan } from "../compat-models.ts";
import { confirmLink, emptyState, statusMark } from "../fragments/bits.ts";
import { compatHref, compatLegend } from "../fragments/heat-map.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { templateName } from "../view-models.ts";

/** @param drained nodes that take no new work */
export function compatRowPage(row: TemplateCompatRow, drained: ReadonlySet<string>): Html {
  const href = compatHref(row.template_id);
  const isOffered = (plan: { readonly blocked?: string }) => plan.blocked === undefined;
  return html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/compat">Compat</a></p>
        <h1>${templateName(row)} ${statusMark(status(row.overall))}</h1>
        <p class="lead">${MEANINGS[row.overall]}</p>
      </div>
      <div class="acts">
        ${
          isOffered(resnapshotPlan(row, drained))
            ? confirmLink(`${href}/resnapshot`, "Make stale ones again", "primary")
            : nothing
        }
        ${isOffered(adoptPlan(row)) ? confirmLink(`${href}/adopt`, "Adopt baseline") : nothing}
        ${
          row.kind === "template"
            ? html`<a class="btn" href="/ui/templates/${row.template_id}">Template</a>`
            : html`<a class="btn" href="/ui/snapshots/${row.template_id}">Snapshot</a>`
        }
      </div>
    </div>
    ${row.nodes.length === 0 ? none() : table(row)}
    <section>${compatLegend()}</section>`;
}

const none = (): Html =>
  emptyState("No node", "No healthy node is to hold it, and no node has a ready replica of it.");

/** Id rule: `compat-row`; its lines are `node-NODE`. */
const table = (row: TemplateCompatRow): Html =>
  html`<div id="compat-row" class="tbl" role="region" aria-label="Nodes" tabindex="0">
    <table>
      <caption class="vh">
        Compat of the template on each node
      </caption>
      <thead>
        <tr>
          <th scope="col">Node</th>
          <th scope="col">Compat</th>
          <th scope="col">Made with → would boot now</th>
          <th scope="col">Compared</th>
        </tr>
      </thead>
      <tbody>
        ${join(row.nodes.map(line))}
      </tbody>
    </table>
  </div>`;

const line = (cell: TemplateNodeCompat): Html =>
  html`<tr id="node-${cell.node_id}">
    <th scope="row">
      <a class="row" href="/ui/nodes/${cell.node_id}">${cell.node_id}</a>
      ${cell.healthy ? nothing : html`<span class="sub">down: as it was seen last</span>`}
    </th>
    <td>${statusMark(status(cell.compat_status))}</td>
    <td class="wide">${cell.compat_status === "MISSING" ? "No ready replica" : versions(cell)}</td>
    <td>
      ${
        cell.compat_policy === "STRICT"
          ? "Guest image, agent, and what the driver reports besides"
          : "Guest image"
      }
    </td>
  </tr>`;

function versions(cell: TemplateNodeCompat): Html {
  const same = `guest image ${cell.bound_guest_image_version}, agent ${cell.bound_agent_version}`;
  if (cell.deltas.length === 0) return html`The same: ${same}`;
  return html`${join(
    cell.deltas.map(
      (delta) =>
        html`<div>
          ${deltaText(delta)}${delta.is_stale ? html` <b class="warn">stale by this</b>` : nothing}
        </div>`,
    ),
  )}`;
}
