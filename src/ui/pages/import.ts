/** Taking a bundle in by upload. */
import type { ImportFields } from "../bundle-models.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox } from "../fragments/bits.ts";
import { html, nothing, type Html } from "../html.ts";
import { formFields, submitButton, type PageContext } from "../layout.ts";

const textField = (name: string, label: string, hint: string, value: string | undefined): Html =>
  html`<div class="field">
    <label for="i-${name}">${label}</label
    ><input
      id="i-${name}"
      name="${name}"
      value="${value ?? ""}"
      maxlength="8192"
      spellcheck="false"
      autocapitalize="off"
      autocomplete="off"
      aria-describedby="h-i-${name}"
    />
    <p class="hint" id="h-i-${name}">${hint}</p>
  </div>`;

/** The file is the last field: what comes before it is known when its first byte arrives. */
export const importPage = (page: PageContext, fields: ImportFields, problem: string): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/templates">Templates</a></p>
        <h1>Import a bundle</h1>
        <p class="lead">
          A template or snapshot as one signed file. All of it is verified before any of it is seen.
        </p>
      </div>
    </div>
    <form class="card form" method="post" action="/ui/import" enctype="multipart/form-data">
      ${formFields(page)}
      ${
        problem === ""
          ? nothing
          : html`<div class="problems" role="alert" id="problems">
              <p><b>Not taken in.</b> ${problem}</p>
            </div>`
      }
      <div class="grid">
        ${textField("display_name", "Name", "Instead of the one in the bundle", fields["display_name"])}
        ${textField("template_id", "Id", "Instead of its own", fields["template_id"])}
        ${textField("nodes", "Nodes", "Only these may hold it; blank: all", fields["nodes"])}
        ${textField(
          "trust",
          "Trusted keys",
          "Of signers that are no members here: trust them as whoever has a shell in your guests",
          fields["trust"],
        )}
      </div>
      <div class="pick">
        <input
          type="checkbox"
          id="i-new-id"
          name="new_id"
          value="on"
          ${fields["new_id"] === "on" ? html` checked` : nothing}
        />
        <label for="i-new-id">Under a new id</label>
      </div>
      <div class="field">
        <label for="i-file">Bundle</label
        ><input id="i-file" name="file" type="file" required aria-describedby="h-i-file" />
        <p class="hint" id="h-i-file">
          It is not kept in memory: it may be as large as the disk has room.
        </p>
      </div>
      <p class="hint" data-busy role="status" hidden>
        Sending; keep this page open. It leads on by itself when the last byte was verified.
      </p>
      <div class="acts">
        ${submitButton(page, "Import", "primary")}<a class="btn" href="/ui/templates">Back</a>
      </div>
    </form>
    ${commandBox(commandLines.importBundle("FILE"))}`;
