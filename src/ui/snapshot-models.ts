/** All wording about snapshots of sandboxes. Pure. */
import { ALL_NODES, TEMPLATE_STATUSES } from "../domain/index.ts";
import type {
  DeliverSnapshotRequest,
  LineageEntry,
  NodeFact,
  RuntimeRefList,
  SandboxInfo,
  SnapshotFilter,
  SnapshotInfo,
} from "../domain/index.ts";
import { count, formatBytes } from "./format.ts";
import { nodeChoices, shortList } from "./redo-models.ts";
import { sentence } from "./view-models.ts";

export const snapshotName = (snapshot: Pick<SnapshotInfo, "snapshot_id" | "display_name">) =>
  snapshot.display_name === "" ? snapshot.snapshot_id : snapshot.display_name;

const usersText = (number: number): string =>
  number === 0
    ? "No sandbox runs on it."
    : `${count(number, "sandbox runs", "sandboxes run")} on it.`;

/** One sentence: where the snapshot stands. */
export function snapshotSentence(snapshot: SnapshotInfo): string {
  const of = snapshot.origin_sandbox_id === "" ? "" : ` of sandbox ${snapshot.origin_sandbox_id}`;
  switch (snapshot.status) {
    case "READY":
      return `Memory and disk${of}, frozen. ${usersText(snapshot.runtime_ref_count)}`;
    case "FAILED":
      return `Failed: ${sentence(snapshot.last_error || "no reason was recorded")}`;
    case "DELETING":
      return "Being deleted: nodes remove it.";
    default:
      return `Being made${of}: it stands still while its memory is written.`;
  }
}

const FIELDS = ["snapshot_id", "sandbox_id", "name"] as const;
/** The number of rows that one may choose. */
export const ROWS = [20, 50, 100] as const;

export interface SnapshotQuery {
  readonly filter: SnapshotFilter;
  readonly isFiltered: boolean;
}

/** The five filters and the place in the list, from an address that anybody may have written. */
export function readSnapshotQuery(query: (name: string) => string | undefined): SnapshotQuery {
  const words = FIELDS.flatMap((name) => {
    const value = (query(name) ?? "").trim().slice(0, 256);
    return value === "" ? [] : [[name, value] as const];
  });
  const status = TEMPLATE_STATUSES.find((one) => one === query("status"));
  const limit = ROWS.find((one) => String(one) === query("limit")) ?? ROWS[0];
  const next = query("next_token") ?? "";
  return {
    filter: {
      ...Object.fromEntries(words),
      ...(status === undefined ? {} : { status }),
      limit,
      ...(next === "" ? {} : { next_token: next }),
    },
    isFiltered: words.length > 0 || status !== undefined,
  };
}

export interface TreeNode {
  readonly entry: LineageEntry;
  readonly children: readonly TreeNode[];
}

/** Entries, parents first, as trees. */
export function treesOf(entries: readonly LineageEntry[]): TreeNode[] {
  const ids = new Set(entries.map((entry) => entry.id));
  const below = (id: string): TreeNode[] =>
    entries
      .filter((entry) => entry.depth > 0 && entry.parent_id === id)
      .map((entry) => ({ entry, children: below(entry.id) }));
  return entries
    .filter((entry) => entry.depth === 0 || !ids.has(entry.parent_id))
    .map((entry) => ({ entry, children: below(entry.id) }));
}

/** What freezing a sandbox does. */
export const createEffects = (box: SandboxInfo): string[] => [
  `Sandbox ${box.sandbox_id} on ${box.node_id} stands still while its memory is written, and goes on.`,
  "New sandboxes can be started from the snapshot, and this one can go back to it.",
  "The snapshot stays when the sandbox is stopped.",
];

/** What a rollback does, and what stands in its way. */
export function rollbackPlan(snapshot: SnapshotInfo, box: SandboxInfo | undefined, here: string) {
  const { origin_sandbox_id: id, origin_node_id: node } = snapshot;
  const effects = [
    `Sandbox ${id} on ${node} goes back to ${snapshotName(snapshot)}, taken at ${snapshot.created_at}.`,
    "What it did since then is lost: memory, files, connections. This cannot be undone.",
    "If that fails, it runs on as it was.",
  ];
  const isGone = box === undefined && node === here;
  const blocked =
    snapshot.status !== "READY"
      ? `The snapshot is ${snapshot.status.toLowerCase()}, not ready.`
      : isGone
        ? `Sandbox ${id} does not run any more. Run a new one from the snapshot instead.`
        : undefined;
  return { effects, blocked };
}

/** Names of the form's fields. */
export const TO_ALL = "to-all";
export const toField = (nodeId: string): string => `to-node-${nodeId}`;

/** What the ticked fields ask for; nothing ticked is nothing. */
export function readDelivery(
  form: Readonly<Record<string, string>>,
): DeliverSnapshotRequest["nodes"] {
  if (form[TO_ALL] !== undefined) return ALL_NODES;
  const prefix = toField("");
  return Object.keys(form)
    .filter((field) => field.startsWith(prefix))
    .map((field) => field.slice(prefix.length))
    .sort();
}

/** What bringing it to other nodes does, which those are, and what stands in the way. */
export function deliveryPlan(snapshot: SnapshotInfo, nodes: readonly NodeFact[]) {
  const holders = snapshot.replicas.flatMap(({ node_id, status }) =>
    status === "READY" ? [node_id] : [],
  );
  const size = formatBytes(snapshot.rootfs_size_bytes_at_snapshot);
  const from = holders.length === 0 ? "" : ` from ${shortList(holders)}`;
  const effects = [
    `Memory and disk (${size}) are copied${from} as chunks.`,
    "Sandboxes can be started from it there; what runs is not touched.",
    "A node that it does not fit is refused with the reason before anything is copied.",
  ];
  const lacking = nodes.filter(({ node_id }) => !holders.includes(node_id));
  const blocked =
    snapshot.status !== "READY"
      ? `The snapshot is ${snapshot.status.toLowerCase()}, not ready.`
      : lacking.length === 0
        ? "Every node has it."
        : undefined;
  return { effects, blocked, choices: nodeChoices(lacking, []) };
}

/** What deleting does, and what stands in its way: the refs are those of all nodes, just asked. */
export function deletionPlan(
  snapshot: SnapshotInfo,
  refs: RuntimeRefList,
  children: readonly LineageEntry[],
) {
  const nodes = snapshot.replicas.map((replica) => replica.node_id);
  const size = formatBytes(snapshot.rootfs_size_bytes_at_snapshot);
  const effects = [
    `Snapshot ${snapshotName(snapshot)} (${size}) goes. This cannot be undone.`,
    nodes.length === 0 ? "No node holds it." : `It is removed on ${shortList(nodes)}.`,
    ...(children.length === 0
      ? []
      : [`${count(children.length, "snapshot")} made after it stay and can still be used.`]),
    ...refs.unanswered.map(
      ({ node_id }) => `No answer from ${node_id}: while that is so, the deletion is refused.`,
    ),
  ];
  const users = refs.items.map((ref) => ref.sandbox_id);
  const blocked =
    refs.count === 0
      ? undefined
      : `In use by ${count(refs.count, "sandbox", "sandboxes")}: ${shortList(users)}.`;
  return { effects, blocked };
}
