/**
 * Answers that cost a question to other nodes, so they come after the page: why something is still
 * here or not ready, and who uses it. Id rules: `why-ID` and `refs-ID`.
 */
import type { ArtifactWhy, RuntimeRefList, TemplateWhy } from "../../domain/index.ts";
import { count, formatBytes } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { nodeStatus, status } from "../status.ts";
import { notReady, phaseWord } from "../view-models.ts";
import { statusMark, timeAgo } from "./bits.ts";
import { table } from "./tables.ts";

const ask = (id: string, path: string, words: string): Html =>
  html`<a href="${path}" hx-get="${path}" hx-select="#${id}" hx-target="#${id}" hx-swap="outerHTML"
    >${words}</a
  >`;

/** A place that fills itself; without script it is a link to the same answer. */
export const lazy = (id: string, path: string, words: string): Html =>
  html`<div
    id="${id}"
    hx-get="${path}"
    hx-trigger="load"
    hx-select="#${id}"
    hx-target="this"
    hx-swap="outerHTML"
  >
    <p><a href="${path}">${words}</a></p>
  </div>`;

/** A place that fills itself when somebody wants to know. */
export const onDemand = (id: string, path: string, words: string): Html =>
  html`<div id="${id}" hx-morph-skip><p>${ask(id, path, words)}</p></div>`;

/** What came; the page's own updates leave it as it is until it is asked again. */
const answer = (id: string, path: string, content: Html): Html =>
  html`<div class="answer" id="${id}" hx-morph-skip>
    ${content}
    <p class="pager">${ask(id, path, "Look again")}</p>
  </div>`;

export const refusedAnswer = (id: string, path: string, why: string): Html =>
  answer(id, path, html`<p class="err">${why}</p>`);

const silent = (nodes: readonly { node_id: string; reason: string }[]): Html =>
  join(
    nodes.map(
      ({ node_id, reason }) =>
        html`<p class="err">
          No answer from ${node_id}: ${reason}. What it holds counts as held.
        </p>`,
    ),
  );

const place = (kind: "template" | "snapshot" | "job", id: string): string =>
  `/ui/${kind}s/${encodeURIComponent(id)}`;

/** Why an artifact is still here: who refers to it, and on which nodes it lies. */
export const artifactWhy = (why: ArtifactWhy, path: string, now: number): Html =>
  answer(
    `why-${why.artifact_id}`,
    path,
    html`<p class="lead">
        It is still here: ${why.why}.
        ${why.references.length > 0 ? nothing : html`Goes ${timeAgo(why.kept_until, now)}.`}
      </p>
      ${
        why.references.length === 0
          ? nothing
          : table(
              "What refers to it",
              ["What", "Id", "Status", "Why"],
              why.references.map(
                (one) =>
                  html`<tr>
                    <td>${one.kind}</td>
                    <th scope="row"><a href="${place(one.kind, one.id)}">${one.id}</a></th>
                    <td>${statusMark(status(one.status))}</td>
                    <td>${one.why}</td>
                  </tr>`,
              ),
            )
      }
      ${
        why.nodes.length === 0
          ? html`<p>No node holds a copy.</p>`
          : table(
              "Where it lies",
              ["Node", "Copy", "Replicas made from it", "Sandboxes on them"],
              why.nodes.map(
                (node) =>
                  html`<tr>
                    <th scope="row">
                      <a href="/ui/nodes/${node.node_id}">${node.node_id}</a>
                      ${node.is_member ? nothing : html`<span class="sub">removed</span>`}
                      ${node.healthy ? nothing : statusMark(status("UNHEALTHY"))}
                    </th>
                    <td>
                      ${node.holding === "none" ? "none" : `${node.holding}, ${formatBytes(node.size_bytes)}`}${
                        node.is_removing ? ", being removed" : ""
                      }
                    </td>
                    <td>${links(node.replicas)}</td>
                    <td>
                      ${
                        node.runtime_ref_count === 0
                          ? "–"
                          : `${node.runtime_ref_count}: ${node.sandboxes.join(", ")}`
                      }
                    </td>
                  </tr>`,
              ),
            )
      }`,
  );

const links = (ids: readonly string[]): Html =>
  ids.length === 0
    ? html`–`
    : join(ids.map((id) => html`<div><a href="/ui/templates/${id}">${id}</a></div>`));

/** Why a template or snapshot is not ready on nodes, and what holds it. */
export const templateWhy = (why: TemplateWhy, path: string): Html =>
  answer(
    `why-${why.template_id}`,
    path,
    html`<p class="lead">${notReady(why)}</p>
      ${silent(why.unanswered)}
      ${
        why.nodes.every((node) => node.ready)
          ? nothing
          : table(
              "Why it is not ready",
              ["Node", "Why", "State", "Disk", "Root filesystem"],
              why.nodes
                .filter((node) => !node.ready)
                .map(
                  (node) =>
                    html`<tr>
                      <th scope="row"><a href="/ui/nodes/${node.node_id}">${node.node_id}</a></th>
                      <td class="wide">
                        ${node.why}
                        ${
                          node.error_message === ""
                            ? nothing
                            : html`<div class="err">${node.error_message}</div>`
                        }
                      </td>
                      <td>
                        ${statusMark(nodeStatus(node))}
                        <div class="sub">
                          ${node.phase === "" ? "" : `${phaseWord(node.phase)} · `}${node.driver} ·
                          compat ${status(node.compat_status).word}
                        </div>
                      </td>
                      <td>${node.storage_mode}, ${formatBytes(node.free_bytes)} free</td>
                      <td>${node.holds_artifact ? "here" : "not here"}</td>
                    </tr>`,
                ),
            )
      }
      ${
        why.references.length === 0
          ? html`<p>Nothing stands in the way of its deletion.</p>`
          : html`<p>
              In the way of its deletion:
              ${why.references
                .map(
                  ({ kind, id, node_id }) =>
                    `${kind} ${id}${node_id === "" ? "" : ` on ${node_id}`}`,
                )
                .join(", ")}.
            </p>`
      }`,
  );

const SOURCES = { driver: "this daemon", runtime: "a runtime beside it" } as const;

/** Sandboxes that run on a template or snapshot now, with their node, state and generation. */
export const refTable = (id: string, list: RuntimeRefList, path: string, now: number): Html =>
  answer(
    `refs-${id}`,
    path,
    html`${silent(list.unanswered)}
    ${
      list.count === 0
        ? html`<p>No sandbox runs on it.</p>`
        : html`<p class="lead">
            ${count(list.count, "sandbox", "sandboxes")} ${list.count === 1 ? "runs" : "run"} on
            it${list.items.length < list.count ? `; the first ${list.items.length} are shown` : ""}.
          </p>`
    }
    ${
      list.items.length === 0
        ? nothing
        : table(
            "Who uses it",
            ["Sandbox", "Node", "State", "Generation", "Since", "Last seen"],
            list.items.map(
              (ref) =>
                html`<tr>
                  <th scope="row"><code>${ref.sandbox_id}</code></th>
                  <td><a href="/ui/nodes/${ref.node_id}">${ref.node_id}</a></td>
                  <td>
                    ${statusMark(status(ref.status))}
                    <div class="sub">${ref.binding_type}, told by ${SOURCES[ref.source]}</div>
                    ${
                      ref.last_error === ""
                        ? nothing
                        : html`<div class="err">${ref.last_error}</div>`
                    }
                  </td>
                  <td>${ref.sandbox_gen}</td>
                  <td>${timeAgo(ref.attached_at, now)}</td>
                  <td>${timeAgo(ref.last_seen_at, now)}</td>
                </tr>`,
            ),
          )
    }`,
  );
