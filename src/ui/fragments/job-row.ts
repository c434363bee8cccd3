import type { JobInfo } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, type Html } from "../html.ts";
import { formatDuration, parseTime } from "../format.ts";
import { sentenceCase, status } from "../status.ts";
import { phaseWord } from "../view-models.ts";
import { statusMark, timeAgo } from "./bits.ts";
import { progressBar } from "./job-progress.ts";

/** How long it took, or has taken so far. */
function tookCell(job: JobInfo, now: number): Html {
  const start = parseTime(job.created_at) ?? now;
  const text = formatDuration(Math.max(0, (parseTime(job.ended_at) ?? now) - start));
  return isActiveJob(job)
    ? html`<span data-since="${job.created_at}">${text}</span>`
    : html`${text}`;
}

function outcome(job: JobInfo): Html {
  if (isActiveJob(job)) return progressBar(job);
  return job.status === "READY"
    ? html`<span class="dim">${job.ready_node_count} of ${job.expected_node_count} ready</span>`
    : html`<span class="clip" title="${job.error_message}"
        >${phaseWord(job.phase)}: ${job.error_message}</span
      >`;
}

/** Id rule: `job-row-JOB`. */
export const jobRow = (job: JobInfo, now: number): Html =>
  html`<tr id="job-row-${job.job_id}">
    <td>${statusMark(status(job.status))}</td>
    <th scope="row">
      <a class="row" href="/ui/jobs/${job.job_id}"><code>${job.job_id.slice(0, 8)}</code></a>
      <span class="sub">${sentenceCase(job.operation)}</span>
    </th>
    <td>
      <span class="clip" title="${job.source_image_ref ?? ""}">${job.source_image_ref ?? "–"}</span>
    </td>
    <td class="wide">${outcome(job)}</td>
    <td class="num">${tookCell(job, now)}</td>
    <td class="num">${timeAgo(job.created_at, now)}</td>
  </tr>`;
