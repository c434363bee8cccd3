/** Compat of the whole cluster: sums, the heat map, and what would make it better or worse. */
import { COMPAT_STATUSES } from "../../domain/index.ts";
import type {
  CompatStatus,
  NodeFact,
  ResnapshotView,
  TemplateCompatMatrix,
} from "../../domain/index.ts";
import { compatSentence, resnapshotSentence } from "../compat-models.ts";
import { count, roughDuration } from "../format.ts";
import { confirmLink, emptyState, facts, timeAgo, tile } from "../fragments/bits.ts";
import { compatHref, compatLegend, heatMap } from "../fragments/heat-map.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { upgradeSection, type UpgradeView } from "./compat-preview.ts";

export interface CompatView {
  readonly matrix: TemplateCompatMatrix;
  readonly resnapshot: ResnapshotView;
  readonly nodes: readonly NodeFact[];
  readonly upgrade: UpgradeView;
  /** Only rows with this overall status. */
  readonly status: CompatStatus | undefined;
  /** The page's own address with its query. */
  readonly path: string;
  readonly now: number;
}

export const compatPage = (view: CompatView): Html =>
  html`<div class="head">
      <div>
        <h1>Compat</h1>
        <p class="lead">${compatSentence(view.matrix.summary)}</p>
      </div>
      <div class="acts">${confirmLink("/ui/compat/rescan", "Scan all nodes")}</div>
    </div>
    ${live(
      view.path,
      html`${sums(view.matrix.summary)}
        <section>
          <h2>Templates by nodes</h2>
          ${choices(view.status)}${map(view)}
        </section>
        ${rolling(view)}`,
    )}
    <section class="split">${compatLegend()}${upgradeSection(view.upgrade)}</section>`;

/** Id rule: `compat`. Refetches itself, with its own filter, when it is told to. */
const live = (path: string, content: Html): Html =>
  html`<div
    id="compat"
    hx-get="${path}"
    hx-trigger="compat-changed from:body"
    hx-select="#compat"
    hx-target="#compat"
    hx-swap="outerMorph"
  >
    ${content}
  </div>`;

function sums(summary: TemplateCompatMatrix["summary"]): Html {
  const of = (state: CompatStatus, value: number, detail: string): Html =>
    tile(`/ui/compat?status=${state}`, status(state).word, String(value), detail);
  const { stale_templates, stale_replicas, affected_nodes } = summary;
  return html`<div class="tiles">
    ${of("STALE", stale_replicas, `replicas of ${count(stale_templates, "template")}`)}
    ${tile("/ui/nodes", "Affected nodes", String(affected_nodes), "with a stale replica")}
    ${of("UNKNOWN", summary.unknown_replicas, "replicas of which nobody can tell")}
    ${of("MISSING", summary.missing_replicas, "not on a node that is to hold them")}
  </div>`;
}

/** Links, so that the filter is in the address and needs no script. */
function choices(chosen: CompatStatus | undefined): Html {
  const link = (href: string, word: string, isChosen: boolean): Html =>
    isChosen
      ? html`<a class="btn small primary" href="${href}" aria-current="true">${word}</a>`
      : html`<a class="btn small" href="${href}">${word}</a>`;
  return html`<div class="filter">
    ${link("/ui/compat", "All", chosen === undefined)}
    ${join(
      COMPAT_STATUSES.map((state) =>
        link(`/ui/compat?status=${state}`, status(state).word, state === chosen),
      ),
    )}
  </div>`;
}

function map({ matrix, status: chosen, path }: CompatView): Html {
  if (matrix.templates.length === 0) {
    return chosen === undefined
      ? emptyState(
          "No templates yet",
          "A template's replicas are judged here as soon as it has any.",
        )
      : emptyState(
          "None",
          `No template is ${status(chosen).word.toLowerCase()} overall.`,
          html`<p><a href="/ui/compat">Show all</a></p>`,
        );
  }
  return html`${heatMap(matrix.templates)}${pager(path, matrix.next_token)}`;
}

function pager(path: string, next: string | undefined): Html {
  if (next === undefined) return nothing;
  const url = new URL(path, "http://page");
  url.searchParams.set("next_token", next);
  return html`<p class="pager"><a href="${url.pathname + url.search}">Next page</a></p>`;
}

/** Id rule: `resnapshot`. Where making stale replicas again by themselves is. */
function rolling({ resnapshot, nodes, now }: CompatView): Html {
  const { current, failure, next, done, failed } = resnapshot;
  const turn = current ?? failure;
  const pauses = nodes.flatMap(({ node_id, resnapshot_interval_ms: ms }) =>
    ms === undefined ? [] : [`${node_id} every ${roughDuration(ms)}`],
  );
  const where = turn ?? next;
  const job = turn?.job_id;
  return html`<section id="resnapshot" class="card">
    <div class="head">
      <div>
        <h2>Stale replicas made again by themselves</h2>
        <p>${resnapshotSentence(resnapshot)}</p>
      </div>
      ${
        failure === undefined
          ? nothing
          : html`<div class="acts">${confirmLink("/ui/compat/resnapshot/resume", "Go on")}</div>`
      }
    </div>
    ${facts([
      [
        failure !== undefined ? "Failed" : current !== undefined ? "Now" : "Next",
        where === undefined
          ? undefined
          : html`<a href="${compatHref(where.template_id)}">${where.template_id}</a> on
              <a href="/ui/nodes/${where.node_id}">${where.node_id}</a>`,
      ],
      ["Job", job === undefined ? undefined : html`<a href="/ui/jobs/${job}">${job}</a>`],
      [
        "Error",
        failure === undefined ? undefined : html`<span class="err">${failure.error}</span>`,
      ],
      [
        "Since",
        turn === undefined ? undefined : timeAgo(failure?.failed_at ?? turn.started_at, now),
      ],
      ["So far", done + failed === 0 ? undefined : `${done} made again, ${failed} failed`],
      ["Switched on", pauses.join(", ") || undefined],
    ])}
  </section>`;
}
