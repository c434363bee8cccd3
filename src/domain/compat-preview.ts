/** What an upgrade of guest image, agent or kernel would break (design §9), before it is done. */
import { z } from "zod";
import { evaluateCompat, type CompatPolicy, type PublishedVersions } from "./compat.ts";
import { byText, readyReplicas, type CompatInput } from "./compat-matrix.ts";
import type { NodeFact, ReplicaStatus } from "./schema.ts";

const text = z.string();
const count = z.number().int().nonnegative();

export const compatPreviewSchema = z.object({
  guest_image_version: text.describe("blank: as each node has it now"),
  agent_version: text,
  kernel_version: text,
  versions_extra: z.record(text, text),
  summary: z.object({
    templates: count.describe("templates with a replica that would become stale"),
    replicas: count,
    nodes: count,
    unusable_templates: count.describe("templates that could start nowhere any more"),
    already_stale: count.describe("replicas that are stale now and stay so"),
    healed: count.describe("replicas that are stale now and would fit again"),
    unknown: count.describe("replicas of which nobody can tell"),
  }),
  templates: z.array(
    z.object({
      template_id: text,
      display_name: text,
      nodes: z.array(text).describe("where it would become stale"),
      is_unusable: z.boolean(),
    }),
  ),
  nodes: z.array(z.object({ node_id: text, replicas: count })),
  notes: z.array(text),
});
export type CompatPreview = z.infer<typeof compatPreviewSchema>;

export interface Upgrade {
  readonly guestImage?: string | undefined;
  readonly agent?: string | undefined;
  readonly kernel?: string | undefined;
  /** What the driver reports besides: `{ qemu_version: "10.0" }`. */
  readonly extra?: Readonly<Record<string, string>> | undefined;
}

const version = text.trim().min(1, "must not be blank").max(256).optional();

/** A preview as it is asked for in a query. */
export const upgradeQuerySchema = z
  .strictObject({
    guest_image: version,
    agent: version,
    kernel: version,
    extra: text
      .regex(/^[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*$/, "must be NAME=VERSION, separated by commas")
      .max(1_024)
      .optional()
      .describe("what the driver reports besides: qemu_version=10.0,machine=microvm"),
  })
  .refine((query) => Object.keys(query).length > 0, "name at least one version");

export function upgradeOf(query: z.infer<typeof upgradeQuerySchema>): Upgrade {
  const { guest_image: guestImage, agent, kernel } = query;
  const extra: Record<string, string> = {};
  for (const pair of query.extra?.split(",") ?? []) {
    const [name = "", value = ""] = pair.split("=", 2);
    extra[name] = value;
  }
  return { guestImage, agent, kernel, extra };
}

const KERNEL_NOTE =
  "a kernel alone breaks nothing: each snapshot goes on with the kernel in its own memory";

/** Every node would have these versions, and otherwise what it has now: what would be stale? */
export function previewUpgrade(input: CompatInput, upgrade: Upgrade): CompatPreview {
  const nodes = new Map(input.nodes.map((node) => [node.node_id, node]));
  const held = readyReplicas(input.replicas);
  const summary = {
    templates: 0,
    replicas: 0,
    nodes: 0,
    unusable_templates: 0,
    already_stale: 0,
    healed: 0,
    unknown: 0,
  };
  const perNode = new Map<string, number>();
  const templates: CompatPreview["templates"] = [];
  for (const template of [...input.templates].sort((a, b) =>
    byText(a.template_id, b.template_id),
  )) {
    const broken: string[] = [];
    let usable = 0;
    for (const [nodeId, replica] of held.get(template.template_id) ?? []) {
      const node = nodes.get(nodeId);
      if (node === undefined) continue;
      const change = changeOf(replica, node, upgrade);
      if (change === "breaks") broken.push(nodeId);
      else if (change !== "stays stale") usable++;
      if (change === "stays stale") summary.already_stale++;
      if (change === "heals") summary.healed++;
      if (change === "unknown") summary.unknown++;
    }
    if (broken.length === 0) continue;
    for (const nodeId of broken) perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
    const { template_id, display_name = "" } = template;
    const is_unusable = usable === 0;
    if (is_unusable) summary.unusable_templates++;
    summary.replicas += broken.length;
    templates.push({ template_id, display_name, nodes: broken.sort(byText), is_unusable });
  }
  summary.templates = templates.length;
  summary.nodes = perNode.size;
  return {
    guest_image_version: upgrade.guestImage ?? "",
    agent_version: upgrade.agent ?? "",
    kernel_version: upgrade.kernel ?? "",
    versions_extra: { ...upgrade.extra },
    summary,
    templates,
    nodes: [...perNode]
      .sort(([a], [b]) => byText(a, b))
      .map(([node_id, replicas]) => ({ node_id, replicas })),
    notes: upgrade.kernel === undefined ? [] : [KERNEL_NOTE],
  };
}

/** A node that is down will have the new versions as well when it is back: it counts too. */
function changeOf(replica: ReplicaStatus, node: NodeFact, upgrade: Upgrade) {
  const policy: CompatPolicy = replica.compat_policy ?? "STRICT";
  const after: PublishedVersions = {
    guest_image_version: upgrade.guestImage ?? node.guest_image_version,
    agent_version: upgrade.agent ?? node.agent_version,
    kernel_version: upgrade.kernel ?? node.kernel_version,
    versions_extra: { ...node.versions_extra, ...upgrade.extra },
  };
  const was = evaluateCompat(replica, node, policy);
  const is = evaluateCompat(replica, after, policy);
  if (is === "STALE") return was === "STALE" ? "stays stale" : "breaks";
  if (was === "STALE") return "heals";
  return is === "UNKNOWN" ? "unknown" : "fits";
}
