import type { ClusterView, SwarmView } from "../../domain/index.ts";
import { clusterSentence } from "../cluster-models.ts";
import {
  divergenceList,
  leaderTable,
  memberTable,
  messageTable,
  quorumCard,
  sessionTable,
  swarmList,
} from "../fragments/cluster-parts.ts";
import { tokenTable } from "../fragments/token-table.ts";
import { html, type Html } from "../html.ts";

export const clusterPage = (view: ClusterView, swarms: readonly SwarmView[], now: number): Html =>
  html`<div class="head">
      <div>
        <h1>Cluster</h1>
        <p class="lead">${clusterSentence(view)}</p>
      </div>
      <div class="acts"><a class="btn" href="/ui/cluster/tokens/new">Make a join token</a></div>
    </div>
    ${quorumCard(view)}
    <section>
      <h2>Members</h2>
      ${memberTable(view, now)}
    </section>
    <section>
      <h2>Join tokens</h2>
      ${tokenTable(view, now)}
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
    </section>
    <section>
      <h2>Sessions</h2>
      ${sessionTable(view)}
    </section>
    <section>
      <h2>Gossip</h2>
      ${messageTable(view)}
    </section>`;
