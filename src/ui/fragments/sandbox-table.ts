import type { SandboxInfo } from "../../domain/index.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { sandboxStatus } from "../status.ts";
import { timingsText } from "../view-models.ts";
import { commandBox, confirmLink, emptyState, statusMark, timeAgo } from "./bits.ts";
import { commandLines } from "../command-lines.ts";

const HEAD = html`<thead>
  <tr>
    <th scope="col">Status</th>
    <th scope="col">Sandbox</th>
    <th scope="col">Template</th>
    <th scope="col">Ports</th>
    <th scope="col">Start</th>
    <th scope="col" class="num">Age</th>
    <th scope="col"><span class="vh">Actions</span></th>
  </tr>
</thead>`;

function ports(box: SandboxInfo): Html {
  const entries = Object.entries(box.ports);
  if (entries.length === 0) return html`<span class="dim">–</span>`;
  return join(
    entries.map(([guest, { host, port }]) => {
      const address = `${host}:${port}`;
      return html`<div>
        ${guest} → <a href="http://${address}" rel="noreferrer">${address}</a>
      </div>`;
    }),
  );
}

const row = (box: SandboxInfo, now: number): Html =>
  html`<tr id="sandbox-${box.sandbox_id}">
    <td>${statusMark(sandboxStatus(box.status))}</td>
    <th scope="row"><code>${box.sandbox_id}</code></th>
    <td><a class="row" href="/ui/templates/${box.template_id}">${box.template_id}</a></td>
    <td>${ports(box)}</td>
    <td class="sub">${timingsText(box.timings)}</td>
    <td class="num">${timeAgo(box.created_at, now)}</td>
    <td class="num">
      ${
        box.status === "RUNNING"
          ? confirmLink(`/ui/sandboxes/${box.sandbox_id}/snapshot`, "Snapshot", "small")
          : nothing
      }
      <a
        class="btn small"
        href="/ui/snapshots?${new URLSearchParams({ sandbox_id: box.sandbox_id }).toString()}"
        >Its snapshots</a
      >
      ${confirmLink(`/ui/sandboxes/${box.sandbox_id}/stop`, "Stop", "small")}
    </td>
  </tr>`;

/** Id rule: `sandboxes`; one such table on a page. */
export const sandboxTable = (boxes: readonly SandboxInfo[], now: number): Html =>
  boxes.length === 0
    ? html`<div id="sandboxes">
        ${emptyState(
          "No sandboxes run here",
          "Open a ready template and run one from its snapshot.",
          commandBox(commandLines.runSandbox("TEMPLATE"), "Or"),
        )}
      </div>`
    : html`<div id="sandboxes" class="tbl">
        <table>
          <caption class="vh">
            Sandboxes on this node
          </caption>
          ${HEAD}
          <tbody>
            ${join(boxes.map((box) => row(box, now)))}
          </tbody>
        </table>
      </div>`;
