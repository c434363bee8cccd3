/** Wording of the compat pages, and what their actions would do. Pure. */
import type {
  CompatPreview,
  ResnapshotView,
  TemplateCompatMatrix,
  TemplateCompatRow,
  TemplateNodeCompat,
} from "../domain/index.ts";
import { count } from "./format.ts";

type Summary = TemplateCompatMatrix["summary"];
type Delta = TemplateNodeCompat["deltas"][number];

/** What each word of the matrix means, and what to do about it. In the order of the legend. */
export const MEANINGS = {
  OK: "The replica was made with the versions its node would boot now. Sandboxes start from it.",
  STALE:
    "A version that counts has changed since, so that nothing starts from it any more. " +
    "Make it again.",
  UNKNOWN:
    "The replica or its node does not tell its versions, or the node is down. Sandboxes start " +
    "from it as before. Adopt the node's versions as its own where you know that they fit.",
  MISSING: "A healthy node that is to hold the template has no ready replica of it.",
} as const;

export const compatSentence = (summary: Summary): string => {
  const { stale_templates: templates, stale_replicas, affected_nodes } = summary;
  if (templates === 0) return "No replica is stale: every template starts where it is ready.";
  return (
    `${count(templates, "template")} ${templates === 1 ? "has" : "have"} stale replicas: ` +
    `${stale_replicas} on ${count(affected_nodes, "node")}. Nothing starts from them.`
  );
};

const COMPONENTS: Readonly<Record<string, string>> = { guest_image: "guest image" };
const component = (name: string): string => COMPONENTS[name] ?? name.replaceAll("_", " ");

/** `guest image 1.0 → 1.1`; a side that nobody knows is a question mark. */
export const deltaText = ({ component: name, bound, current }: Delta): string =>
  `${component(name)} ${bound || "?"} → ${current || "?"}`;

/** Why a cell is what it is, in one line; blank where there is nothing to say. */
export function cellReason(cell: TemplateNodeCompat): string {
  if (cell.compat_status === "OK") return "";
  if (cell.compat_status === "MISSING") return "no ready replica";
  if (!cell.healthy) return "the node is down";
  const isStale = cell.compat_status === "STALE";
  const deltas = cell.deltas.filter((delta) => delta.is_stale === isStale);
  return deltas.map(deltaText).join(", ");
}

/** Nodes of a page of the matrix, by id. */
export const columnsOf = (rows: readonly TemplateCompatRow[]): string[] =>
  [...new Set(rows.flatMap(({ nodes }) => nodes.map(({ node_id }) => node_id)))].sort();

const nodesThat = (
  row: TemplateCompatRow | undefined,
  status: TemplateNodeCompat["compat_status"],
): string[] =>
  (row?.nodes ?? [])
    .filter((cell) => cell.healthy && cell.compat_status === status)
    .map(({ node_id }) => node_id);

export interface ActionPlan {
  readonly nodes: readonly string[];
  readonly effects: readonly string[];
  /** Why it cannot be done; absent when it can. */
  readonly blocked?: string;
}

/** Taking over the nodes' versions as those that the replicas were made with. */
export function adoptPlan(row: TemplateCompatRow | undefined): ActionPlan {
  const nodes = nodesThat(row, "UNKNOWN");
  const stale = nodesThat(row, "STALE").length;
  return {
    nodes,
    effects: [
      `Its replicas on ${nodes.join(", ") || "no node"} count as made with the versions that ` +
        "their node has now. Whether they really were is for you to know.",
      "A node that does not tell its own versions is left out.",
      ...(stale === 0 ? [] : [`What is stale stays stale: ${count(stale, "replica")}.`]),
    ],
    ...(nodes.length > 0 ? {} : { blocked: "No replica on a healthy node is unknown." }),
  };
}

/** Making stale replicas of one template again, from the root filesystem that is there. */
export function resnapshotPlan(
  row: TemplateCompatRow | undefined,
  drained: ReadonlySet<string>,
): ActionPlan {
  const nodes = nodesThat(row, "STALE").filter((node) => !drained.has(node));
  const blocked =
    row?.kind === "snapshot"
      ? "A snapshot is the memory of one sandbox at one moment: it cannot be made again."
      : nodes.length === 0
        ? "No replica is stale on a node that is healthy and not drained."
        : undefined;
  return {
    nodes,
    effects: [
      `It is booted and snapshotted again on ${nodes.join(", ") || "no node"}, with the versions ` +
        "of today. The root filesystem stays as it is.",
      "What is there serves the sandboxes that run from it, and goes when they have ended.",
      ...((row?.origin_sandbox_id ?? "") !== ""
        ? ["It was made from a sandbox: its programs start anew, without what they had in memory."]
        : []),
    ],
    ...(blocked === undefined ? {} : { blocked }),
  };
}

/** Where making stale replicas again by themselves is, in one sentence. */
export function resnapshotSentence(view: ResnapshotView): string {
  const left = count(view.pending, "stale replica");
  switch (view.state) {
    case "off":
      return "Off: stale replicas stay stale until somebody makes them again. Set resnapshot_interval on the nodes where it shall happen by itself.";
    case "idle":
      return "On: a replica that becomes stale is made again, one at a time.";
    case "waiting":
      return view.next === undefined
        ? `${left} to be made again; other jobs work on their templates.`
        : `${left} to be made again, one at a time.`;
    case "running":
      return `One is being made again; ${left} in all.`;
    case "stopped":
      return `Stopped by the first failure; ${left} left.`;
  }
}

export const previewSentence = ({ summary }: CompatPreview): string => {
  const { templates, replicas, nodes, unusable_templates: unusable } = summary;
  if (templates === 0) return "Nothing would become stale.";
  return (
    `${count(templates, "template")} would have stale replicas: ${replicas} on ` +
    `${count(nodes, "node")}. ${unusable} could start nowhere until they are made again.`
  );
};

/** What else an upgrade would change, as far as there is something to say. */
export function previewNotes({ summary, notes }: CompatPreview): string[] {
  const { already_stale, healed, unknown } = summary;
  return [
    ...(already_stale === 0 ? [] : [`Stale now already: ${count(already_stale, "replica")}.`]),
    ...(healed === 0 ? [] : [`Would fit again: ${count(healed, "stale replica")}.`]),
    ...(unknown === 0 ? [] : [`Of ${count(unknown, "replica")} nobody can tell.`]),
    ...notes.map((note) => `${note.charAt(0).toUpperCase()}${note.slice(1)}.`),
  ];
}
