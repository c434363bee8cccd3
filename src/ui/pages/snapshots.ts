/** Snapshots of running sandboxes: the list with its five filters, and one of them. */
import { TEMPLATE_STATUSES } from "../../domain/index.ts";
import type { LineageEntry, Page, SnapshotInfo } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { formatBytes } from "../format.ts";
import { commandBox, confirmLink, copyable, emptyState, facts } from "../fragments/bits.ts";
import { protectedMark, statusMark, timeAgo } from "../fragments/bits.ts";
import { lineageTree } from "../fragments/lineage-tree.ts";
import { replicaTable } from "../fragments/replica-table.ts";
import { table } from "../fragments/tables.ts";
import { editFacts } from "../fragments/template-head.ts";
import { lazy } from "../fragments/why.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { ROWS, snapshotName, snapshotSentence, type SnapshotQuery } from "../snapshot-models.ts";
import { status } from "../status.ts";
import { block, filterForm, options, pager } from "./list.ts";

/** Id rule: `snapshot-row-SNAPSHOT`. */
const snapshotRow = (one: SnapshotInfo, now: number): Html =>
  html`<tr id="snapshot-row-${one.snapshot_id}">
    <td>${statusMark(status(one.status))}</td>
    <th scope="row">
      <a class="row" href="/ui/snapshots/${one.snapshot_id}">${snapshotName(one)}</a>
      ${one.display_name === "" ? nothing : html`<span class="sub">${one.snapshot_id}</span>`}
    </th>
    <td><code>${one.origin_sandbox_id || "–"}</code></td>
    <td>${one.origin_node_id || "–"}</td>
    <td class="num">${one.runtime_ref_count}</td>
    <td class="num">${formatBytes(one.rootfs_size_bytes_at_snapshot)}</td>
    <td class="num">${timeAgo(one.updated_at, now)}</td>
  </tr>`;

const textField = (name: string, label: string, value: string | undefined): Html =>
  html`<label for="s-${name}" class="vh">${label}</label
    ><input
      type="search"
      id="s-${name}"
      name="${name}"
      value="${value ?? ""}"
      placeholder="${label}"
      autocomplete="off"
    />`;

const filterFields = ({ filter }: SnapshotQuery): Html =>
  join([
    textField("name", "Name", filter.name),
    textField("snapshot_id", "Snapshot id", filter.snapshot_id),
    textField("sandbox_id", "Sandbox id", filter.sandbox_id),
    html`<label for="s-status" class="vh">Status</label
      ><select id="s-status" name="status">
        <option value="">Any status</option>
        ${options(TEMPLATE_STATUSES, filter.status ?? "")}
      </select>`,
    html`<label for="s-limit" class="vh">Rows on a page</label
      ><select id="s-limit" name="limit">
        ${join(
          ROWS.map(
            (rows) =>
              html`<option value="${rows}" ${filter.limit === rows ? html` selected` : nothing}>
                ${rows} rows
              </option>`,
          ),
        )}
      </select>`,
  ]);

const HEADS = ["Status", "Snapshot", "Of sandbox", "On node", "In use by", "Size", "Changed"];

export function snapshotsPage(
  page: Page<SnapshotInfo>,
  query: SnapshotQuery,
  path: string,
  now: number,
): Html {
  const content =
    page.items.length > 0
      ? join([
          table(
            "Snapshots",
            HEADS,
            page.items.map((one) => snapshotRow(one, now)),
          ),
          pager(path, page.next_token),
        ])
      : query.isFiltered
        ? emptyState(
            "Nothing matches",
            "No snapshot has exactly this id, name, sandbox and status.",
            html`<p><a href="/ui/snapshots">Clear the filter</a></p>`,
          )
        : emptyState(
            "No snapshots yet",
            "A snapshot is the memory and disk of a running sandbox, frozen.",
            commandBox(commandLines.createSnapshot("SANDBOX", ""), "Take one"),
          );
  return html`<div class="head">
      <div>
        <h1>Snapshots</h1>
        <p class="lead">Taken of running sandboxes, from the list on a node's page.</p>
      </div>
    </div>
    ${filterForm("/ui/snapshots", "snapshots", filterFields(query), query.isFiltered)}
    ${block("snapshots", "snapshots-changed", path, content)}`;
}

const actions = (snapshot: SnapshotInfo): Html => {
  const base = `/ui/snapshots/${snapshot.snapshot_id}`;
  const isReady = snapshot.status === "READY";
  return join([
    isReady
      ? confirmLink(`/ui/templates/${snapshot.snapshot_id}/run`, "Run sandbox", "primary")
      : nothing,
    isReady ? confirmLink(`${base}/rollback`, "Roll back") : nothing,
    isReady ? confirmLink(`${base}/deliver`, "Deliver") : nothing,
    isReady ? confirmLink(`${base}/export`, "Export") : nothing,
    snapshot.status === "DELETING" ? nothing : confirmLink(`${base}/delete`, "Delete", "danger"),
  ]);
};

export const snapshotTitle = (snapshot: SnapshotInfo): string =>
  `${status(snapshot.status).word}: ${snapshotName(snapshot)}`;

/** Id rule: `snapshot-head-SNAPSHOT`. */
export const snapshotHead = (snapshot: SnapshotInfo): Html =>
  html`<div
    class="head"
    id="snapshot-head-${snapshot.snapshot_id}"
    data-title="${snapshotTitle(snapshot)}"
    data-tone="${status(snapshot.status).tone}"
  >
    <div>
      <p class="crumb"><a href="/ui/snapshots">Snapshots</a></p>
      <h1>
        ${snapshotName(snapshot)} ${statusMark(status(snapshot.status))} ${protectedMark(snapshot)}
      </h1>
      <p class="lead">${snapshotSentence(snapshot)}</p>
    </div>
    <div class="acts">${actions(snapshot)}</div>
  </div>`;

/** Id rule: `replicas-SNAPSHOT`. It lies where its sandbox was, and where it was carried. */
export function snapshotReplicas(snapshot: SnapshotInfo): Html {
  const { snapshot_id, origin_node_id, replicas, status: state } = snapshot;
  const nodes = [origin_node_id, ...replicas.map((one) => one.node_id)].filter((id) => id !== "");
  return replicaTable({
    template_id: snapshot_id,
    kind: "snapshot",
    status: state,
    replicas,
    desired_nodes: [...new Set(nodes)],
  });
}

export interface SnapshotModel {
  readonly snapshot: SnapshotInfo;
  readonly lineage: readonly LineageEntry[];
  readonly now: number;
}

export const snapshotPage = ({ snapshot, lineage, now }: SnapshotModel): Html => {
  const id = snapshot.snapshot_id;
  const parent = lineage.find((entry) => entry.id === snapshot.parent_id);
  const source = parent?.kind === "snapshot" ? "snapshots" : "templates";
  return html`${snapshotHead(snapshot)}
    <section>
      <h2>Replicas</h2>
      ${snapshotReplicas(snapshot)}
    </section>
    <section>
      <h2>Who uses it</h2>
      ${lazy(`refs-${id}`, `/ui/snapshots/${id}/refs`, "See who uses it")}
    </section>
    ${lineageTree(id, lineage, now)}
    <section class="split">
      <div class="card">
        <h2>Facts</h2>
        ${facts([
          ["Snapshot", copyable(id)],
          ...editFacts(id, snapshot),
          ["Of sandbox", snapshot.origin_sandbox_id && copyable(snapshot.origin_sandbox_id)],
          [
            "On node",
            snapshot.origin_node_id &&
              html`<a href="/ui/nodes/${snapshot.origin_node_id}">${snapshot.origin_node_id}</a>`,
          ],
          [
            "Taken over",
            snapshot.parent_id === ""
              ? undefined
              : parent === undefined || parent.kind === "gone"
                ? `${snapshot.parent_id}, deleted`
                : html`<a href="/ui/${source}/${snapshot.parent_id}">${snapshot.parent_id}</a>`,
          ],
          ["Disk at that time", formatBytes(snapshot.rootfs_size_bytes_at_snapshot)],
          ["Storage", snapshot.storage_backend],
          ["Stays without it", snapshot.retain ? "yes" : "no, it goes with its sandbox"],
          ["Instance type", snapshot.instance_type],
          ["Version", snapshot.version],
          ["Last error", snapshot.last_error],
          ["Taken", timeAgo(snapshot.created_at, now)],
          ["Changed", timeAgo(snapshot.updated_at, now)],
        ])}
      </div>
      <div class="card">
        <h2>From the command line</h2>
        ${commandBox(commandLines.runSandbox(id), "Run")}
        ${commandBox(commandLines.snapshot(id), "Show")}
        ${
          snapshot.origin_sandbox_id === ""
            ? nothing
            : commandBox(commandLines.rollback(snapshot.origin_sandbox_id, id), "Roll back")
        }
        ${commandBox(commandLines.deliverSnapshot(id), "Deliver")}
        ${commandBox(commandLines.deleteSnapshot(id), "Delete")}
      </div>
    </section>`;
};
