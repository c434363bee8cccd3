/** What came from what. Id rule: `lineage-ID`. */
import type { LineageEntry } from "../../domain/index.ts";
import { count } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { treesOf, type TreeNode } from "../snapshot-models.ts";
import { status } from "../status.ts";
import { statusMark, timeAgo } from "./bits.ts";

const SHOWN = 300;

function leaf({ entry, children }: TreeNode, current: string, now: number): Html {
  const { id, kind, display_name: name } = entry;
  const path = `/ui/${kind === "snapshot" ? "snapshots" : "templates"}/${encodeURIComponent(id)}`;
  const shown = name === "" ? id : name;
  const words =
    kind === "gone"
      ? html`<span class="dim">${id}, deleted</span>`
      : id === current
        ? html`<b aria-current="true">${shown}</b>`
        : html`<a href="${path}">${shown}</a>`;
  return html`<li>
    ${words}
    ${
      kind === "gone"
        ? nothing
        : html`<span class="sub">${kind}</span> ${statusMark(status(entry.status))}
            <span class="sub">${timeAgo(entry.created_at, now)}</span>`
    }
    ${
      entry.origin_sandbox_id === ""
        ? nothing
        : html`<span class="sub">of sandbox ${entry.origin_sandbox_id}</span>`
    }
    ${children.length === 0 ? nothing : branches(children, current, now)}
  </li>`;
}

const branches = (nodes: readonly TreeNode[], current: string, now: number): Html =>
  html`<ul>
    ${join(nodes.map((node) => leaf(node, current, now)))}
  </ul>`;

/** Nothing for what has neither a parent nor children. */
export function lineageTree(id: string, entries: readonly LineageEntry[], now: number): Html {
  if (entries.length < 2) return nothing;
  const more = entries.length - SHOWN;
  return html`<section class="lineage" id="lineage-${id}">
    <h2>Lineage</h2>
    ${branches(treesOf(entries.slice(0, SHOWN)), id, now)}
    ${more > 0 ? html`<p class="dim">${count(more, "more entry", "more entries")}.</p>` : nothing}
  </section>`;
}
