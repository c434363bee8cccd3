import type { ClusterView } from "../../domain/index.ts";
import { healthItems, type HealthItem } from "../cluster-models.ts";
import { commandLines } from "../command-lines.ts";
import { html, join, type Html } from "../html.ts";
import { commandBox, statusMark, tile, timeAgo } from "./bits.ts";

const itemTile = (item: HealthItem, now: number): Html =>
  tile(
    "/ui/cluster",
    item.name,
    statusMark(item.state),
    item.since === undefined
      ? item.detail
      : html`${item.detail}, since ${timeAgo(item.since, now)}`,
  );

/** Id rule: `cluster-health`. One strip on the cluster; alone, how to make one. */
export const healthStrip = (view: ClusterView, now: number): Html =>
  view.clustered
    ? html`<div id="cluster-health" class="tiles">
        ${join(healthItems(view).map((item) => itemTile(item, now)))}
      </div>`
    : html`<div id="cluster-health" class="card">
        <b>This node is alone</b>, its own quorum. To make a cluster,
        <a href="/ui/cluster/tokens/new">make a join token</a> and use it on another host.
        ${commandBox(commandLines.makeToken(3_600, 1), "Or")}
      </div>`;
