import { html, nothing, type Html } from "../html.ts";
import { adviceFor } from "../view-models.ts";
import { copyable, facts } from "../fragments/bits.ts";

export interface Problem {
  readonly title: string;
  readonly detail: string;
  readonly code: string;
  readonly status: number;
  readonly requestId: string;
}

export const problemPage = (problem: Problem): Html =>
  html`<section class="card problem" id="confirm">
    <p class="crumb">${problem.status}</p>
    <h1 id="confirm-title">${problem.title}</h1>
    <p class="lead">${problem.detail}</p>
    <p><b>What to try</b> ${adviceFor(problem.code)}</p>
    ${facts([
      ["Code", copyable(problem.code)],
      ["Request", copyable(problem.requestId)],
    ])}
    <p class="acts">
      ${
        problem.code === "unauthorized"
          ? html`<a class="btn primary" href="/ui/sign-in">Sign in</a>`
          : nothing
      }<a class="btn" href="/ui/">Overview</a>
    </p>
  </section>`;
