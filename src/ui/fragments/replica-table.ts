import { isActiveJob, type JobInfo } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { replicaViews, type Replicated } from "../view-models.ts";
import { confirmLink, emptyState, statusMark } from "./bits.ts";

/** While a job works on the template there is no other: the button says which one. */
export function redoOnNode(
  template: string,
  node: string,
  job: JobInfo | undefined,
  kind = "",
): Html {
  const words = `Redo on ${node}`;
  if (job !== undefined && isActiveJob(job)) {
    return html`<button type="button" class="btn ${kind}" disabled>${words}</button>
      <span class="sub"
        >not while <a href="/ui/jobs/${job.job_id}">job ${job.job_id.slice(0, 8)}</a> is at work on
        it</span
      >`;
  }
  const query = new URLSearchParams({ redo_mode: "NODES", node }).toString();
  return confirmLink(`/ui/templates/${template}/redo/confirm?${query}`, words, kind);
}

const whyLink = (template: string, node: string): Html =>
  confirmLink(
    `/ui/templates/${template}/why?${new URLSearchParams({ node }).toString()}`,
    "Why?",
    "small",
  );

/**
 * Id rule: `replicas-TEMPLATE`. Goal and actual per node.
 * @param job the template's last one
 */
export function replicaTable(template: Replicated, job?: JobInfo): Html {
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
                  ${
                    view.wantsRedo
                      ? redoOnNode(template.template_id, view.nodeId, job, "small")
                      : nothing
                  }
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
