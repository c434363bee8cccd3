import type { ClusterView, SwarmView } from "../../domain/index.ts";
import {
  divergenceList,
  leaderTable,
  memberTable,
  quorumCard,
  swarmList,
} from "../fragments/cluster-parts.ts";
import { html, type Html } from "../html.ts";
import { count } from "../format.ts";

export const clusterSentence = (view: ClusterView): string => {
  if (!view.clustered) return "This node is alone and its own quorum.";
  const alive = view.members.filter((member) => member.liveness === "alive").length;
  const quorum = view.quorum.available ? "changes go on" : "changes are refused: no quorum";
  return `${alive} of ${count(view.members.length, "node")} alive, ${quorum}.`;
};

export const clusterPage = (view: ClusterView, swarms: readonly SwarmView[], now: number): Html =>
  html`<div class="head">
      <div>
        <h1>Cluster</h1>
        <p class="lead">${clusterSentence(view)}</p>
      </div>
    </div>
    ${quorumCard(view)}
    <section>
      <h2>Members</h2>
      ${memberTable(view, now)}
    </section>
    <section>
      <h2>Distribution</h2>
      ${swarmList(swarms)}
    </section>
    <section>
      <h2>Leaders</h2>
      ${leaderTable(view, now)}
    </section>
    <section>
      <h2>Disagreement</h2>
      ${divergenceList(view, now)}
    </section>`;
