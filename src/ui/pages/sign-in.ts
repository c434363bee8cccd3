import type { AppError } from "../../domain/index.ts";
import { html, nothing, type Html } from "../html.ts";
import { formFields, type PageContext } from "../layout.ts";
import { sentence } from "../view-models.ts";

const signedIn = (page: PageContext): Html =>
  html`<section class="card confirm">
    <h1>You are signed in</h1>
    <p class="lead">
      As ${page.access.name ?? ""} on ${page.nodeId}, for twelve hours at most or until the daemon
      is started again.
    </p>
    <form method="post" action="/ui/sign-out">
      ${formFields(page)}
      <div class="acts"><button type="submit" class="btn">Sign out</button></div>
    </form>
  </section>`;

/** The form; the token is never shown again, nor kept by the browser. */
export function signInPage(page: PageContext, next: string, error?: AppError): Html {
  if (page.access.name !== undefined && error === undefined) return signedIn(page);
  if (!page.access.required) {
    return html`<section class="card confirm">
      <h1>No sign-in needed</h1>
      <p class="lead">
        ${page.nodeId} asks for no token: everybody who gets here may change things.
      </p>
      <p><a class="btn" href="/ui/">Overview</a></p>
    </section>`;
  }
  return html`<section class="card confirm">
    <h1>Sign in</h1>
    <p class="lead">
      ${page.nodeId} shows everything to everybody who gets here, and changes things only for those
      who have its token: the one in the file that <code>api_token_file</code> of its configuration
      names.
    </p>
    ${error === undefined ? nothing : html`<p class="err" role="alert">${sentence(error.message)}</p>`}
    <form method="post" action="/ui/sign-in">
      ${formFields(page)}<input type="hidden" name="next" value="${next}" />
      <div class="field">
        <label for="api-token">Token</label
        ><input
          id="api-token"
          name="api_token"
          type="password"
          required
          maxlength="4096"
          autocomplete="off"
          spellcheck="false"
          ${error === undefined ? nothing : html` aria-invalid="true"`}
        />
      </div>
      <div class="acts">
        <button type="submit" class="btn primary">Sign in</button
        ><a class="btn" href="${next}">Go on reading</a>
      </div>
    </form>
  </section>`;
}
