import type { JobInfo } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, nothing, type Html } from "../html.ts";
import { formatBytes, shortDigest } from "../format.ts";
import { sentenceCase, status } from "../status.ts";
import { jobSentence } from "../view-models.ts";
import { confirmLink, copyable, facts, statusMark, timeAgo } from "./bits.ts";

/** Title of the page and of its tab. */
export const jobTitle = (job: JobInfo): string =>
  `${status(job.status).word}: job ${job.job_id.slice(0, 8)}`;

/** Id rule: `job-head-JOB`. */
export const jobHead = (job: JobInfo, now: number): Html => {
  const state = status(job.status);
  return html`<div
    class="head"
    id="job-head-${job.job_id}"
    data-title="${jobTitle(job)}"
    data-tone="${state.tone}"
  >
    <div>
      <p class="crumb"><a href="/ui/jobs">Jobs</a></p>
      <h1>${sentenceCase(job.operation)} job ${job.job_id.slice(0, 8)} ${statusMark(state)}</h1>
      <p class="lead">${jobSentence(job, now)}</p>
    </div>
    <div class="acts">
      ${
        isActiveJob(job) && job.cancel_requested !== true
          ? confirmLink(`/ui/jobs/${job.job_id}/cancel`, "Cancel job", "danger")
          : nothing
      }
    </div>
  </div>`;
};

/** Id rule: `job-facts-JOB`. */
export const jobFacts = (job: JobInfo, now: number): Html =>
  html`<div id="job-facts-${job.job_id}">
    ${facts([
      ["Job", copyable(job.job_id)],
      [
        "Template",
        html`<a href="/ui/templates/${job.template_id}"><code>${job.template_id}</code></a>`,
      ],
      ["Image", job.source_image_ref],
      [
        "Image digest",
        job.source_image_digest
          ? copyable(job.source_image_digest, shortDigest(job.source_image_digest))
          : undefined,
      ],
      ["Writable layer", job.writable_layer_size],
      ["Attempt", `${job.attempt_no}${job.runs > 1 ? `, taken up ${job.runs} times` : ""}`],
      ["Downloaded", job.pull_downloaded_bytes > 0 ? formatBytes(job.pull_downloaded_bytes) : ""],
      ["Entries", job.entries > 0 ? String(job.entries) : undefined],
      ["Written", job.written_bytes > 0 ? formatBytes(job.written_bytes) : undefined],
      [
        "Fingerprint",
        job.template_spec_fingerprint
          ? copyable(job.template_spec_fingerprint, job.template_spec_fingerprint.slice(0, 16))
          : undefined,
      ],
      ["Started", timeAgo(job.created_at, now)],
      ["Ended", job.ended_at === undefined ? undefined : timeAgo(job.ended_at, now)],
      ["Deadline", isActiveJob(job) ? job.deadline_at.slice(0, 19).replace("T", " ") : undefined],
      ["Request", copyable(job.request_id)],
    ])}
  </div>`;
