import type { ClusterView, CreatedToken } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { reachWarning } from "../cluster-models.ts";
import { commandBox, copyable, facts, timeAgo } from "../fragments/bits.ts";
import { count, formatDuration, parseTime } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { formFields, submitButton, type PageContext } from "../layout.ts";

/** Lifetimes on offer, in seconds. */
export const LIFETIMES: readonly (readonly [number, string])[] = [
  [600, "10 minutes"],
  [3_600, "1 hour"],
  [24 * 3_600, "1 day"],
  [7 * 24 * 3_600, "7 days"],
];

export interface TokenForm {
  readonly ttl_seconds: string;
  readonly uses: string;
}

/** What a token is for, how long it shall be good, and how often. */
export const newTokenPage = (
  page: PageContext,
  view: ClusterView,
  values: TokenForm,
  problem = "",
): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/cluster">Cluster</a></p>
        <h1>Make a join token</h1>
        <p class="lead">
          Whoever has the token can make a host a member of this cluster, with all that members may
          do. Give it only to the hosts that shall join.
        </p>
      </div>
    </div>
    <form class="card form" method="post" action="/ui/cluster/tokens">
      ${formFields(page)}
      ${problem === "" ? nothing : html`<p class="err" role="alert">${problem}</p>`}
      ${
        view.clustered
          ? nothing
          : html`<p>This node is alone: it becomes a cluster of one, and keeps all that it has.</p>`
      }
      <div class="field">
        <label for="t-ttl">Good for</label>
        <select id="t-ttl" name="ttl_seconds">
          ${join(
            LIFETIMES.map(([seconds, words]) =>
              String(seconds) === values.ttl_seconds
                ? html`<option value="${seconds}" selected>${words}</option>`
                : html`<option value="${seconds}">${words}</option>`,
            ),
          )}
        </select>
      </div>
      <div class="field">
        <label for="t-uses">Nodes that may join with it</label>
        <input
          type="number"
          id="t-uses"
          name="uses"
          min="1"
          max="1000"
          required
          value="${values.uses}"
          aria-describedby="t-uses-h"
        />
        <span class="hint" id="t-uses-h">From 1 to 1000. Each that joins takes one use.</span>
      </div>
      <div class="acts">
        ${submitButton(page, "Make token", "primary")}<a class="btn" href="/ui/cluster"
          >Make none</a
        >
      </div>
    </form>`;

/** The one page that ever shows the secret. */
export function tokenMadePage(view: ClusterView, made: CreatedToken, now: number): Html {
  const warning = reachWarning(view);
  const left = formatDuration(Math.max(0, (parseTime(made.expires_at) ?? now) - now));
  return html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/cluster">Cluster</a></p>
        <h1>The token is made</h1>
        <p class="lead">
          It is shown here only: this page cannot be opened again. ${count(made.uses_left, "node")}
          may join with it within ${left}.
        </p>
      </div>
    </div>
    ${warning === "" ? nothing : html`<p class="attention">${warning}</p>`}
    <section class="card" id="made">
      <h2>On the other host</h2>
      ${commandBox(commandLines.join(made.token), "Runs a daemon")}
      ${commandBox(commandLines.daemonJoin(made.token), "Runs none yet")}
      <h2>The token</h2>
      ${facts([
        ["Token", copyable(made.token)],
        ["Id", copyable(made.token_id)],
        ["Expires", timeAgo(made.expires_at, now)],
        ["Others reach us at", view.addresses.join(", ")],
      ])}
    </section>
    <p class="next"><a class="btn" href="/ui/cluster">Back to the cluster</a></p>`;
}
