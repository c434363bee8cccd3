/**
 * How much of what a node shall hold is READY there: a node that was just added is filled first.
 */
import { CLUSTER, type Catalog } from "../domain/index.ts";
import type { Nodes } from "./nodes.ts";
import { placeTemplate } from "./workers/placement.ts";

export interface Coverage {
  readonly wanted: number;
  readonly ready: number;
}

/** By node id, for all members. */
export function coverageOf(catalog: Catalog, nodes: Nodes): Map<string, Coverage> {
  const counts = new Map(nodes.all().map((node) => [node.node_id, { wanted: 0, ready: 0 }]));
  for (const { value: template } of catalog.list("template", { owner: CLUSTER })) {
    if (template === undefined || template.status === "FAILED" || template.status === "DELETING") {
      continue;
    }
    for (const nodeId of placeTemplate(template, nodes)) {
      const count = counts.get(nodeId);
      if (count === undefined) continue;
      count.wanted++;
      const replica = catalog.get(nodeId, "replica", template.template_id)?.value;
      if (replica?.status === "READY") count.ready++;
    }
  }
  return counts;
}
