import type { NodeFact } from "../../domain/index.ts";
import { html, type Html } from "../html.ts";
import { formatBytes } from "../format.ts";
import { nodeStatus } from "../status.ts";
import { nodeSentence, storageText } from "../view-models.ts";
import { copyable, facts, statusMark, timeAgo } from "./bits.ts";

const disk = (node: NodeFact): Html =>
  html`<meter
      min="0"
      max="100"
      high="85"
      value="${Math.round(node.storage.usage_pct)}"
      aria-label="Disk used"
    ></meter>
    ${storageText(node)}`;

/** Id rule: `node-facts-NODE`. */
export const nodeFacts = (node: NodeFact, now: number): Html =>
  html`<div id="node-facts-${node.node_id}">
    <div class="head">
      <div>
        <p class="crumb"><a href="/ui/nodes">Nodes</a></p>
        <h1>${node.node_id} ${statusMark(nodeStatus(node))}</h1>
        <p class="lead">${nodeSentence(node)}</p>
      </div>
    </div>
    <div class="card">
      ${facts([
        ["Node", copyable(node.node_id)],
        ["Address", node.address === "" ? node.node_ip : copyable(node.address)],
        ["Driver", `${node.driver}${node.driver_detail === "" ? "" : ` · ${node.driver_detail}`}`],
        ["Disk", disk(node)],
        ["Processors", String(node.cpu_count)],
        ["Memory", formatBytes(node.memory_bytes)],
        ["Guest image", node.guest_image_version || "unknown"],
        ["Agent", node.agent_version || "unknown"],
        ["Guest kernel", node.kernel_version || "unknown"],
        ["Daemon", node.version],
        ["Instance type", node.instance_type],
        ["Started", timeAgo(node.started_at, now)],
      ])}
    </div>
  </div>`;

/** Id rule: `node-card-NODE`. One row of the list of nodes. */
export const nodeCard = (node: NodeFact, now: number): Html =>
  html`<tr id="node-card-${node.node_id}">
    <td>${statusMark(nodeStatus(node))}</td>
    <th scope="row"><a class="row" href="/ui/nodes/${node.node_id}">${node.node_id}</a></th>
    <td>${node.driver}</td>
    <td>${disk(node)}</td>
    <td><span class="clip">${node.guest_image_version || "unknown"}</span></td>
    <td class="num">${node.version}</td>
    <td class="num">${timeAgo(node.started_at, now)}</td>
  </tr>`;
