import type { JobInfo, TemplateInfo } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { formatBytes, shortDigest } from "../format.ts";
import { status } from "../status.ts";
import type { LeaderView } from "../cluster-models.ts";
import { templateName, templateSentence } from "../view-models.ts";
import { confirmLink, copyable, facts, protectedMark, statusMark, timeAgo } from "./bits.ts";
import { labelLinks } from "./labels.ts";

/** Title of the page and of its tab. */
export const templateTitle = (template: TemplateInfo): string =>
  `${status(template.status).word}: ${templateName(template)}`;

function actions(template: TemplateInfo, job: JobInfo | undefined): Html {
  const base = `/ui/templates/${template.template_id}`;
  const ready = ["READY", "PARTIALLY_READY"].includes(template.status);
  const active = job !== undefined && isActiveJob(job);
  return join([
    ready ? confirmLink(`${base}/run`, "Run sandbox", "primary") : nothing,
    active && job.cancel_requested !== true
      ? confirmLink(`/ui/jobs/${job.job_id}/cancel`, "Cancel job", "danger")
      : nothing,
    active || template.status === "DELETING"
      ? nothing
      : html`<a class="btn" href="${base}/redo">Redo</a>`,
    ready ? confirmLink(`${base}/export`, "Export") : nothing,
    active || template.status === "DELETING"
      ? nothing
      : confirmLink(`${base}/delete`, "Delete", "danger"),
  ]);
}

/** Id rule: `template-head-TEMPLATE`. */
export function templateHead(template: TemplateInfo, job: JobInfo | undefined, now: number): Html {
  const state = status(template.status);
  return html`<div
    class="head"
    id="template-head-${template.template_id}"
    data-title="${templateTitle(template)}"
    data-tone="${state.tone}"
  >
    <div>
      <p class="crumb"><a href="/ui/templates">Templates</a></p>
      <h1>${templateName(template)} ${statusMark(state)} ${protectedMark(template)}</h1>
      <p class="lead">${templateSentence(template, job, now)}</p>
    </div>
    <div class="acts">${actions(template, job)}</div>
  </div>`;
}

/** A value, and the form that changes it. */
const editable = (value: Html | string, href: string, verb: string): Html =>
  html`<span class="edit">${value} ${confirmLink(href, verb, "small")}</span>`;

/** What an operator says of it, with the forms to say otherwise. */
export function editFacts(
  id: string,
  of: {
    readonly display_name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly protected: boolean;
  },
): [string, Html | undefined][] {
  const base = `/ui/templates/${id}`;
  const { labels } = of;
  return [
    ["Name", editable(of.display_name || "none", `${base}/rename`, "Rename")],
    [
      "Labels",
      labels &&
        editable(
          Object.keys(labels).length > 0 ? labelLinks(labels) : "none",
          `${base}/labels`,
          "Edit labels",
        ),
    ],
    [
      "Deletion",
      of.protected
        ? editable("protected", `${base}/unprotect`, "Unprotect")
        : editable("not protected", `${base}/protect`, "Protect"),
    ],
  ];
}

const leaderText = (leader: LeaderView, now: number): Html =>
  html`<a href="/ui/nodes/${leader.node_id}">${leader.node_id}</a>, epoch ${leader.epoch}, since
    ${timeAgo(leader.since, now)}`;

/** Id rule: `template-facts-TEMPLATE`. */
export const templateFacts = (
  template: TemplateInfo,
  leader: LeaderView | undefined,
  now: number,
): Html =>
  html`<div id="template-facts-${template.template_id}">
    ${facts([
      ["Template", copyable(template.template_id)],
      ...editFacts(template.template_id, template),
      ["Image", template.image_info === "" ? undefined : copyable(template.image_info)],
      [
        "Root filesystem",
        template.artifact_id === ""
          ? undefined
          : html`<a href="/ui/artifacts/${template.artifact_id}"
              ><code>${template.artifact_id}</code></a
            >`,
      ],
      [
        "Digest",
        template.artifact_digest === ""
          ? undefined
          : copyable(template.artifact_digest, shortDigest(template.artifact_digest)),
      ],
      ["Size", template.artifact_size_bytes > 0 ? formatBytes(template.artifact_size_bytes) : ""],
      [
        "Leader",
        leader === undefined ? "nobody now: there is no work on it" : leaderText(leader, now),
      ],
      ["Instance type", template.instance_type],
      ["Version", template.version],
      [
        "CubeEgress CA",
        template.cube_egress_ca_baked
          ? `baked into ${template.cube_egress_ca_targets_written} places`
          : "not baked",
      ],
      [
        "Last job",
        template.job_id === ""
          ? undefined
          : html`<a href="/ui/jobs/${template.job_id}"
              ><code>${template.job_id.slice(0, 8)}</code></a
            >`,
      ],
      ["Created", timeAgo(template.created_at, now)],
      ["Changed", timeAgo(template.updated_at, now)],
    ])}
  </div>`;
