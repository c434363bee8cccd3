/** Which rule of retention holds, who holds it back, and what it would take. */
import type { NodeFact, RetentionPolicy, RetentionReport } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox, confirmLink, emptyState, statusMark, timeAgo } from "../fragments/bits.ts";
import { table } from "../fragments/tables.ts";
import { html, nothing, type Html } from "../html.ts";
import {
  duesText,
  fateText,
  nodeRules,
  reasonText,
  ruleText,
  type RetentionForm,
} from "../retention-models.ts";
import { status } from "../status.ts";

export interface RetentionModel {
  readonly nodes: readonly Pick<NodeFact, "node_id" | "retention">[];
  /** What holds without the visitor's own numbers. */
  readonly inForce: RetentionPolicy;
  /** The dry run. */
  readonly report: RetentionReport;
  readonly form: RetentionForm;
  /** With the visitor's own numbers: what is asked, not what is in force. */
  readonly isTried: boolean;
  readonly now: number;
}

const isOff = ({ keep_last, unused_ttl_ms }: RetentionPolicy) =>
  keep_last === 0 && unused_ttl_ms === 0;

const ruleTable = ({ nodes, inForce }: RetentionModel): Html =>
  table(
    "What the nodes are configured with",
    ["Node", "Keep last", "Unused for", "Bears on the rule"],
    nodeRules(nodes, inForce).map(
      (one) =>
        html`<tr>
          <th scope="row"><a href="/ui/nodes/${one.nodeId}">${one.nodeId}</a></th>
          <td class="num">${one.keepLast}</td>
          <td class="num">${one.unusedTtl}</td>
          <td class="wide">
            ${one.holdsBack ? html`<span class="warn">${one.note}</span>` : one.note || "–"}
          </td>
        </tr>`,
    ),
  );

const items = ({ report, now }: RetentionModel): Html =>
  table(
    "What retention names",
    ["Template", "What becomes of it", "Why", "Line", "Status", "Made", "Last used"],
    report.items.map(
      (one) =>
        html`<tr>
          <th scope="row"><a href="/ui/templates/${one.template_id}">${one.template_id}</a></th>
          <td>${one.kept_by === "" ? html`<b>${fateText(one)}</b>` : fateText(one)}</td>
          <td>${reasonText(one, now)}</td>
          <td>${one.line || "–"}</td>
          <td>${statusMark(status(one.status))}</td>
          <td class="num">${timeAgo(one.created_at, now)}</td>
          <td class="num">${timeAgo(one.last_used_at, now)}</td>
        </tr>`,
    ),
  );

const numberField = (name: string, label: string, value: string, most: number): Html =>
  html`<span class="pair"
    ><label for="r-${name}">${label}</label
    ><input id="r-${name}" name="${name}" type="number" min="0" max="${most}" value="${value}"
  /></span>`;

const tryForm = ({ form, isTried }: RetentionModel): Html =>
  html`<form class="filter" method="get" action="/ui/storage/retention">
    ${numberField("keep_last", "Keep last", form.keepLast, 1_000)}
    ${numberField("unused_days", "Unused for days", form.unusedDays, 36_500)}
    <button type="submit" class="btn">Try</button>${
      isTried ? html`<a href="/ui/storage/retention">Clear</a>` : nothing
    }
  </form>`;

const dryRun = (model: RetentionModel): Html => {
  const { report, form, isTried } = model;
  const query = new URLSearchParams({
    ...(form.keepLast === "" ? {} : { keep_last: form.keepLast }),
    ...(form.unusedDays === "" ? {} : { unused_days: form.unusedDays }),
  }).toString();
  if (isOff(report.policy)) {
    return emptyState(
      "Nothing goes by itself",
      "No rule is in force on every node. Try numbers of your own to see what they would name.",
    );
  }
  return html`<p class="lead">${isTried ? ruleText(report.policy) : ""} ${duesText(report)}</p>
    ${
      report.in_touch
        ? nothing
        : html`<p class="notice warn">
            This node does not agree with the others yet: until then nothing goes.
          </p>`
    }
    ${report.items.length === 0 ? nothing : items(model)}
    ${
      report.items.some(({ kept_by }) => kept_by === "")
        ? html`<p>
            ${confirmLink(
              `/ui/storage/retention/apply${query === "" ? "" : `?${query}`}`,
              "Delete these now",
              "danger",
            )}
          </p>`
        : nothing
    }`;
};

export const retentionPage = (model: RetentionModel): Html =>
  html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/storage">Storage</a></p>
        <h1>Retention</h1>
        <p class="lead">${ruleText(model.inForce)}</p>
      </div>
    </div>
    <section>
      <h2>Rule in force</h2>
      <div class="answer">
        <p class="hint">
          It is set by <code>retention_keep_last</code> and <code>retention_unused_ttl</code> in the
          configuration file of each node, <code>/etc/templatecenter/config.toml</code> unless the
          daemon was given another, or by <code>TEMPLATECENTER_RETENTION_KEEP_LAST</code> and
          <code>TEMPLATECENTER_RETENTION_UNUSED_TTL</code>; a node takes it up when it starts. Only
          what every node has holds, and of that the mildest.
        </p>
        ${ruleTable(model)}
      </div>
    </section>
    <section>
      <h2>Dry run</h2>
      ${tryForm(model)}
      <div class="answer">${dryRun(model)}</div>
    </section>
    <section class="card">
      <h2>From the command line</h2>
      ${commandBox(commandLines.retentionPreview(), "Look")}
    </section>`;
