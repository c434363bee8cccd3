import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { replicaViews, type Replicated } from "../view-models.ts";
import { confirmLink, emptyState, statusMark } from "./bits.ts";

function redoLink(template: string, node: string): Html {
  const query = new URLSearchParams({ redo_mode: "NODES", node }).toString();
  return confirmLink(`/ui/templates/${template}/redo/confirm?${query}`, `Redo on ${node}`, "small");
}

const whyLink = (template: string, node: string): Html =>
  confirmLink(
    `/ui/templates/${template}/why?${new URLSearchParams({ node }).toString()}`,
    "Why?",
    "small",
  );

/** Id rule: `replicas-TEMPLATE`. Goal and actual per node. */
export function replicaTable(template: Replicated): Html {
  const id = `replicas-${template.template_id}`;
  const views = replicaViews(template);
  if (views.length === 0) {
    return html`<div id="${id}">
      ${emptyState("No replicas yet", "Nodes get theirs when the root filesystem is built.")}
    </div>`;
  }
  return html`<div id="${id}" class="tbl">
    <table>
      <caption class="vh">
        Replicas: goal and actual of each node
      </caption>
      <thead>
        <tr>
          <th scope="col">Node</th>
          <th scope="col">Goal</th>
          <th scope="col">Actual</th>
          <th scope="col">Compat</th>
          <th scope="col">Bound versions and timings</th>
        </tr>
      </thead>
      <tbody>
        ${join(
          views.map(
            (view) =>
              html`<tr id="replica-${template.template_id}-${view.nodeId}">
                <th scope="row">
                  <a class="row" href="/ui/nodes/${view.nodeId}">${view.nodeId}</a>
                </th>
                <td>${view.goal}</td>
                <td>${statusMark(view.actual)}</td>
                <td>${statusMark(view.compat ?? status("UNKNOWN"))}</td>
                <td class="wide">
                  ${view.error === "" ? nothing : html`<span class="err">${view.error}</span>`}
                  ${view.isReady ? nothing : whyLink(template.template_id, view.nodeId)}
                  ${view.wantsRedo ? redoLink(template.template_id, view.nodeId) : nothing}
                  ${view.versions === "" ? nothing : html`<div>${view.versions}</div>`}
                  ${view.timings === "" ? nothing : html`<div class="sub">${view.timings}</div>`}
                </td>
              </tr>`,
          ),
        )}
      </tbody>
    </table>
  </div>`;
}
