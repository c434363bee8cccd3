/** Templates by nodes: a table whose every cell says in letters and by its sign what it is. */
import type { TemplateCompatRow, TemplateNodeCompat } from "../../domain/index.ts";
import { cellReason, columnsOf, MEANINGS } from "../compat-models.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { icon } from "../icons.ts";
import { status } from "../status.ts";
import { templateName } from "../view-models.ts";
import { statusMark } from "./bits.ts";

/** So many columns have room for words; more get the words' first letters. */
const WORDY = 6;

export const compatHref = (templateId: string): string =>
  `/ui/compat/${encodeURIComponent(templateId)}`;

/** What is as it should be is no link: the row's head leads to all of it. */
function cell(row: TemplateCompatRow, one: TemplateNodeCompat | undefined, short: boolean): Html {
  if (one === undefined) return html`<td><span class="vh">not wanted here</span></td>`;
  const { word, tone, shape } = status(one.compat_status);
  const text = short && one.compat_status !== "OK" ? word.charAt(0) : word;
  if (one.compat_status === "OK") return html`<td class="${tone}">${icon(shape)}${text}</td>`;
  const href = `${compatHref(row.template_id)}#node-${one.node_id}`;
  return html`<td class="${tone}">
    <a href="${href}" aria-label="${word}" title="${cellReason(one)}">${icon(shape)}${text}</a>
  </td>`;
}

function head(node: string, rows: readonly TemplateCompatRow[]): Html {
  const isDown = rows.some((row) =>
    row.nodes.some(({ node_id, healthy }) => node_id === node && !healthy),
  );
  return html`<th scope="col">
    <a href="/ui/nodes/${node}">${node}</a
    >${isDown ? html` <span class="bad">down</span>` : nothing}
  </th>`;
}

/** Id rule: `heat-map`. */
export function heatMap(rows: readonly TemplateCompatRow[]): Html {
  const nodes = columnsOf(rows);
  const short = nodes.length > WORDY;
  return html`<div id="heat-map" class="tbl" role="region" aria-label="Compat matrix" tabindex="0">
    <table class="heat ${short ? "short" : ""}">
      <caption class="vh">
        Templates by nodes: does each replica fit what its node would boot now
      </caption>
      <thead>
        <tr>
          <th scope="col">Template</th>
          <th scope="col">Overall</th>
          ${join(nodes.map((node) => head(node, rows)))}
        </tr>
      </thead>
      <tbody>
        ${join(rows.map((row) => line(row, nodes, short)))}
      </tbody>
    </table>
  </div>`;
}

function line(row: TemplateCompatRow, nodes: readonly string[], short: boolean): Html {
  const cells = new Map(row.nodes.map((one) => [one.node_id, one]));
  return html`<tr>
    <th scope="row">
      <a class="row" href="${compatHref(row.template_id)}">${templateName(row)}</a>
      ${row.kind === "snapshot" ? html`<span class="sub">snapshot</span>` : nothing}
    </th>
    <td>${statusMark(status(row.overall))}</td>
    ${join(nodes.map((node) => cell(row, cells.get(node), short)))}
  </tr>`;
}

/** Id rule: `compat-legend`. What each word means. */
export const compatLegend = (): Html =>
  html`<section id="compat-legend" class="card">
    <h2>What the words mean</h2>
    <dl class="facts">
      ${join(
        Object.entries(MEANINGS).map(
          ([name, meaning]) =>
            html`<div id="means-${name}">
              <dt>${statusMark(status(name))}</dt>
              <dd>${meaning}</dd>
            </div>`,
        ),
      )}
      <div>
        <dt>(blank)</dt>
        <dd>The template is not for this node: another instance type, or out of its scope.</dd>
      </div>
    </dl>
  </section>`;
