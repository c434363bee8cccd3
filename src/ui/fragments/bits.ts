/** The small parts every page is made of. None of them has an id. */
import { html, join, nothing, type Html } from "../html.ts";
import { icon } from "../icons.ts";
import { absoluteTime, parseTime, relativeTime } from "../format.ts";
import type { Status } from "../status.ts";

/** Word, shape and tone together. */
export const statusMark = (state: Status): Html =>
  html`<span class="st ${state.tone}">${icon(state.shape)}${state.word}</span>`;

/** Beside the name of what nobody can delete. */
export const protectedMark = (of: { readonly protected: boolean }): Html =>
  of.protected
    ? html`<span class="st idle" title="Nobody can delete it">${icon("lock")}Protected</span>`
    : nothing;

/** Exact and relative time together. */
export function timeAgo(text: string, now: number): Html {
  const at = parseTime(text);
  if (at === undefined) return html`<span class="dim">–</span>`;
  const iso = new Date(at).toISOString();
  return html`<time datetime="${iso}" title="${absoluteTime(at)}">${relativeTime(now, at)}</time>`;
}

/** Text that is worth copying: selectable without script, with a button where there is one. */
export const copyable = (text: string, shown = text): Html =>
  html`<span class="cp"
    ><code title="${text}">${shown}</code
    ><button type="button" data-copy="${text}" aria-label="Copy ${shown}" hidden>
      ${icon("copy")}
    </button></span
  >`;

/** The same thing as a command line. */
export const commandBox = (command: string, label = "Same as"): Html =>
  html`<div class="cmd">
    <span class="cmd-l">${label}</span><code>${command}</code
    ><button type="button" data-copy="${command}" aria-label="Copy command" hidden>
      ${icon("copy")}
    </button>
  </div>`;

/** Names and values; undefined values are left out. */
export const facts = (rows: readonly (readonly [string, Html | string | undefined])[]): Html =>
  html`<dl class="facts">
    ${join(
      rows
        .filter(([, value]) => value !== undefined && value !== "")
        .map(
          ([name, value]) =>
            html`<div>
              <dt>${name}</dt>
              <dd>${value}</dd>
            </div>`,
        ),
    )}
  </dl>`;

/** What it is, why it is empty, and the next step. */
export const emptyState = (title: string, why: string, next: Html = nothing): Html =>
  html`<div class="empty">
    <p class="empty-t">${title}</p>
    <p>${why}</p>
    ${next}
  </div>`;

/** A link that opens its confirmation page in a dialog where there is script. */
export const confirmLink = (href: string, text: string, kind = ""): Html =>
  html`<a
    class="btn ${kind}"
    href="${href}"
    hx-get="${href}"
    hx-select="#confirm"
    hx-target="#dialog"
    hx-swap="innerHTML"
    >${text}</a
  >`;

/** A name, its value and what is behind it, as a link to more. */
export const tile = (
  href: string,
  name: string,
  value: Html | string,
  detail: Html | string,
): Html =>
  html`<a class="tile" href="${href}"
    ><span class="tile-n">${name}</span><span class="tile-v">${value}</span
    ><span class="tile-d">${detail}</span></a
  >`;
