/**
 * A snapshot on its way to other nodes, as the node carries it out that has the files: they become
 * artifacts, and the snapshot's record says what they are and which nodes shall hold it. What these
 * nodes do then is their replica worker's. Every step may be done again, so that a life after a
 * crash begins anew and comes to the same.
 */
import {
  AppError,
  assertDeliverable,
  deliveryError,
  deliveryProgress,
  frozenArtifactId,
  isActiveJob,
  type ArtifactStore,
  type Catalog,
  type DeliveryProgress,
  type DriverSnapshot,
  type Frozen,
  type JobRecord,
  type RuntimeDriver,
  type TemplateRecord,
} from "../../domain/index.ts";
import { publishFile, type PublisherParts } from "../frozen-files.ts";
import type { Nodes } from "../nodes.ts";
import { replicasOf, type KeyedQueue } from "../records.ts";
import { frozenOf, type CommitSteps } from "./commit.ts";
import type { ReplicasWorker } from "./replicas.ts";

export interface DeliveryWorkParts extends PublisherParts {
  readonly catalog: Catalog;
  readonly store: PublisherParts["store"] & Pick<ArtifactStore, "find">;
  readonly nodes: Pick<Nodes, "get" | "onChange">;
  readonly replicas: Pick<ReplicasWorker, "snapshot">;
  readonly driver: RuntimeDriver;
  /** By artifact id: its bytes are made here and removed here one after the other. */
  readonly files: KeyedQueue;
}

/** Progress in percent from where on nodes are waited for. */
const COPYING = { from: 70, to: 99 } as const;

/**
 * Resolves when every node of the job has it.
 * @throws AppError snapshot_not_found, snapshot_deleting, wrong_status,
 *   snapshot_operation_in_progress, template_has_no_ready_replica, snapshot_not_delivered, …
 */
export async function deliver(
  parts: DeliveryWorkParts,
  job: JobRecord,
  steps: CommitSteps,
): Promise<void> {
  steps.signal.throwIfAborted();
  await steps.enter("GENERATING_JSON", 10);
  const claimed = await claim(parts, job);
  const frozen = await publishFrozen(parts, claimed, steps);
  await widen(parts, job, frozen);
  const progress = await awaitCopies(parts, job, steps);
  const error = deliveryError(progress);
  if (error !== undefined) throw error;
}

/**
 * From here on a deletion finds this job in the record, and no second delivery begins.
 * @throws AppError snapshot_not_found, snapshot_deleting, wrong_status,
 *   snapshot_operation_in_progress
 */
async function claim({ records }: DeliveryWorkParts, job: JobRecord): Promise<TemplateRecord> {
  const { job_id: jobId, resource_id: id } = job;
  for (;;) {
    const seen = records.get("template", id)?.job_id ?? "";
    const other = seen === "" || seen === jobId ? undefined : await current(records, seen);
    if (other !== undefined && isActiveJob(other)) {
      throw new AppError(
        "snapshot_operation_in_progress",
        `snapshot ${id} is still bound to operation ${seen} (${other.operation})`,
        { meta: { operation_id: seen } },
      );
    }
    const claimed = await records.update("template", id, (now) =>
      (now?.job_id ?? "") === seen ? { ...assertDeliverable(now), job_id: jobId } : undefined,
    );
    if (assertDeliverable(claimed).job_id === jobId) return assertDeliverable(claimed);
  }
}

/** As a majority has it. */
const current = (records: DeliveryWorkParts["records"], jobId: string) =>
  records.update("job", jobId, () => undefined);

/** The files as artifacts that are held here, published unless they are. */
async function publishFrozen(
  parts: DeliveryWorkParts,
  snapshot: TemplateRecord,
  { signal, enter, say }: CommitSteps,
): Promise<Frozen> {
  const { records, store, driver, replicas } = parts;
  const { template_id: id, frozen, generation } = snapshot;
  const isHere = ({ artifact_id }: Frozen["files"][number]): boolean => {
    const artifact = records.get("artifact", artifact_id);
    return artifact?.status === "READY" && store.find(artifact_id)?.digest === artifact.digest;
  };
  if (frozen?.files.every(isHere) === true) return frozen;
  const made: DriverSnapshot | undefined = replicas.snapshot(id);
  if (made === undefined) {
    throw new AppError("template_has_no_ready_replica", `the files of ${id} are not here`);
  }
  const { files, description } = await driver.exportSnapshot(made, { signal });
  const named = files.map((file) => ({ ...file, artifact_id: frozenArtifactId(id, file.name) }));
  // Named before they are there, so that they are somebody's from the first moment on.
  await enter("GENERATING_JSON", 40, { artifact_ids: named.map((file) => file.artifact_id) });
  for (const file of named) {
    const { artifact_id } = file;
    signal.throwIfAborted();
    const about = { artifact_id, build_key: `frozen:${artifact_id}` };
    await parts.files.run(artifact_id, () => publishFile(parts, file, about));
  }
  say(`published as artifacts: ${named.map((file) => file.artifact_id).join(", ")}`);
  return frozenOf(made, { generation, templateId: made.templateId }, description, named);
}

/** From this record on the nodes fetch it. */
async function widen(
  { records, clock }: DeliveryWorkParts,
  { job_id: jobId, resource_id: id, target_nodes = [] }: JobRecord,
  frozen: Frozen,
): Promise<void> {
  const at = new Date(clock.now()).toISOString();
  const union = (nodes: readonly string[]) => [...new Set([...nodes, ...target_nodes])].sort();
  await records.update("template", id, (now) => {
    const snapshot = assertDeliverable(now);
    if (snapshot.job_id !== jobId) {
      throw new AppError("snapshot_operation_in_progress", `snapshot ${id} was claimed by others`);
    }
    const desired_nodes = union(snapshot.desired_nodes);
    // No scope is every node already.
    const scope = snapshot.distribution_scope ?? [];
    const distribution_scope = scope.length === 0 ? [] : union(scope);
    return { ...snapshot, frozen, desired_nodes, distribution_scope, updated_at: at };
  });
}

/** Follows the nodes' replicas until each is READY or is waited for no longer. */
async function awaitCopies(
  parts: DeliveryWorkParts,
  job: JobRecord,
  { signal, enter, say }: CommitSteps,
): Promise<DeliveryProgress> {
  const { catalog, nodes, records } = parts;
  const { resource_id: id, target_nodes: targets = [] } = job;
  // What failed before this life is tried again by itself: how that ends is what counts.
  const failedBefore = new Set(
    [...catalog.list("replica", { id })].flatMap(({ value, owner, version }) =>
      value?.status === "FAILED" ? [`${owner} ${version}`] : [],
    ),
  );
  const replicas = () =>
    [...catalog.list("replica", { id })].flatMap(({ value, owner, version }) =>
      value === undefined || failedBefore.has(`${owner} ${version}`) ? [] : [value],
    );
  let wake: () => void = () => undefined;
  const off = [
    catalog.subscribe((entry) => {
      if (entry.id === id) wake();
    }),
    nodes.onChange(() => wake()),
  ];
  const onAbort = () => wake();
  signal.addEventListener("abort", onAbort);
  try {
    for (let told = ""; ;) {
      const changed = new Promise<void>((resolve) => (wake = resolve));
      signal.throwIfAborted();
      assertDeliverable(records.get("template", id));
      const seen = deliveryProgress(job, replicas(), (node) => nodes.get(node));
      const { ready, failed, waiting } = seen;
      const counts = { ready_node_count: ready.length, failed_node_count: failed.length };
      const text = `${ready.length} of ${targets.length} nodes have it`;
      if (text !== told || waiting.length === 0) {
        const share = ready.length / Math.max(1, targets.length);
        const percent = Math.floor(COPYING.from + share * (COPYING.to - COPYING.from));
        await enter("DISTRIBUTING", percent, counts);
        if (text !== told) say(text);
        told = text;
      }
      if (waiting.length === 0) return seen;
      await changed;
    }
  } finally {
    for (const stop of off) stop();
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * What is left of one that came to nothing. Files that the record does not name are nobody's; of
 * one that was cancelled, nodes that have not got it shall not hold it any more.
 */
export async function dropDelivery(
  parts: Pick<DeliveryWorkParts, "records" | "catalog"> & {
    readonly release: (artifactId: string, except: { readonly jobId: string }) => Promise<void>;
  },
  { job_id: jobId, resource_id: id }: JobRecord,
  isCancelled: boolean,
): Promise<void> {
  const { records, catalog } = parts;
  const job = await current(records, jobId);
  if (isCancelled) {
    const ready = new Set(
      replicasOf(catalog, id)
        .filter(({ status }) => status === "READY")
        .map(({ node_id }) => node_id),
    );
    const isKept = (node: string) => ready.has(node) || job?.target_nodes?.includes(node) !== true;
    await records.update("template", id, (now) => {
      if (now === undefined || now.job_id !== jobId || now.status === "DELETING") return undefined;
      const desired_nodes = now.desired_nodes.filter(isKept);
      const scope = (now.distribution_scope ?? []).filter(isKept);
      // An empty one would be every node.
      return scope.length === 0 ? undefined : { ...now, desired_nodes, distribution_scope: scope };
    });
  }
  const named = records.get("template", id)?.frozen?.files ?? [];
  for (const artifactId of job?.artifact_ids ?? []) {
    if (named.some((file) => file.artifact_id === artifactId)) continue;
    if (records.get("artifact", artifactId) !== undefined) {
      await parts.release(artifactId, { jobId });
    }
  }
}
