/**
 * Who makes an artifact, and who made it. Records come from a quorum and may be here before the
 * facts and the other records that were written earlier: what is missing here is not yet known,
 * which is not the same as absent.
 */
import type { ArtifactRecord, Catalog, Clock, RecordValues } from "../../domain/index.ts";
import type { Nodes } from "../nodes.ts";

export type Builder = NonNullable<ArtifactRecord["builder"]>;

/** What a node says of its disk is heard of within seconds, and is believed from then on. */
const MAKER_IS_TRUSTED_MS = 60_000;

/** True while that node's leadership of that epoch is in force, as these two records have it. */
export const isLedBy = (
  leader: RecordValues["leader"] | undefined,
  session: RecordValues["session"] | undefined,
  { node_id, epoch }: Builder,
): boolean =>
  leader?.epoch === epoch &&
  leader.node_id === node_id &&
  !leader.released &&
  session?.ended === false &&
  session.incarnation === leader.incarnation;

/**
 * True when a node for which `isUp` is true holds all of the artifact, or has made it a moment ago
 * and not been heard of about it since.
 */
export function isHeldByPeer(
  { artifact_id: id, built_on: maker, updated_at: at }: ArtifactRecord,
  {
    catalog,
    nowMs,
    isUp,
  }: { catalog: Pick<Catalog, "get" | "list">; nowMs: number; isUp: (nodeId: string) => boolean },
): boolean {
  for (const { owner, value } of catalog.list("holding", { id })) {
    if (value?.complete === true && isUp(owner)) return true;
  }
  return (
    maker !== undefined &&
    isUp(maker) &&
    catalog.get(maker, "holding", id) === undefined &&
    nowMs - Date.parse(at) < MAKER_IS_TRUSTED_MS
  );
}

/** The same of every node but this one. */
export const isHeldElsewhere = (
  at: {
    readonly catalog: Pick<Catalog, "get" | "list">;
    readonly nodes: Pick<Nodes, "get">;
    readonly clock: Pick<Clock, "now">;
  },
  self: string,
  artifact: ArtifactRecord,
): boolean =>
  isHeldByPeer(artifact, {
    catalog: at.catalog,
    nowMs: at.clock.now(),
    isUp: (id) => id !== self && at.nodes.get(id)?.healthy === true,
  });
