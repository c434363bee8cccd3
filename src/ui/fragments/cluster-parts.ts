/**
 * The live parts of the cluster page. Id rules: `quorum`, `members`, `leaders`, `divergence`,
 * `swarms`, `sessions`, `messages`.
 */
import type { ClusterView, MemberView, SwarmView } from "../../domain/index.ts";
import { isSpreading, memberStatus, messagesSentence, sessionStatus } from "../cluster-models.ts";
import { count, formatDuration } from "../format.ts";
import { html, join, nothing, type Html } from "../html.ts";
import { sentenceCase, status, type Status } from "../status.ts";
import { commandLines } from "../command-lines.ts";
import {
  commandBox,
  confirmLink,
  copyable,
  emptyState,
  facts,
  statusMark,
  timeAgo,
} from "./bits.ts";
import { shareBars } from "./swarm-bars.ts";
import { table } from "./tables.ts";

const LEADERS_SHOWN = 50;

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
    <td>
      <div class="acts">
        ${confirmLink(`/ui/nodes/${id}/${verb}`, member.drained ? "End drain" : "Drain", "small")}
        ${
          member.self
            ? nothing
            : confirmLink(`/ui/cluster/members/${id}/remove`, "Remove", "small danger")
        }
      </div>
    </td>
  </tr>`;
};

/** What an operator does at a lone node. */
export const howToCluster: Html = html`<p>
    Make a join token here, and give it to <code>templatecenter cluster join</code> on another host.
  </p>
  <p><a class="btn primary" href="/ui/cluster/tokens/new">Make a join token</a></p>
  ${commandBox(commandLines.makeToken(3_600, 1), "Or")}`;

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
            howToCluster,
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

/** The distributions under way. */
export function swarmList(swarms: readonly SwarmView[]): Html {
  const spreading = swarms.filter(isSpreading);
  return html`<div id="swarms">
    ${
      spreading.length === 0
        ? html`<p class="dim">Nothing is being distributed.</p>`
        : join(
            spreading.map(
              (swarm) =>
                html`<div class="card">
                  <p><code>${swarm.artifact_id}</code></p>
                  ${shareBars(swarm, [], undefined)}
                </div>`,
            ),
          )
    }
  </div>`;
}

/** A session is alive as long as its beat moves; a new incarnation is a new session. */
export const sessionTable = (view: ClusterView): Html =>
  html`<div id="sessions">
    ${
      view.sessions.length === 0
        ? html`<p class="dim">No sessions: only members of a cluster have them.</p>`
        : table(
            "Sessions",
            ["Status", "Node", "Incarnation", "Beat", "Term"],
            view.sessions.map(
              (session) =>
                html`<tr>
                  <td>${statusMark(sessionStatus(session))}</td>
                  <th scope="row">${session.node_id}</th>
                  <td class="num">${session.incarnation}</td>
                  <td class="num">${session.beat}</td>
                  <td class="num">${formatDuration(session.term_ms)}</td>
                </tr>`,
            ),
          )
    }
  </div>`;

/** What gossip let in and what it refused, since the daemon started. */
export const messageTable = (view: ClusterView): Html =>
  html`<div id="messages">
    ${
      Object.keys(view.messages).length === 0
        ? html`<p class="dim">No message has come yet.</p>`
        : html`<details id="message-counts">
            <summary>${messagesSentence(view)}</summary>
            ${table(
              "Messages since start",
              ["Message and outcome", "Count"],
              Object.entries(view.messages)
                .sort(([one], [other]) => (one < other ? -1 : 1))
                .map(
                  ([name, number]) =>
                    html`<tr>
                      <th scope="row"><code>${name}</code></th>
                      <td class="num">${number}</td>
                    </tr>`,
                ),
            )}
          </details>`
    }
  </div>`;
