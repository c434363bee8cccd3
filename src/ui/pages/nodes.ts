import type { NodeFact, SandboxInfo } from "../../domain/index.ts";
import { html, join, type Html } from "../html.ts";
import { count } from "../format.ts";
import { nodeCard, nodeFacts } from "../fragments/node-facts.ts";
import { sandboxTable } from "../fragments/sandbox-table.ts";

const HEADS = ["Status", "Node", "Driver", "Disk", "Guest image", "Daemon", "Started"];

export const nodesPage = (nodes: readonly NodeFact[], now: number): Html =>
  html`<div class="head">
      <div>
        <h1>Nodes</h1>
        <p class="lead">
          ${nodes.length === 1 ? "This node is alone." : count(nodes.length, "node")}
        </p>
      </div>
    </div>
    <div class="tbl">
      <table class="rows">
        <caption class="vh">
          Nodes
        </caption>
        <thead>
          <tr>
            ${join(HEADS.map((name) => html`<th scope="col">${name}</th>`))}
          </tr>
        </thead>
        <tbody>
          ${join(nodes.map((node) => nodeCard(node, now)))}
        </tbody>
      </table>
    </div>`;

export const nodePage = (node: NodeFact, boxes: readonly SandboxInfo[], now: number): Html =>
  html`${nodeFacts(node, now)}
    <section>
      <h2>Sandboxes</h2>
      ${sandboxTable(boxes, now)}
    </section>`;
