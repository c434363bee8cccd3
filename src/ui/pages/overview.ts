import type { ClusterView, Overview, TemplateInfo, JobInfo } from "../../domain/index.ts";
import { html, type Html } from "../html.ts";
import { healthStrip } from "../fragments/health-strip.ts";
import { nodeSentence } from "../view-models.ts";
import { activeJobs, attentionList, recentTemplates, tiles } from "../fragments/overview-parts.ts";

export const overviewPage = (
  overview: Overview,
  cluster: ClusterView,
  recent: readonly TemplateInfo[],
  jobOf: (template: TemplateInfo) => JobInfo | undefined,
  now: number,
): Html =>
  html`<div class="head">
      <div>
        <h1>Overview</h1>
        <p class="lead">${overview.node.node_id}. ${nodeSentence(overview.node)}</p>
      </div>
      <div class="acts"><a class="btn primary" href="/ui/templates/new">New template</a></div>
    </div>
    ${attentionList(overview, now)}${healthStrip(cluster, now)}${tiles(overview)}
    ${activeJobs(overview.active_jobs, now)}${recentTemplates(recent, jobOf, now)}`;
