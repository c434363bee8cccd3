import type { ClusterView } from "../../domain/index.ts";
import { tokenState } from "../cluster-models.ts";
import { html, nothing, type Html } from "../html.ts";
import { confirmLink, statusMark, timeAgo } from "./bits.ts";
import { table } from "./tables.ts";

const tokenRow = (token: ClusterView["tokens"][number], now: number): Html => {
  const { state, left } = tokenState(token, now);
  return html`<tr>
    <td>${statusMark(state)}</td>
    <th scope="row"><code>${token.token_id}</code></th>
    <td class="num">${token.uses_left}</td>
    <td class="num">${left}</td>
    <td class="num">${timeAgo(token.created_at, now)}</td>
    <td>
      ${
        state.word === "Good"
          ? confirmLink(`/ui/cluster/tokens/${token.token_id}/revoke`, "Revoke", "danger")
          : nothing
      }
    </td>
  </tr>`;
};

/** Id rule: `tokens`. Join tokens without their secrets, which nobody can show again. */
export const tokenTable = (view: ClusterView, now: number): Html =>
  html`<div id="tokens">
    ${
      view.tokens.length === 0
        ? html`<p class="dim">No join token is out: nobody can join now.</p>`
        : table(
            "Join tokens",
            ["Status", "Token", "Uses left", "Expires", "Made", "Action"],
            view.tokens.map((token) => tokenRow(token, now)),
          )
    }
  </div>`;
