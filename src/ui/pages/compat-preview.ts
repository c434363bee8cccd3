/** What an upgrade would break: a form, and the answer to it. */
import type { CompatPreview } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { previewNotes, previewSentence } from "../compat-models.ts";
import { commandBox, statusMark } from "../fragments/bits.ts";
import { compatHref } from "../fragments/heat-map.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { templateName } from "../view-models.ts";

export const UPGRADE_FIELDS = ["guest_image", "agent", "kernel", "extra"] as const;
export type UpgradeForm = Readonly<Record<(typeof UPGRADE_FIELDS)[number], string>>;

export interface UpgradeView {
  readonly form: UpgradeForm;
  /** What this node has now, as an example. */
  readonly now: UpgradeForm;
  readonly preview?: CompatPreview;
  readonly problem?: string;
}

export const LABELS: UpgradeForm = {
  guest_image: "Guest image",
  agent: "Agent",
  kernel: "Kernel",
  extra: "What the driver reports besides",
};
const LISTED = 200;

/** Id rule: `upgrade`. Nothing is changed by asking. */
export const upgradeSection = (view: UpgradeView): Html =>
  html`<section id="upgrade" class="card">
    <h2>What would an upgrade break?</h2>
    <form
      class="form"
      method="get"
      action="/ui/compat/preview"
      hx-get="/ui/compat/preview"
      hx-target="#upgrade"
      hx-select="#upgrade"
      hx-swap="outerMorph"
    >
      ${view.problem === undefined ? nothing : html`<p class="err" role="alert">${view.problem}</p>`}
      <div class="grid">${join(UPGRADE_FIELDS.map((name) => field(name, view)))}</div>
      <div class="acts"><button type="submit" class="btn primary">Preview</button></div>
    </form>
    ${view.preview === undefined ? nothing : answer(view.preview, view.form)}
  </section>`;

function field(name: keyof UpgradeForm, { form, now }: UpgradeView): Html {
  const hint =
    name === "extra"
      ? `NAME=VERSION, with commas between; here ${now.extra || "nothing"}`
      : `As now where left out; here ${now[name] || "not known"}`;
  return html`<div class="field">
    <label for="u-${name}">${LABELS[name]}</label>
    <input
      type="text"
      id="u-${name}"
      name="${name}"
      value="${form[name]}"
      aria-describedby="uh-${name}"
      autocomplete="off"
      spellcheck="false"
    />
    <p class="hint" id="uh-${name}">${hint}</p>
  </div>`;
}

function answer(preview: CompatPreview, form: UpgradeForm): Html {
  const { templates } = preview;
  const notes = previewNotes(preview);
  return html`<div role="status" class="calm">
      <p><b>${previewSentence(preview)}</b></p>
      ${join(notes.map((note) => html`<p class="sub">${note}</p>`))}
    </div>
    ${templates.length === 0 ? nothing : table(preview)} ${commandBox(commandLines.upgrade(form))}`;
}

const table = ({ templates }: CompatPreview): Html =>
  html`<div class="tbl" role="region" aria-label="What would become stale" tabindex="0">
      <table>
        <caption class="vh">
          Templates with replicas that would become stale
        </caption>
        <thead>
          <tr>
            <th scope="col">Template</th>
            <th scope="col">Would be</th>
            <th scope="col">Stale on</th>
          </tr>
        </thead>
        <tbody>
          ${join(
            templates.slice(0, LISTED).map(
              (one) =>
                html`<tr>
                  <th scope="row">
                    <a href="${compatHref(one.template_id)}">${templateName(one)}</a>
                  </th>
                  <td>
                    ${
                      one.is_unusable
                        ? statusMark({ ...status("FAILED"), word: "Unusable" })
                        : statusMark(status("STALE"))
                    }
                  </td>
                  <td class="wide">${one.nodes.join(", ")}</td>
                </tr>`,
            ),
          )}
        </tbody>
      </table>
    </div>
    ${templates.length > LISTED ? html`<p>And ${templates.length - LISTED} more.</p>` : nothing}`;

export const upgradePage = (view: UpgradeView): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/compat">Compat</a></p>
        <h1>Preview of an upgrade</h1>
        <p class="lead">
          Nothing is changed: the replicas of today are held against these versions.
        </p>
      </div>
    </div>
    ${upgradeSection(view)}`;
