/** Snapshots of sandboxes and operations on them, from what is known here (spec §4.10, §6.4). */
import {
  AppError,
  lineage,
  listSnapshots,
  readyNodes,
  snapshotInfo,
  snapshotOperation,
  type Catalog,
  type Queries,
  type SnapshotInfo,
  type TemplateRecord,
} from "../domain/index.ts";
import type { Nodes } from "./nodes.ts";
import { replicasOf, type Records } from "./records.ts";

export type SnapshotQueries = Pick<
  Queries,
  "listSnapshots" | "snapshot" | "snapshotNodes" | "snapshotOperation" | "lineage"
>;

/** @throws AppError snapshot_not_found, also for the id of a template */
export function findSnapshot(records: Pick<Records, "get">, id: string): TemplateRecord {
  const record = records.get("template", id);
  if (record?.kind === "snapshot") return record;
  throw new AppError("snapshot_not_found", `snapshot ${JSON.stringify(id)} not found`);
}

export function createSnapshotQueries({
  catalog,
  records,
  nodes,
}: {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Pick<Nodes, "all" | "self" | "isMember">;
}): SnapshotQueries {
  const view = (record: TemplateRecord, options?: { includeRequest?: boolean }): SnapshotInfo => {
    const refs = { count: 0, sandboxes: [] as string[] };
    for (const { owner, value } of catalog.list("refs", { id: record.template_id })) {
      if (value === undefined || !nodes.isMember(owner)) continue;
      refs.count += value.count;
      refs.sandboxes.push(...value.sandboxes);
    }
    return snapshotInfo(record, replicasOf(catalog, record.template_id), refs, options);
  };
  return {
    listSnapshots(filter = {}) {
      const page = listSnapshots(records.list("template"), filter);
      return { ...page, items: page.items.map((record) => view(record)) };
    },
    snapshot: (id, options) => view(findSnapshot(records, id), options),
    snapshotNodes: (id) =>
      readyNodes({
        template: findSnapshot(records, id),
        replicas: replicasOf(catalog, id),
        nodes: new Map(nodes.all().map((node) => [node.node_id, node])),
        selfId: nodes.self,
      }),
    lineage(id) {
      if (id !== undefined && records.get("template", id) === undefined) {
        throw new AppError("template_not_found", `no template or snapshot ${JSON.stringify(id)}`);
      }
      return lineage(records.list("template"), id);
    },
    snapshotOperation(id) {
      const job = records.get("job", id);
      const found = job === undefined ? undefined : snapshotOperation(job);
      if (found !== undefined) return found;
      throw new AppError(
        "snapshot_operation_not_found",
        `snapshot operation ${JSON.stringify(id)} not found`,
      );
    },
  };
}
