import type { JobInfo, JobLogLine } from "../../domain/index.ts";
import { isActiveJob } from "../../domain/index.ts";
import { html, nothing, type Html } from "../html.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox } from "../fragments/bits.ts";
import { jobFacts, jobHead } from "../fragments/job-head.ts";
import { jobProgress } from "../fragments/job-progress.ts";
import { logView } from "../fragments/log-view.ts";

export const jobPage = (
  job: JobInfo,
  log: readonly JobLogLine[],
  older: string | undefined,
  now: number,
): Html =>
  html`${jobHead(job, now)}${jobProgress(job, now)}
    <section>${logView(log, older)}</section>
    <section class="split">
      <div class="card">
        <h2>Facts</h2>
        ${jobFacts(job, now)}
      </div>
      <div class="card">
        <h2>From the command line</h2>
        ${commandBox(commandLines.watch(job), "Follow")}
        ${isActiveJob(job) ? commandBox(commandLines.cancelJob(job.job_id), "Cancel") : nothing}
        ${commandBox(commandLines.jobs(), "List")}
      </div>
    </section>`;
