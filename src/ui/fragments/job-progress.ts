import type { JobInfo } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { icon, type IconName } from "../icons.ts";
import { jobNext, phaseSteps, progressText, type PhaseStep } from "../view-models.ts";
import { status } from "../status.ts";

const STEP_ICONS: Readonly<Record<PhaseStep["state"], IconName>> = {
  done: "ready",
  now: "building",
  failed: "failed",
  waiting: "waiting",
  skipped: "missing",
};
const STEP_WORDS: Readonly<Record<PhaseStep["state"], string>> = {
  done: "done",
  now: "now",
  failed: "failed",
  waiting: "to come",
  skipped: "skipped",
};

function step(entry: PhaseStep): Html {
  const time =
    entry.since === undefined
      ? html`<span class="d">${entry.duration}</span>`
      : html`<span class="d" data-since="${entry.since}">${entry.duration}</span>`;
  const share = entry.share > 0 && entry.state === "done" ? `${entry.share} % of the time` : "";
  return html`<li class="${entry.state}" title="${share}">
    ${icon(STEP_ICONS[entry.state])}<span class="w">${entry.word}</span
    ><span class="vh">${STEP_WORDS[entry.state]}</span>${time}
  </li>`;
}

/** Progress bar with its text, without the phases; for rows. */
export const progressBar = (job: JobInfo): Html =>
  html`<div class="prog ${status(job.status).tone}">
    <progress max="100" value="${Math.floor(job.progress)}" aria-label="Progress"></progress
    ><span>${progressText(job)}</span>
  </div>`;

/** Id rule: `progress-JOB`. Phases with durations, the bar, and what happens next. */
export const jobProgress = (job: JobInfo, now: number): Html =>
  html`<div class="card progress" id="progress-${job.job_id}">
    ${job.status === "READY" ? nothing : progressBar(job)}
    <ol class="phases" aria-label="Phases">
      ${join(phaseSteps(job, now).map(step))}
    </ol>
    <p class="next">${isActiveJob(job) ? nothing : html`<b>Next</b> `}${jobNext(job)}</p>
  </div>`;
