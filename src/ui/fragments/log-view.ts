import type { JobLogLine } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { clockTime, parseTime } from "../format.ts";

/** Id rule: `log-SEQUENCE`; a page shows the log of one job. */
export const logLines = (lines: readonly JobLogLine[]): Html =>
  join(
    lines.map((line) => {
      const at = clockTime(parseTime(line.at) ?? 0);
      const level = line.level === "info" ? "" : `${line.level} `;
      const text = html`<span class="m">${level}${line.message}</span>`;
      return html`<li id="log-${line.sequence}" class="${line.level}"><i>${at}</i>${text}</li>`;
    }),
  );

/** Id rule: `log`. Text of registries and guests: shown as text, never as markup. */
export const logView = (lines: readonly JobLogLine[], older: string | undefined): Html =>
  html`<div class="log-head">
      <h2 id="log-title">Log</h2>
      <label class="follow" hidden><input type="checkbox" id="follow" checked /> Follow</label>
    </div>
    ${older === undefined ? nothing : html`<p><a href="${older}">Show older lines</a></p>`}
    <div class="log" role="log" aria-live="off" tabindex="0" aria-labelledby="log-title">
      <ol id="log">
        ${logLines(lines)}
      </ol>
    </div>`;
