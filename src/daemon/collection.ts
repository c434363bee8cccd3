/** Garbage collection as it is asked for: what would go, what goes, and why something does not. */
import {
  AppError,
  errorText,
  effectiveCompat,
  explainArtifact,
  explainReplica,
  explainStep,
  gcStep,
  inScope,
  isActiveJob,
  keptUntil,
  type ArtifactRecord,
  type ArtifactSight,
  type ArtifactWhy,
  type Catalog,
  type GcReport,
  type TemplateRecord,
  type TemplateWhy,
} from "../domain/index.ts";
import type { Cleanup } from "./build/cleanup.ts";
import type { DiskAsks } from "./disk/asks.ts";
import type { Nodes } from "./nodes.ts";
import type { Records } from "./records.ts";
import type { ClusterRefs } from "./ref-asks.ts";

export interface CollectionParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  readonly cleanup: Cleanup;
  readonly clusterRefs: Pick<ClusterRefs, "find">;
  readonly diskAsks: Pick<DiskAsks, "waste">;
  readonly isInTouch: () => boolean;
}

export interface Collection {
  /** @throws AppError artifact_not_found */
  whyArtifact(artifactId: string): ArtifactWhy;
  whyTemplate(template: TemplateRecord): Promise<TemplateWhy>;
  /** Takes every step that is due, from this node, unless it is only asked about. */
  collect(options: { dryRun: boolean }): Promise<GcReport>;
}

type Item = GcReport["items"][number];
interface Seen {
  readonly artifact: ArtifactRecord;
  readonly sight: ArtifactSight;
}

const STEPS_THAT_TAKE = new Set(["grace", "orphan", "release", "forget"]);
const time = (unixSeconds: number) => new Date(unixSeconds * 1_000).toISOString();

export function createCollection(parts: CollectionParts): Collection {
  const { records, cleanup } = parts;
  const whyArtifact: Collection["whyArtifact"] = (artifactId) => {
    const artifact = records.get("artifact", artifactId);
    if (artifact === undefined) {
      throw new AppError("artifact_not_found", `artifact ${JSON.stringify(artifactId)} not found`);
    }
    const sight = cleanup.sight(artifact, cleanup.references().get(artifactId));
    return {
      artifact_id: artifactId,
      status: artifact.status,
      why: explainArtifact(artifact, sight),
      references: [...sight.references],
      ...(artifact.unreferenced_at === undefined
        ? {}
        : { unreferenced_at: artifact.unreferenced_at }),
      kept_until: time(keptUntil(artifact, sight)),
      nodes: nodesOfArtifact(parts, artifact),
    };
  };

  const collect: Collection["collect"] = async ({ dryRun }) => {
    const isInTouch = parts.isInTouch();
    const references = cleanup.references();
    const seen = [...records.list("artifact")].map((artifact) => ({
      artifact,
      sight: cleanup.sight(artifact, references.get(artifact.artifact_id)),
    }));
    const items: Item[] = [];
    for (const one of seen) {
      const item = itemOf(parts.catalog, one, seen);
      if (item === undefined) continue;
      const mayStep = item.step !== "none" && (isInTouch || !STEPS_THAT_TAKE.has(item.step));
      items.push(dryRun || !mayStep ? item : await carryOut(item));
    }
    const byNode = new Map<string, { node_id: string; artifacts: number; bytes: number }>();
    for (const { node_id, bytes } of items.flatMap(({ nodes }) => nodes)) {
      const sum = byNode.get(node_id) ?? { node_id, artifacts: 0, bytes: 0 };
      byNode.set(node_id, { node_id, artifacts: sum.artifacts + 1, bytes: sum.bytes + bytes });
    }
    const nodes = [...byNode.values()].sort((a, b) => (a.node_id < b.node_id ? -1 : 1));
    const bytes = nodes.reduce((sum, node) => sum + node.bytes, 0);
    const report = { dry_run: dryRun, in_touch: isInTouch, items, nodes, bytes };
    return { ...report, ...(await wasteOf(parts, !dryRun)) };
  };

  /** One artifact's failure stops no other. */
  const carryOut = async (item: Item): Promise<Item> => {
    try {
      await cleanup.release(item.artifact_id);
      return item;
    } catch (error) {
      return { ...item, error: errorText(error) };
    }
  };

  return { whyArtifact, collect, whyTemplate: (template) => whyTemplate(parts, template) };
}

/** What lies on the disks of all nodes for nothing; `sweep` removes the orphans that are due. */
async function wasteOf(
  { nodes, diskAsks }: CollectionParts,
  sweep: boolean,
): Promise<Pick<GcReport, "orphans" | "evictions" | "unanswered">> {
  const names = nodes.all().map(({ node_id }) => node_id);
  const asked = await Promise.allSettled(names.map((name) => diskAsks.waste(name, sweep)));
  const found = asked.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  return {
    orphans: found.flatMap(({ orphans }) => orphans),
    evictions: found.flatMap(({ evictions }) => evictions),
    unanswered: asked.flatMap((one, at) =>
      one.status === "rejected"
        ? [{ node_id: names[at] ?? "", reason: errorText(one.reason) }]
        : [],
    ),
  };
}

/** What garbage collection has to do with the artifact; undefined: nothing, it is used. */
function itemOf(catalog: Catalog, one: Seen, all: readonly Seen[]): Item | undefined {
  const { artifact, sight } = one;
  const step = gcStep(artifact, sight);
  const isGoing = sight.references.length === 0 && !sight.isBuilding;
  if (step === "none" && !isGoing) return undefined;
  const keptDigests = all.flatMap(({ artifact: other, sight: { references } }) =>
    references.length > 0 || other.artifact_id < artifact.artifact_id ? [other] : [],
  );
  const holdings = isGoing ? [...catalog.list("holding", { id: artifact.artifact_id })] : [];
  return {
    artifact_id: artifact.artifact_id,
    status: artifact.status,
    step,
    why: explainStep(step, artifact, sight),
    due_at: time(keptUntil(artifact, sight)),
    nodes: holdings.flatMap(({ owner, value }) => {
      // Bytes that another artifact here shares stay, or are counted with it.
      const isShared = keptDigests.some(
        (other) =>
          other.digest === value?.digest &&
          catalog.get(owner, "holding", other.artifact_id)?.value !== undefined,
      );
      return [{ node_id: owner, bytes: isShared ? 0 : artifact.data_bytes }];
    }),
  };
}

function nodesOfArtifact(
  { catalog, nodes }: CollectionParts,
  artifact: ArtifactRecord,
): ArtifactWhy["nodes"] {
  const id = artifact.artifact_id;
  const replicas = [...catalog.list("replica")].filter(({ value }) => value?.artifact_id === id);
  const templates = new Set(replicas.map((replica) => replica.id));
  const refs = [...catalog.list("refs")].filter((entry) => templates.has(entry.id));
  const holdings = new Map(
    [...catalog.list("holding", { id })].map(({ owner, value }) => [owner, value]),
  );
  const names = new Set([
    ...holdings.keys(),
    ...replicas.map(({ owner }) => owner),
    ...refs.map(({ owner }) => owner),
  ]);
  return [...names].sort().map((node_id) => {
    const held = holdings.get(node_id);
    const own = refs.flatMap(({ owner, value }) =>
      owner === node_id && value !== undefined ? [value] : [],
    );
    return {
      node_id,
      is_member: nodes.isMember(node_id),
      healthy: nodes.get(node_id)?.healthy === true,
      holding: held === undefined ? "none" : held.complete ? "complete" : "partial",
      size_bytes: held?.size_bytes ?? 0,
      is_removing: artifact.cleaned_by?.includes(node_id) === true,
      replicas: replicas.flatMap(({ owner, id: of }) => (owner === node_id ? [of] : [])),
      runtime_ref_count: own.reduce((sum, { count }) => sum + count, 0),
      sandboxes: own.flatMap(({ sandboxes }) => sandboxes),
    };
  });
}

async function whyTemplate(
  { catalog, records, nodes, clusterRefs }: CollectionParts,
  template: TemplateRecord,
): Promise<TemplateWhy> {
  const { template_id, kind, status, last_error, artifact_id = "" } = template;
  const artifact = records.get("artifact", artifact_id);
  const { refs, unanswered } = await clusterRefs.find({ snapshotId: template_id });
  const jobs = [...records.list("job")].filter(
    (job) => job.template_id === template_id && isActiveJob(job),
  );
  return {
    template_id,
    kind,
    status,
    last_error,
    artifact_id,
    artifact_status: artifact?.status ?? "",
    references: [
      ...jobs.map((job) => ({
        kind: "job" as const,
        id: job.job_id,
        node_id: job.worked_by ?? "",
      })),
      ...refs.map((ref) => ({
        kind: "sandbox" as const,
        id: ref.sandbox_id,
        node_id: ref.node_id,
      })),
    ],
    unanswered: [...unanswered],
    nodes: nodes.all().map((node) => {
      const replica = catalog.get(node.node_id, "replica", template_id)?.value;
      const isInScope = inScope(node, template.distribution_scope ?? []);
      const held = catalog.get(node.node_id, "holding", artifact_id)?.value;
      const holdsArtifact = held?.complete === true;
      const why = explainReplica({ template, artifact, node, replica, isInScope, holdsArtifact });
      return {
        node_id: node.node_id,
        ready: why === "",
        why,
        phase: replica?.phase ?? "",
        error_message: replica?.error_message ?? "",
        healthy: node.healthy,
        drained: node.drained,
        in_scope: isInScope,
        wanted: template.desired_nodes.includes(node.node_id),
        driver: node.driver,
        compat_status: replica === undefined ? "MISSING" : effectiveCompat(replica, node),
        storage_mode: node.storage.mode,
        free_bytes: node.storage.free_bytes,
        holds_artifact: holdsArtifact,
      };
    }),
  };
}
