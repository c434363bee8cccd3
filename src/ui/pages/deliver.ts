/** Which nodes shall get a snapshot: the fields of its confirmation. */
import { statusMark } from "../fragments/bits.ts";
import { html, join, type Html } from "../html.ts";
import type { NodeChoice } from "../redo-models.ts";
import { TO_ALL, toField } from "../snapshot-models.ts";

const tick = (name: string, label: Html | string, isOpen: boolean): Html =>
  html`<div class="pick">
    <input
      type="checkbox"
      name="${name}"
      id="${name}"
      value="on"
      ${isOpen ? "" : html` disabled`}
    />
    <label for="${name}">${label}</label>
  </div>`;

export const deliverFields = (choices: readonly NodeChoice[]): Html =>
  html`<fieldset>
    <legend>To</legend>
    ${tick(TO_ALL, "Every node that it fits", true)}
    ${join(
      choices.map(({ nodeId, state, isOpen }) =>
        tick(toField(nodeId), html`${nodeId} ${statusMark(state)}`, isOpen),
      ),
    )}
  </fieldset>`;
