import { html, join, nothing, type Html } from "../html.ts";
import { formFields, submitButton, type PageContext } from "../layout.ts";
import { commandBox } from "../fragments/bits.ts";

export interface Confirmation {
  readonly title: string;
  /** What will happen. */
  readonly effects: readonly string[];
  readonly action: string;
  /** `get` for what changes nothing: a download. */
  readonly method?: "get";
  readonly verb: string;
  readonly kind: "primary" | "danger";
  readonly command: string;
  readonly back: string;
  /** More inputs of the form. */
  readonly fields?: Html;
  /** Why it cannot be done now; there is no button then. */
  readonly blocked?: string;
  /** A way out of that. */
  readonly wayOut?: Html;
  /** Why it was not done when it was sent; it can be sent again. */
  readonly problem?: string;
}

/** One body for the page and the dialog: what happens, the command, and the button. */
export const confirmPage = (page: PageContext, what: Confirmation): Html =>
  html`<section class="card confirm" id="confirm">
    <h1 id="confirm-title">${what.title}</h1>
    ${
      what.effects.length === 0
        ? nothing
        : html`<ul>
            ${join(what.effects.map((effect) => html`<li>${effect}</li>`))}
          </ul>`
    }
    ${commandBox(what.command)}
    ${
      what.blocked === undefined
        ? html`<form method="${what.method ?? "post"}" action="${what.action}">
            ${what.method === "get" ? nothing : formFields(page)}${
              what.problem === undefined
                ? nothing
                : html`<p class="err" role="alert">${what.problem}</p>`
            }${what.fields ?? nothing}
            <div class="acts">
              ${submitButton(page, what.verb, `${what.kind} solid`)}<a
                class="btn"
                href="${what.back}"
                data-close
                >Keep as it is</a
              >
            </div>
          </form>`
        : html`<p class="err">${what.blocked}</p>
            <div class="acts">
              ${what.wayOut ?? nothing}<a class="btn" href="${what.back}" data-close>Back</a>
            </div>`
    }
  </section>`;
