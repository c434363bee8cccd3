/** What needs an operator. */
import type { ClusterView } from "./cluster.ts";
import type { TemplateCompatMatrix } from "./compat-matrix.ts";
import type { ResnapshotView } from "./resnapshot.ts";
import type { Overview } from "./service.ts";

type CompatSummary = TemplateCompatMatrix["summary"];
type Attention = Overview["attention"][number];

/** Templates with stale replicas, from the sums of the matrix. */
export function compatAttention(
  { stale_templates: templates, stale_replicas, affected_nodes: nodes }: CompatSummary,
  { state }: Pick<ResnapshotView, "state">,
): readonly Attention[] {
  if (templates === 0) return [];
  return [
    {
      subject: `${templates} ${templates === 1 ? "template is" : "templates are"} stale`,
      kind: "compat",
      since: "",
      why:
        `nothing starts from ${stale_replicas} of their replicas on ` +
        `${nodes} ${nodes === 1 ? "node" : "nodes"}: they were made with other versions`,
      next:
        state === "running" || state === "waiting"
          ? "they are being made again, one at a time"
          : "make them again: `templatecenter tpl redo`, or set `resnapshot_interval`",
    },
  ];
}

/** Stale replicas stay stale from a failure on until somebody says that they go on. */
export function resnapshotAttention({ failure }: ResnapshotView): readonly Attention[] {
  if (failure === undefined) return [];
  const { node_id, error } = failure;
  return [
    {
      subject: `${failure.template_id} on ${node_id}`,
      kind: "compat",
      since: failure.failed_at,
      why: `no stale replica is made again since this one failed: ${error}`,
      next: "mend the cause, then run `templatecenter compat resnapshot --resume`",
    },
  ];
}

/** No quorum, dead members, and nodes that have differed for long; nothing for a lone node. */
export function clusterAttention(view: ClusterView): readonly Attention[] {
  if (!view.clustered) return [];
  const down = view.members.filter((member) => member.liveness === "dead");
  const dead = down.map((member): Attention => ({
    subject: member.node_id,
    kind: "cluster",
    since: member.liveness_since,
    why: "the member does not answer",
    next: "bring it back, or remove it from the cluster when it is gone for good",
  }));
  const differing = view.divergence.map((one): Attention => ({
    subject: one.node_id,
    kind: "cluster",
    since: one.since,
    why: `it differs from ${view.node_id} on ${one.count} ${one.count === 1 ? "entry" : "entries"}`,
    next: "the nodes go on comparing; the cluster page names the entries",
  }));
  return [...noQuorum(view), ...dead, ...differing];
}

function noQuorum({ quorum, members, cluster_id }: ClusterView): readonly Attention[] {
  if (quorum.available) return [];
  const missing = members.filter(
    ({ node_id }) => quorum.voters.includes(node_id) && !quorum.alive.includes(node_id),
  );
  const since = missing.map((member) => member.liveness_since).sort();
  return [
    {
      subject: "no quorum",
      kind: "cluster",
      // The last that went took the majority away.
      since: since.at(-1) ?? "",
      why: quorum.note || `a majority of the voters of ${cluster_id} is not up`,
      next: "bring voters back: nothing can be changed until then",
    },
  ];
}
