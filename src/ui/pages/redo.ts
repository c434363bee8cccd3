/** Which replicas to make anew: the choice before the confirmation. */
import { REDO_MODES } from "../../domain/index.ts";
import type { RedoMode, RedoPreview, TemplateInfo } from "../../domain/index.ts";
import { statusMark } from "../fragments/bits.ts";
import { count } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { MODE_WORDS, type NodeChoice, type RedoForm } from "../redo-models.ts";
import { templateName } from "../view-models.ts";

export interface RedoModel {
  readonly template: TemplateInfo;
  readonly form: RedoForm;
  readonly nodes: readonly NodeChoice[];
  /** What the modes without ticked nodes would do now, or why they cannot. */
  readonly all: RedoPreview | string;
  readonly failed: RedoPreview | string;
}

/** How many nodes it is, or why there is none. */
function about(mode: RedoMode, { all, failed }: RedoModel): string {
  const found = mode === "ALL" ? all : mode === "NODES" ? undefined : failed;
  if (found === undefined) return "";
  if (typeof found === "string") return found;
  return mode === "FAILED_NODES" ? "" : `${count(found.nodes.length, "node")} now.`;
}

function modeRow(mode: RedoMode, model: RedoModel): Html {
  const { form, failed } = model;
  const wantsFailed = mode === "FAILED_ONLY" || mode === "FAILED_NODES";
  const isClosed = wantsFailed && typeof failed === "string";
  const id = `mode-${mode}`;
  const said = about(mode, model);
  return html`<div class="pick">
    <input
      type="radio"
      name="redo_mode"
      id="${id}"
      value="${mode}"
      ${form.mode === mode && !isClosed ? html` checked` : nothing}
      ${isClosed ? html` disabled` : nothing}
    />
    <label for="${id}"
      >${MODE_WORDS[mode]} <code>${mode}</code>${
        said === "" ? nothing : html`<span class="hint"> ${said}</span>`
      }</label
    >
  </div>`;
}

const nodeRow = ({ nodeId, state, isOpen, isTicked }: NodeChoice): Html =>
  html`<div class="pick">
    <input
      type="checkbox"
      name="node"
      id="node-${nodeId}"
      value="${nodeId}"
      ${isTicked && isOpen ? html` checked` : nothing}
      ${isOpen ? nothing : html` disabled`}
    />
    <label for="node-${nodeId}">${nodeId} ${statusMark(state)}</label>
  </div>`;

/** A GET form: the next page says what will happen, and only its button does it. */
export function redoPage(model: RedoModel): Html {
  const { template, form, nodes, all } = model;
  const back = `/ui/templates/${template.template_id}`;
  return html`<div class="head">
      <div>
        <p class="crumb"><a href="${back}">${templateName(template)}</a></p>
        <h1>Make replicas anew</h1>
        <p class="lead">
          Redo boots the root filesystem again on each node and takes a new snapshot. What is there
          serves until the new one is ready.
        </p>
      </div>
    </div>
    ${
      typeof all === "string" && template.status !== "DELETING"
        ? html`<p class="notice warn" role="status">${all}</p>`
        : nothing
    }
    <form class="form card" method="get" action="${back}/redo/confirm">
      <fieldset>
        <legend>Where</legend>
        ${join(REDO_MODES.map((mode) => modeRow(mode, model)))}
      </fieldset>
      <fieldset>
        <legend>Nodes</legend>
        ${join(nodes.map(nodeRow))}
      </fieldset>
      <fieldset>
        <legend>What</legend>
        <div class="pick">
          <input
            type="checkbox"
            name="memory_only"
            id="memory-only"
            value="on"
            ${form.memoryOnly ? html` checked` : nothing}
          />
          <label for="memory-only"
            >Memory only<span class="hint">
              keep the root filesystem: fail rather than build it again</span
            ></label
          >
        </div>
      </fieldset>
      <div class="acts">
        <button type="submit" class="btn primary">Go on</button
        ><a class="btn" href="${back}">Keep as it is</a>
      </div>
    </form>`;
}

/** Credentials for a registry that has to be asked again; they go with the confirmation only. */
export const credentialFields: Html = html`<details id="redo-credentials">
  <summary>Registry credentials, for when the image has to be pulled again</summary>
  <div class="grid">
    <div class="field">
      <label for="redo-user">Registry user</label
      ><input id="redo-user" name="registry_username" autocomplete="off" />
    </div>
    <div class="field">
      <label for="redo-password">Registry password</label
      ><input
        id="redo-password"
        name="registry_password"
        type="password"
        autocomplete="new-password"
      />
    </div>
  </div>
</details>`;

/** The choice, carried through the confirmation. */
export const redoFields = ({ mode, nodes, memoryOnly }: RedoForm): Html =>
  html`<input type="hidden" name="redo_mode" value="${mode}" /><input
      type="hidden"
      name="nodes"
      value="${nodes.join(",")}"
    /><input type="hidden" name="memory_only" value="${memoryOnly ? "on" : ""}" />`;
