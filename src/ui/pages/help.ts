import { html, join, type Html } from "../html.ts";
import { icon } from "../icons.ts";
import { formFields, type PageContext } from "../layout.ts";
import { LEGEND } from "../status.ts";

const KEYS: readonly (readonly [string, string])[] = [
  ["/", "go to the filter"],
  [
    "g then o, t, j, n, c, m, s, h",
    "overview, templates, jobs, nodes, cluster, compat, storage, help",
  ],
  ["j and k", "next and previous row"],
  ["Enter", "open the row"],
  ["p", "pause and resume live updates"],
  ["?", "this page"],
];

const select = (name: string, label: string, values: readonly string[], chosen: string): Html =>
  html`<div class="field">
    <label for="s-${name}">${label}</label>
    <select id="s-${name}" name="${name}">
      ${join(
        values.map((value) =>
          value === chosen
            ? html`<option selected>${value}</option>`
            : html`<option>${value}</option>`,
        ),
      )}
    </select>
  </div>`;

export const helpPage = (page: PageContext): Html =>
  html`<div class="head">
      <div><h1>Settings and help</h1></div>
    </div>
    <div class="split">
      <form class="card form" method="post" action="/ui/settings">
        <h2>Settings of this browser</h2>
        ${formFields(page)}${select(
          "theme",
          "Theme",
          ["auto", "light", "dark"],
          page.settings.theme,
        )}${select(
          "density",
          "Density",
          ["comfortable", "compact"],
          page.settings.density,
        )}${select("shortcuts", "Keyboard shortcuts", ["on", "off"], page.settings.shortcuts)}
        <div class="acts"><button type="submit" class="btn primary">Save</button></div>
      </form>
      <div class="card">
        <h2>Keyboard</h2>
        <dl class="facts">
          ${join(
            KEYS.map(
              ([key, does]) =>
                html`<div>
                  <dt><kbd>${key}</kbd></dt>
                  <dd>${does}</dd>
                </div>`,
            ),
          )}
        </dl>
        <h2>Status</h2>
        <ul class="legend">
          ${join(
            LEGEND.map(
              (entry) =>
                html`<li>
                  <span class="st ${entry.tone}">${icon(entry.shape)}</span> ${entry.words}
                </li>`,
            ),
          )}
        </ul>
      </div>
    </div>`;
