/**
 * The compat matrix and what an upgrade would break (spec §5.5): templates by nodes, from the
 * replicas' bound versions and what the nodes say of themselves. Pure; any node computes it.
 */
import { z } from "zod";
import {
  COMPAT_POLICIES,
  COMPAT_STATUSES,
  hasVersions,
  scanCompat,
  versionDeltas,
  type CompatStatus,
} from "./compat.ts";
import { inScope } from "./resolve.ts";
import type { NodeFact, ReplicaStatus, TemplateRecord } from "./schema.ts";

const text = z.string();
const count = z.number().int().nonnegative();

export const versionDeltaSchema = z.object({
  component: text.describe("guest_image, agent, kernel, or what the driver reports besides"),
  bound: text,
  current: text,
  is_stale: z.boolean().describe("this one alone makes the replica stale"),
});

export const nodeCompatSchema = z.object({
  node_id: text,
  node_ip: text,
  healthy: z.boolean(),
  compat_status: z.enum(COMPAT_STATUSES),
  compat_policy: z.enum(COMPAT_POLICIES),
  bound_guest_image_version: text,
  current_guest_image_version: text,
  bound_agent_version: text,
  current_agent_version: text,
  bound_kernel_version: text,
  current_kernel_version: text,
  deltas: z.array(versionDeltaSchema),
});
export type TemplateNodeCompat = z.infer<typeof nodeCompatSchema>;

export const compatRowSchema = z.object({
  template_id: text,
  instance_type: text,
  kind: z.enum(["template", "snapshot"]),
  display_name: text,
  origin_sandbox_id: text.describe("what it was made from; made again, its memory is lost"),
  overall: z.enum(COMPAT_STATUSES),
  nodes: z.array(nodeCompatSchema),
});
export type TemplateCompatRow = z.infer<typeof compatRowSchema>;

export const compatMatrixSchema = z.object({
  summary: z.object({
    stale_templates: count,
    stale_replicas: count,
    affected_nodes: count.describe("nodes with a stale replica"),
    missing_replicas: count,
    unknown_replicas: count,
  }),
  templates: z.array(compatRowSchema),
  next_token: text.optional(),
});
export type TemplateCompatMatrix = z.infer<typeof compatMatrixSchema>;

export interface CompatInput {
  readonly templates: readonly TemplateRecord[];
  /** As they are believed to be now: `healthy` is the reader's opinion. */
  readonly nodes: readonly NodeFact[];
  readonly replicas: Iterable<{ readonly id: string; readonly value?: ReplicaStatus }>;
}

export const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

type Held = ReadonlyMap<string, ReadonlyMap<string, ReplicaStatus>>;

/** READY replicas by template and node. */
export function readyReplicas(replicas: CompatInput["replicas"]): Held {
  const held = new Map<string, Map<string, ReplicaStatus>>();
  for (const { id, value } of replicas) {
    if (value?.status !== "READY") continue;
    let ofTemplate = held.get(id);
    if (ofTemplate === undefined) held.set(id, (ofTemplate = new Map<string, ReplicaStatus>()));
    ofTemplate.set(value.node_id, value);
  }
  return held;
}

/** Live evaluation; stored when the node says nothing of its versions (spec §5.5). */
function cellStatus(replica: ReplicaStatus | undefined, node: NodeFact): CompatStatus {
  if (replica === undefined) return "MISSING";
  if (node.healthy && !hasVersions(node)) {
    const live = scanCompat(replica, node);
    return live === "STALE" ? live : (replica.compat_status ?? "UNKNOWN");
  }
  return scanCompat(replica, node);
}

function cellOf({ node, replica, status }: Cell): TemplateNodeCompat {
  const compat_policy = replica?.compat_policy ?? "STRICT";
  return {
    node_id: node.node_id,
    node_ip: node.node_ip,
    healthy: node.healthy,
    compat_status: status,
    compat_policy,
    bound_guest_image_version: replica?.guest_image_version ?? "",
    current_guest_image_version: node.guest_image_version,
    bound_agent_version: replica?.agent_version ?? "",
    current_agent_version: node.agent_version,
    bound_kernel_version: replica?.kernel_version ?? "",
    current_kernel_version: node.kernel_version,
    deltas: replica === undefined ? [] : versionDeltas(replica, node, compat_policy),
  };
}

/** STALE if any is, else the first UNKNOWN or MISSING in the order of nodes, else OK. */
function overallOf(cells: readonly Cell[]): CompatStatus {
  if (cells.some((cell) => cell.status === "STALE")) return "STALE";
  return cells.find((cell) => cell.status !== "OK")?.status ?? "OK";
}

interface Cell {
  readonly node: NodeFact;
  readonly replica: ReplicaStatus | undefined;
  readonly status: CompatStatus;
}

function cellsOf(
  template: TemplateRecord,
  nodes: readonly NodeFact[],
  held: ReadonlyMap<string, ReplicaStatus> | undefined,
): Cell[] {
  const cells: Cell[] = [];
  for (const node of nodes) {
    const replica = held?.get(node.node_id);
    const isExpected =
      node.healthy &&
      node.instance_type === template.instance_type &&
      inScope(node, template.distribution_scope ?? []);
    if (replica === undefined && !isExpected) continue;
    cells.push({ node, replica, status: cellStatus(replica, node) });
  }
  return cells;
}

export interface MatrixFilter {
  /** Only rows with this overall status. */
  readonly status?: CompatStatus | undefined;
  /** Only this template's row. */
  readonly template_id?: string | undefined;
}

export interface MatrixPage extends MatrixFilter {
  /** Only rows whose template id is greater. */
  readonly after?: string | undefined;
  readonly limit?: number | undefined;
}

/**
 * Rows: every definition, snapshots included, by id. Cells: healthy nodes of the row's instance
 * type in its distribution scope, by node id; and whatever other node holds a READY replica of it.
 * Only a healthy node can be MISSING one. The summary counts all rows, on the page or not; cells
 * are described for those on the page alone.
 */
export function getCompatMatrix(
  input: CompatInput,
  page: MatrixPage = {},
): Omit<TemplateCompatMatrix, "next_token"> & { readonly hasMore: boolean } {
  const { status: wanted, template_id: only, after = "", limit = Infinity } = page;
  const held = readyReplicas(input.replicas);
  const nodes = [...input.nodes].sort((a, b) => byText(a.node_id, b.node_id));
  const counts = { OK: 0, STALE: 0, UNKNOWN: 0, MISSING: 0 };
  const affected = new Set<string>();
  const templates: TemplateCompatRow[] = [];
  let stale_templates = 0;
  let hasMore = false;
  const sorted = [...input.templates].sort((a, b) => byText(a.template_id, b.template_id));
  for (const template of sorted) {
    const { template_id, instance_type, kind } = template;
    const cells = cellsOf(template, nodes, held.get(template_id));
    for (const { status, node } of cells) {
      counts[status]++;
      if (status === "STALE") affected.add(node.node_id);
    }
    const overall = overallOf(cells);
    if (overall === "STALE") stale_templates++;
    if (template_id <= after || (wanted !== undefined && overall !== wanted)) continue;
    if (only !== undefined && template_id !== only) continue;
    if (templates.length >= limit) hasMore = true;
    else {
      const described = cells.map(cellOf);
      const { display_name = "", origin_sandbox_id = "" } = template;
      templates.push({
        ...{ template_id, instance_type, kind, display_name, origin_sandbox_id },
        ...{ overall, nodes: described },
      });
    }
  }
  return {
    summary: {
      stale_templates,
      stale_replicas: counts.STALE,
      affected_nodes: affected.size,
      missing_replicas: counts.MISSING,
      unknown_replicas: counts.UNKNOWN,
    },
    templates,
    hasMore,
  };
}
