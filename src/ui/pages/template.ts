import type {
  LineageEntry,
  JobInfo,
  JobLogLine,
  SwarmView,
  TagRecord,
  TemplateInfo,
} from "../../domain/index.ts";
import { html, nothing, type Html } from "../html.ts";
import { commandLines } from "../command-lines.ts";
import type { LeaderView } from "../cluster-models.ts";
import { commandBox } from "../fragments/bits.ts";
import { jobProgress } from "../fragments/job-progress.ts";
import { logView } from "../fragments/log-view.ts";
import { lazy, onDemand } from "../fragments/why.ts";
import { lineageTree } from "../fragments/lineage-tree.ts";
import { replicaTable } from "../fragments/replica-table.ts";
import { templateTags } from "../fragments/tag-parts.ts";
import { templateSwarm } from "../fragments/swarm-bars.ts";
import { templateFacts, templateHead } from "../fragments/template-head.ts";
import type { FindTemplate } from "../tag-models.ts";

export interface TemplateModel {
  readonly template: TemplateInfo;
  readonly job: JobInfo | undefined;
  readonly log: readonly JobLogLine[];
  /** The stored create request, pretty-printed; blank before there is one. */
  readonly request: string;
  /** Undefined: nobody leads it now. */
  readonly leader: LeaderView | undefined;
  readonly tags: readonly TagRecord[];
  readonly find: FindTemplate;
  readonly swarms: readonly SwarmView[];
  /** The tree that it is in. */
  readonly lineage: readonly LineageEntry[];
  readonly now: number;
}

/** Asked at once where something is not as it should be, else when somebody wants to know. */
function whyBlock({ template_id: id, status }: TemplateInfo): Html {
  const isOff = status === "PARTIALLY_READY" || status === "FAILED";
  const words = "Why is it not ready on a node?";
  return (isOff ? lazy : onDemand)(`why-${id}`, `/ui/templates/${id}/why`, words);
}

export const templatePage = (model: TemplateModel): Html => {
  const { template, job, log, request, leader, swarms, lineage, now } = model;
  const base = `/ui/templates/${template.template_id}`;
  return html`${templateHead(template, job, now)}
    ${job === undefined ? nothing : jobProgress(job, now)} ${templateSwarm(template, job, swarms)}
    <section>
      <h2>Replicas</h2>
      ${replicaTable(template, job)} ${whyBlock(template)}
    </section>
    <section>
      <h2>Who uses it</h2>
      ${lazy(`refs-${template.template_id}`, `${base}/refs`, "See who uses it")}
    </section>
    <section>
      <h2>Tags</h2>
      ${templateTags(template, model.tags, model.find, now)}
    </section>
    ${lineageTree(template.template_id, lineage, now)}
    <section class="split">
      <div class="card">
        <h2>Facts</h2>
        ${templateFacts(template, leader, now)}
      </div>
      <div class="card">
        <h2>From the command line</h2>
        ${commandBox(commandLines.runSandbox(template.template_id), "Run")}
        ${commandBox(commandLines.template(template.template_id), "Show")}
        ${commandBox(commandLines.deleteTemplate(template.template_id), "Delete")}
        ${
          request === ""
            ? nothing
            : html`<details id="request">
                <summary>Create request</summary>
                <pre tabindex="0">${request}</pre>
              </details>`
        }
      </div>
    </section>
    ${job === undefined ? nothing : html`<section>${logView(log, undefined)}</section>`}`;
};
