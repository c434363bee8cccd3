import type { JobInfo, SwarmView, TemplateInfo } from "../../domain/index.ts";
import { isSpreading, shareViews, swarmSentence, type ShareView } from "../cluster-models.ts";
import { html, join, nothing, type Html } from "../html.ts";

const bar = (share: ShareView): Html =>
  html`<li>
    <span
      ><a href="/ui/nodes/${share.nodeId}">${share.nodeId}</a>${
        share.isBuilder ? html`<span class="sub"> builder</span>` : nothing
      }</span
    >
    <progress
      max="100"
      value="${share.percent}"
      aria-label="Share that ${share.nodeId} holds"
    ></progress>
    <span>${share.percent} %</span>
    <span class="sub">${share.text}</span>
  </li>`;

/** One bar per node: how much it holds, and from where. */
export const shareBars = (
  swarm: SwarmView,
  wanted: readonly string[],
  builder: string | undefined,
): Html => {
  const shares = shareViews(swarm, wanted, builder);
  return html`<p class="dim">${swarmSentence(swarm, shares)}</p>
    <ul class="shares">
      ${join(shares.map(bar))}
    </ul>`;
};

/** Id rule: `swarm-TEMPLATE`. The distribution of the template's artifact, while there is one. */
export function templateSwarm(
  template: TemplateInfo,
  job: JobInfo | undefined,
  swarms: readonly SwarmView[],
): Html {
  const id = `swarm-${template.template_id}`;
  const swarm = swarms.find((one) => one.artifact_id === template.artifact_id);
  const wanted = template.status === "DELETING" ? [] : template.desired_nodes;
  const isLacking = (nodeId: string) =>
    swarm?.nodes.some((node) => node.node_id === nodeId && node.complete) !== true;
  if (swarm === undefined || !(isSpreading(swarm) || wanted.some(isLacking))) {
    return html`<section id="${id}" hidden></section>`;
  }
  return html`<section id="${id}">
    <h2>Distribution</h2>
    <div class="card">${shareBars(swarm, wanted, job?.worked_by)}</div>
  </section>`;
}
