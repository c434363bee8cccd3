/** How full the disks are, and what garbage collection would take: the dry run of all nodes. */
import type { GcReport, StorageList } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { count, formatBytes, parseTime } from "../format.ts";
import { timeAgo } from "../fragments/bits.ts";
import { storageMeaning } from "../view-models.ts";

const tableOf = (caption: string, heads: readonly string[], rows: readonly Html[]): Html =>
  html`<div class="tbl" role="region" aria-label="${caption}" tabindex="0">
    <table class="rows">
      <caption class="vh">
        ${caption}
      </caption>
      <thead>
        <tr>
          ${join(heads.map((name) => html`<th scope="col">${name}</th>`))}
        </tr>
      </thead>
      <tbody>
        ${join(rows)}
      </tbody>
    </table>
  </div>`;

const disks = ({ items }: StorageList, now: number): Html =>
  tableOf(
    "Storage of the nodes",
    ["Node", "Mode", "In use", "Free", "Looked at"],
    items.map(
      (one) =>
        html`<tr>
          <th scope="row"><a href="/ui/nodes/${one.node_id}">${one.node_id}</a></th>
          <td>${one.mode}${storageMeaning(one) === "" ? "" : `: ${storageMeaning(one)}`}</td>
          <td>
            <meter
              min="0"
              max="100"
              high="85"
              value="${Math.round(one.usage_pct)}"
              aria-label="Disk of ${one.node_id} used"
            ></meter>
            ${Math.round(one.usage_pct)} %
          </td>
          <td>${formatBytes(one.free_bytes)} of ${formatBytes(one.total_bytes)}</td>
          <td>${timeAgo(new Date(one.last_updated_at * 1_000).toISOString(), now)}</td>
        </tr>`,
    ),
  );

const artifacts = ({ items }: GcReport, now: number): Html =>
  tableOf(
    "Artifacts that nobody refers to",
    ["Artifact", "Status", "Why", "Due", "On nodes"],
    items.map(
      (one) =>
        html`<tr>
          <th scope="row">
            <a href="/ui/artifacts/${one.artifact_id}"><code>${one.artifact_id}</code></a>
          </th>
          <td>${one.status}</td>
          <td>${one.why}</td>
          <td>${timeAgo(one.due_at, now)}</td>
          <td>
            ${one.nodes.map(({ node_id, bytes }) => `${node_id} ${formatBytes(bytes)}`).join(", ")}
          </td>
        </tr>`,
    ),
  );

const orphans = ({ orphans: found }: GcReport, now: number): Html =>
  tableOf(
    "Files that nothing knows",
    ["File", "Node", "Size", "Due"],
    found.map(
      (one) =>
        html`<tr>
          <th scope="row"><code>${one.folder}/${shortName(one.name)}</code></th>
          <td>${one.node_id}</td>
          <td>${formatBytes(one.bytes)}</td>
          <td>${timeAgo(one.due_at, now)}</td>
        </tr>`,
    ),
  );

const shortName = (name: string): string => (name.length > 24 ? `${name.slice(0, 23)}…` : name);

const evictions = ({ evictions: due }: GcReport): Html =>
  tableOf(
    "Copies that go for want of room",
    ["Artifact", "Node", "Size", "Why"],
    due.map(
      (one) =>
        html`<tr>
          <th scope="row">
            <a href="/ui/artifacts/${one.artifact_id}"><code>${one.artifact_id}</code></a>
          </th>
          <td>${one.node_id}</td>
          <td>${formatBytes(one.bytes)}</td>
          <td>${one.why}</td>
        </tr>`,
    ),
  );

const section = (title: string, number: number, content: () => Html): Html =>
  html`<section>
    <h2>${title}</h2>
    ${number === 0 ? html`<p>None.</p>` : content()}
  </section>`;

export const storagePage = (list: StorageList, plan: GcReport, now: number): Html =>
  html`<div class="head">
      <div>
        <h1>Storage</h1>
        <p class="lead">
          ${formatBytes(plan.bytes)} in ${count(plan.items.length, "artifact")} that nobody refers
          to, ${count(plan.orphans.length, "file")} that nothing knows.
        </p>
      </div>
      <div class="acts">
        <a class="btn" href="/ui/storage/collect">Collect garbage</a
        ><a class="btn" href="/ui/storage/retention">Retention</a>
      </div>
    </div>
    ${list.error === undefined ? nothing : html`<p class="err">${list.error}</p>`}
    ${join(
      plan.unanswered.map(
        ({ node_id, reason }) => html`<p class="err">No answer from ${node_id}: ${reason}</p>`,
      ),
    )}
    ${disks(list, now)}
    ${section("Artifacts that go", plan.items.length, () => artifacts(plan, now))}
    ${section("Copies that go for want of room", plan.evictions.length, () => evictions(plan))}
    ${section("Orphan files", plan.orphans.length, () => orphans(plan, now))}`;

/** What the confirmation says will happen. */
export function collectionEffects(plan: GcReport, now: number): string[] {
  const isDue = (text: string) => (parseTime(text) ?? Infinity) <= now;
  const due = plan.items.filter(({ step }) => step === "release" || step === "forget");
  const waiting = plan.items.length - due.length;
  const files = plan.orphans.filter(({ due_at }) => isDue(due_at)).length;
  return [
    `${count(due.length, "artifact")} whose grace is over and ${count(files, "orphan file")} go now, on all nodes.`,
    `${count(waiting, "artifact")} stay for their grace and can be undeleted until then.`,
    "What a template, snapshot or job refers to stays.",
  ];
}
