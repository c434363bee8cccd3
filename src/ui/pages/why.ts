import { html, type Html } from "../html.ts";

/** One answer as a page of its own; with script its piece alone is taken. */
export const answerPage = (
  title: string,
  back: { readonly href: string; readonly name: string },
  content: Html,
): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="${back.href}">${back.name}</a></p>
        <h1>${title}</h1>
      </div>
    </div>
    ${content}`;

/** Why one node is not ready, also in a dialog. */
export const nodeWhyPage = (
  title: string,
  lines: readonly string[],
  back: string,
  redo: Html,
): Html =>
  html`<section class="card confirm" id="confirm">
    <h1 id="confirm-title">${title}</h1>
    <ul>
      ${lines.map((text) => html`<li>${text}</li>`)}
    </ul>
    <div class="acts">${redo}<a class="btn" href="${back}" data-close>Back</a></div>
  </section>`;
