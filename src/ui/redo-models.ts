/** What the page says of a redo before it is confirmed. Pure. */
import { REDO_MODES, isAppError } from "../domain/index.ts";
import type { NodeFact, RedoMode, RedoPreview, RedoRequest } from "../domain/index.ts";
import { count } from "./format.ts";
import { nodeStatus, type Status } from "./status.ts";
import { sentence } from "./view-models.ts";

/** The choices as a form or an address has them. */
export interface RedoForm {
  readonly mode: RedoMode;
  readonly nodes: readonly string[];
  readonly memoryOnly: boolean;
}

/** From untrusted text; what is not known is ALL. */
export function readRedo(values: {
  readonly mode: string | undefined;
  readonly nodes: readonly string[];
  readonly memoryOnly: boolean;
}): RedoForm {
  const mode = REDO_MODES.find((one) => one === values.mode) ?? "ALL";
  const isScoped = mode === "NODES" || mode === "FAILED_NODES";
  const nodes = [...new Set(values.nodes.filter((node) => node !== ""))].sort();
  return { mode, nodes: isScoped ? nodes : [], memoryOnly: values.memoryOnly };
}

export const redoRequest = (form: RedoForm): RedoRequest => ({
  redo_mode: form.mode,
  ...(form.nodes.length === 0 ? {} : { distribution_scope: [...form.nodes] }),
  ...(form.memoryOnly ? { memory_only: true } : {}),
});

/** What each mode does, in a few words. */
export const MODE_WORDS: Readonly<Record<RedoMode, string>> = {
  ALL: "All nodes that shall have it",
  NODES: "Only the nodes ticked below",
  FAILED_ONLY: "Only nodes whose replica has failed",
  FAILED_NODES: "Of the nodes ticked below those whose replica has failed",
};

const FROM: Readonly<Record<string, string>> = {
  BUILDING_EXT4: "The image is pulled and its root filesystem built again first.",
  DISTRIBUTING:
    "Nodes that lack the root filesystem get it; each boots it and takes a new snapshot.",
  SNAPSHOTTING: "The root filesystem stays as it is; each node boots it and takes a new snapshot.",
};

/** What happens when it is confirmed, the most important line first. */
export function redoEffects(form: RedoForm, preview: RedoPreview): string[] {
  const { nodes } = preview;
  const one = nodes.length === 1;
  return [
    `${count(nodes.length, "node")} ${one ? "makes its replica" : "make their replicas"} anew: ` +
      `${shortList(nodes)}.`,
    FROM[preview.resume_phase] ?? "It goes on where the last job stopped.",
    "What is there serves until the new one is ready; sandboxes that run go on.",
    form.memoryOnly
      ? "Memory only: if no node that is up has the root filesystem, it fails and builds nothing."
      : "If no node that is up has the root filesystem, the image is pulled and built again.",
  ];
}

const LISTED = 12;

/** The first dozen names, and how many more there are. */
export function shortList(names: readonly string[]): string {
  const more = names.length - LISTED;
  return names.slice(0, LISTED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Why it cannot be done now, or what would be done. Failures of this node itself are thrown. */
export function tryPreview(preview: () => RedoPreview): RedoPreview | string {
  try {
    return preview();
  } catch (error) {
    if (!isAppError(error) || error.row.status >= 500) throw error;
    return error.code === "no_failed_template_replicas"
      ? "No node has a replica that failed."
      : sentence(error.message);
  }
}

export interface NodeChoice {
  readonly nodeId: string;
  readonly state: Status;
  /** Unhealthy and drained nodes make no replicas. */
  readonly isOpen: boolean;
  readonly isTicked: boolean;
}

export const nodeChoices = (
  nodes: readonly NodeFact[],
  ticked: readonly string[],
): readonly NodeChoice[] =>
  [...nodes]
    .sort((a, b) => (a.node_id < b.node_id ? -1 : 1))
    .map((node) => ({
      nodeId: node.node_id,
      state: nodeStatus(node),
      isOpen: node.healthy && !node.drained,
      isTicked: ticked.includes(node.node_id),
    }));
