/**
 * The live parts of the cluster page. Id rules: `quorum`, `members`, `leaders`, `divergence`,
 * `swarms`.
 */
import type { ClusterView, MemberView, SwarmView } from "../../domain/index.ts";
import { count, formatBytes } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { sentenceCase, status, type Status } from "../status.ts";
import { confirmLink, copyable, emptyState, facts, statusMark, timeAgo } from "./bits.ts";

const LEADERS_SHOWN = 50;

/** One state per member, worst first. */
export function memberStatus(member: MemberView): Status {
  if (member.liveness === "dead") return status("DEAD");
  if (member.liveness === "suspect") return status("SUSPECT");
  if (member.drained) return status("DRAINED");
  return status(member.warm ? "ALIVE" : "WARMING");
}

const table = (caption: string, heads: readonly string[], rows: readonly Html[]): Html =>
  html`<div class="tbl" tabindex="0" role="group" aria-label="${caption}">
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

export const quorumCard = (view: ClusterView): Html =>
  html`<div id="quorum" class="card">
    ${facts([
      ["Quorum", statusMark(status(view.quorum.available ? "OK" : "NO_QUORUM"))],
      ["What it means", view.quorum.note || "A majority of the voters is up: all changes go on."],
      [
        "Voters",
        join(view.quorum.voters.map((name, at) => html`${at > 0 ? ", " : ""}${voter(view, name)}`)),
      ],
      [
        "Configuration",
        `${view.quorum.number}${view.quorum.changing ? ", a change of voters is under way" : ""}`,
      ],
      ["Cluster", view.cluster_id === "" ? undefined : copyable(view.cluster_id)],
      ["To be mended", view.warnings.length === 0 ? undefined : warningList(view)],
      ["State here", html`<code title="${view.state_hash}">${view.state_hash.slice(0, 12)}</code>`],
    ])}
  </div>`;

const warning = (code: string): Status => ({
  word: sentenceCase(code),
  shape: "failed",
  tone: "bad",
});

const warningList = (view: ClusterView): Html =>
  join(
    view.warnings.map(
      (one) =>
        html`<p>${statusMark(warning(one.code))} ${one.node_id}: ${one.detail}. ${one.advice}</p>`,
    ),
  );

const voter = (view: ClusterView, name: string): Html =>
  view.quorum.alive.includes(name) ? html`${name}` : html`<del>${name}</del>`;

const sync = (member: MemberView): Html => {
  if (member.self) return html`<span class="dim">this node</span>`;
  if (member.in_sync === null) return html`<span class="dim">not compared</span>`;
  return statusMark(status(member.in_sync ? "IN_SYNC" : "BEHIND"));
};

const memberRow = (member: MemberView, now: number): Html => {
  const { node_id: id } = member;
  const verb = member.drained ? "undrain" : "drain";
  return html`<tr id="member-${id}">
    <td>${statusMark(memberStatus(member))}</td>
    <th scope="row"><a class="row" href="/ui/nodes/${id}">${id}</a></th>
    <td>${member.voter ? "voter" : nothing}</td>
    <td>
      <meter
        min="0"
        max="100"
        value="${member.coverage_pct}"
        aria-label="Templates ready on ${id}"
      ></meter>
      ${member.ready} of ${member.wanted}
    </td>
    <td>${sync(member)}</td>
    <td class="num">${member.lag_ms === undefined ? "–" : `${Math.round(member.lag_ms)} ms`}</td>
    <td class="num">${member.leads}</td>
    <td class="num">${timeAgo(member.liveness_since, now)}</td>
    <td>${confirmLink(`/ui/nodes/${id}/${verb}`, member.drained ? "End drain" : "Drain")}</td>
  </tr>`;
};

const MEMBER_HEADS = [
  "Status",
  "Node",
  "Vote",
  "Templates ready",
  "State",
  "Lag",
  "Leads",
  "Since",
  "Action",
];

export const memberTable = (view: ClusterView, now: number): Html =>
  html`<div id="members">
    ${
      view.members.length === 0
        ? emptyState(
            "This node is alone",
            "It is its own quorum: everything works, on this host only.",
            html`<p>
              Make a join token here with <code>templatecenter cluster token</code>, and give it to
              <code>templatecenter cluster join</code> on another host.
            </p>`,
          )
        : table(
            "Members",
            MEMBER_HEADS,
            view.members.map((member) => memberRow(member, now)),
          )
    }
  </div>`;

export const leaderTable = (view: ClusterView, now: number): Html => {
  const valid = view.leaders.filter((leader) => leader.valid);
  return html`<div id="leaders">
    ${
      valid.length === 0
        ? html`<p class="dim">Nobody leads anything now: there is no work.</p>`
        : table(
            "Leaders",
            ["Template", "Leader", "Epoch", "Since"],
            valid.slice(0, LEADERS_SHOWN).map(
              (leader) =>
                html`<tr>
                  <th scope="row">
                    <a class="row" href="/ui/templates/${leader.template_id}"
                      >${leader.template_id}</a
                    >
                  </th>
                  <td>${leader.node_id}</td>
                  <td class="num">${leader.epoch}</td>
                  <td class="num">${timeAgo(leader.since, now)}</td>
                </tr>`,
            ),
          )
    }
    ${
      valid.length > LEADERS_SHOWN
        ? html`<p class="dim">and ${count(valid.length - LEADERS_SHOWN, "leader")} more</p>`
        : nothing
    }
  </div>`;
};

export const divergenceList = (view: ClusterView, now: number): Html =>
  html`<div id="divergence">
    ${
      view.divergence.length === 0
        ? html`<p class="dim">No node has disagreed with this one for long.</p>`
        : join(
            view.divergence.map(
              (one) =>
                html`<p>
                    ${statusMark(status("BEHIND"))} ${one.node_id} and ${view.node_id} have
                    disagreed on ${count(one.count, "entry", "entries")} since
                    ${timeAgo(one.since, now)}
                  </p>
                  <ul>
                    ${join(
                      one.entries.map(
                        (entry) =>
                          html`<li>
                            <code>${entry.kind}/${entry.id}</code> of ${entry.owner}: version
                            ${entry.here} here, ${entry.there} there
                          </li>`,
                      ),
                    )}
                  </ul>`,
            ),
          )
    }
  </div>`;

const shareRow = (swarm: SwarmView, node: SwarmView["nodes"][number]): Html => {
  const percent =
    swarm.chunk_count === 0 ? 100 : Math.floor((node.have_chunks * 100) / swarm.chunk_count);
  const from = Object.keys(node.sources).length;
  return html`<tr>
    <th scope="row">${node.node_id}</th>
    <td>
      <meter
        min="0"
        max="100"
        value="${percent}"
        aria-label="Share that ${node.node_id} holds"
      ></meter>
      ${percent} %
    </td>
    <td class="num">${from === 0 ? "–" : count(from, "source")}</td>
    <td class="num">${node.reused_chunks === 0 ? "–" : count(node.reused_chunks, "chunk")}</td>
    <td class="num">${formatBytes(node.sent_bytes)}</td>
    <td class="num">${node.down_bps === 0 ? "–" : `${formatBytes(node.down_bps)}/s`}</td>
  </tr>`;
};

export const swarmList = (swarms: readonly SwarmView[]): Html =>
  html`<div id="swarms">
    ${
      swarms.length === 0
        ? html`<p class="dim">Nothing is being distributed.</p>`
        : join(
            swarms.map(
              (swarm) =>
                html`<h3>
                    <code>${swarm.artifact_id}</code>, ${formatBytes(swarm.size_bytes)} in
                    ${count(swarm.chunk_count, "chunk")}
                  </h3>
                  ${table(
                    `Shares of ${swarm.artifact_id}`,
                    ["Node", "Holds", "From", "Reused", "Sent", "Receives"],
                    swarm.nodes.map((node) => shareRow(swarm, node)),
                  )}`,
            ),
          )
    }
  </div>`;
