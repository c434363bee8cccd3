import type { JobInfo, Overview, TemplateInfo } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { icon } from "../icons.ts";
import { countsText, storageText, sum } from "../view-models.ts";
import { nodeStatus } from "../status.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox, emptyState, statusMark, tile, timeAgo } from "./bits.ts";
import { jobTable, templateTable } from "./tables.ts";

/** Id rule: `tiles`. The four numbers of the overview, each a link to its list. */
export function tiles(overview: Overview): Html {
  const { node } = overview;
  const running = overview.active_jobs.length;
  const total = sum(overview.templates);
  return html`<div class="tiles" id="tiles">
    ${join([
      tile(
        "/ui/templates",
        "Templates",
        String(total),
        countsText(overview.templates) || "none yet",
      ),
      tile("/ui/jobs", "Running jobs", String(running), countsText(overview.jobs) || "none yet"),
      tile(
        `/ui/nodes/${node.node_id}`,
        "Sandboxes",
        String(overview.sandboxes),
        `driver ${node.driver}`,
      ),
      tile(
        `/ui/nodes/${node.node_id}`,
        "Node",
        statusMark(nodeStatus(node)),
        html`<meter
            min="0"
            max="100"
            high="85"
            value="${Math.round(node.storage.usage_pct)}"
            aria-label="Disk used"
          ></meter
          >${storageText(node)}`,
      ),
    ])}
  </div>`;
}

const HREFS = { template: "/ui/templates/", job: "/ui/jobs/", node: "/ui/nodes/" } as const;

const attentionHref = ({ kind, subject }: Overview["attention"][number]): string =>
  kind === "cluster" || kind === "compat" ? `/ui/${kind}` : `${HREFS[kind]}${subject}`;

/** Id rule: `attention`. What needs an operator: what, since when, why, what is being done. */
export function attentionList(overview: Overview, now: number): Html {
  if (overview.attention.length === 0) {
    return html`<p id="attention" class="calm">${icon("ready")} Nothing needs you.</p>`;
  }
  return html`<section id="attention" class="attention" aria-labelledby="attention-title">
    <h2 id="attention-title">Needs you</h2>
    <ul>
      ${join(
        overview.attention.map(
          (entry) =>
            html`<li>
              ${icon("failed")}
              <div>
                <a href="${attentionHref(entry)}">${entry.subject}</a>
                <span class="sub"
                  >${entry.kind}${entry.since === "" ? nothing : html` · ${timeAgo(entry.since, now)}`}</span
                >
                <p>${entry.why}</p>
                <p class="sub">${entry.next}</p>
              </div>
            </li>`,
        ),
      )}
    </ul>
  </section>`;
}

/** Id rule: `active-jobs`. */
export const activeJobs = (jobs: readonly JobInfo[], now: number): Html =>
  html`<section id="active-jobs">
    <h2>Running jobs</h2>
    ${
      jobs.length === 0
        ? html`<p class="dim">No job runs. <a href="/ui/jobs">See ended jobs</a></p>`
        : jobTable(jobs, now)
    }
  </section>`;

/** Id rule: `recent-templates`. */
export function recentTemplates(
  templates: readonly TemplateInfo[],
  jobOf: (template: TemplateInfo) => JobInfo | undefined,
  now: number,
): Html {
  return html`<section id="recent-templates">
    <h2>Templates, last changed first</h2>
    ${templates.length === 0 ? noTemplates() : templateTable(templates, jobOf, now)}
  </section>`;
}

/** What a template is, and the two ways to make the first one. */
export const noTemplates = (): Html =>
  emptyState(
    "No templates yet",
    "A template is an OCI image made into a root filesystem, booted once and snapshotted.",
    html`<p><a class="btn primary" href="/ui/templates/new">New template</a></p>
      ${commandBox(commandLines.create(), "Or")}`,
  );
