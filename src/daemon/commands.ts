/** The write side: where a request is checked against the state, and turned into records. */
import {
  AppError,
  CLUSTER,
  LIMITS,
  isActiveJob,
  mergeRequest,
  newJobId,
  newTemplateId,
  normalizeFromImage,
  chooseReplica,
  type ArtifactStore,
  type Catalog,
  type Clock,
  type Commands,
  type CreateFromImageRequest,
  type JobRecord,
  type Queries,
  type Random,
  type ResolveResult,
  type SandboxRequest,
} from "../domain/index.ts";
import { pendingJob } from "./job-record.ts";
import { createHash, timingSafeEqual } from "node:crypto";
import type { Cleanup } from "./build/cleanup.ts";
import type { Collection } from "./collection.ts";
import type { Compat } from "./compat.ts";
import type { ResnapshotWorker } from "./workers/resnapshot.ts";
import { createTemplate } from "./create.ts";
import type { Deletions } from "./deletions.ts";
import { deliverSnapshot } from "./deliveries.ts";
import type { CancelJob } from "./job-cancel.ts";
import type { JobLog } from "./job-log.ts";
import type { Records } from "./records.ts";
import { submitCommit } from "./commits.ts";
import type { Retention } from "./retention.ts";
import { submitRedo } from "./redo.ts";
import type { ClusterRefs } from "./ref-asks.ts";
import type { RuntimeRefs } from "./runtime-refs.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { Snapshots } from "./snapshots.ts";
import { createTags } from "./tags.ts";
import { targetNodes, type Nodes } from "./nodes.ts";
import type { BuildsWorker } from "./workers/builds.ts";
import type { ReplicasWorker } from "./workers/replicas.ts";

/** What is asked of the cluster as such. */
export type ClusterCommands = Pick<
  Commands,
  | "createJoinToken"
  | "revokeJoinToken"
  | "joinCluster"
  | "leaveCluster"
  | "removeNode"
  | "drainNode"
>;

/** Templates and snapshots as files. */
export type BundleCommands = Pick<Commands, "exportBundle" | "importBundle">;

export interface CommandParts {
  readonly catalog: Catalog;
  readonly nodes: Nodes;
  readonly cluster: ClusterCommands;
  readonly bundles: BundleCommands;
  readonly records: Records;
  readonly queries: Queries;
  readonly deletions: Deletions;
  readonly cancelJob: CancelJob;
  readonly cleanup: Pick<Cleanup, "undelete">;
  readonly collection: Pick<Collection, "collect">;
  readonly compat: Pick<Compat, "rescan" | "adopt">;
  readonly resnapshot: Pick<ResnapshotWorker, "resume">;
  readonly retention: Pick<Retention, "apply">;
  readonly store: ArtifactStore;
  readonly builds: BuildsWorker;
  readonly replicas: ReplicasWorker;
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly refs: RuntimeRefs;
  readonly clusterRefs: ClusterRefs;
  readonly jobLog: JobLog;
  readonly clock: Clock;
  readonly random: Random;
  readonly jobDeadlineMs: number;
  /** @throws AppError invalid_image_reference */
  readonly checkReference: (reference: string) => void;
  readonly isDraining: () => boolean;
  readonly onResolveStage: (stage: string, milliseconds: number) => void;
}

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

export function createCommands(parts: CommandParts): Commands {
  const { catalog, records, queries, builds, replicas, sandboxes, clock } = parts;
  const refuseWhenDraining = () => {
    if (parts.isDraining()) {
      throw new AppError("daemon_draining", "the daemon is stopping and takes no new work");
    }
  };

  const newJob = (stored: CreateFromImageRequest, requestId: string): JobRecord =>
    pendingJob(
      { node: parts.nodes.self, nowMs: clock.now(), limitMs: parts.jobDeadlineMs },
      {
        job_id: newJobId(parts.random),
        template_id: newTemplateId(parts.random),
        request_id: requestId,
        resource_type: "template",
        resource_id: "",
        operation: "CREATE",
        source_image_ref: stored.source_image_ref,
        writable_layer_size: stored.writable_layer_size,
        instance_type: stored.instance_type ?? "cubebox",
        network_type: stored.network_type ?? "tap",
        phase: "PULLING",
        request: stored,
      },
    );

  const resolve = (request: SandboxRequest): ResolveResult => {
    const began = clock.monotonic();
    const wanted = (
      request.template_id ??
      request.annotations?.["cube.master.appsnapshot.template.id"] ??
      ""
    ).trim();
    if (wanted === "") {
      throw new AppError("template_id_required", "template id is required", {
        meta: { errors: [{ pointer: "/template_id", detail: "must not be blank" }] },
      });
    }
    const known = catalog.get(CLUSTER, "template", wanted)?.value;
    const template =
      known ?? catalog.get(CLUSTER, "template", queries.template(wanted).template_id)?.value;
    if (template === undefined) {
      throw new AppError("template_has_no_ready_replica", `template ${wanted} is still being made`);
    }
    const located = clock.monotonic();
    parts.onResolveStage("request", located - began);
    const nodes = new Map<string, NonNullable<ReturnType<Nodes["get"]>>>();
    const all = [];
    for (const { value } of catalog.list("replica", { id: template.template_id })) {
      if (value === undefined) continue;
      all.push(value);
      const node = parts.nodes.get(value.node_id);
      if (node !== undefined) nodes.set(node.node_id, node);
    }
    const replica = chooseReplica({
      template,
      replicas: all,
      nodes,
      selfId: queries.nodeId,
      ...(request.preferred_node_id === undefined
        ? {}
        : { preferredNodeId: request.preferred_node_id }),
      ...(request.distribution_scope === undefined ? {} : { scope: request.distribution_scope }),
    });
    const chosen = clock.monotonic();
    parts.onResolveStage("locality", chosen - located);
    const result: ResolveResult = {
      template_id: template.template_id,
      kind: template.kind,
      node_id: replica.node_id,
      replica,
      request: { ...mergeRequest(request, template.request), template_id: template.template_id },
    };
    parts.onResolveStage("bind", clock.monotonic() - chosen);
    return result;
  };

  return {
    ...parts.cluster,
    ...createTags(parts),
    exportBundle: (id, context) => parts.bundles.exportBundle(id, context),
    async importBundle(source, request, context) {
      refuseWhenDraining();
      return parts.bundles.importBundle(source, request, context);
    },
    async createTemplate(request, context) {
      refuseWhenDraining();
      return createTemplate(parts, request, context);
    },
    async createFromImage(request, context) {
      refuseWhenDraining();
      parts.checkReference(request.source_image_ref);
      const stored = normalizeFromImage(request);
      targetNodes(parts.nodes.all(), stored.distribution_scope ?? []);
      const job = newJob(stored, request.request_id ?? context.requestId);
      if (request.registry_password !== undefined) {
        builds.keepCredentials(job.job_id, {
          username: request.registry_username ?? "",
          password: request.registry_password,
        });
      }
      const record = { ...job, resource_id: job.template_id };
      await records.update("job", job.job_id, () => record, { isNew: true });
      parts.jobLog.append(job.job_id, "info", `asked for by ${context.actor}`);
      builds.reconcile();
      return queries.job(job.job_id);
    },
    async redoTemplate(id, request, context) {
      refuseWhenDraining();
      const { registry_username: username = "", registry_password: password } = request;
      const keep = (jobId: string) => {
        if (password !== undefined) builds.keepCredentials(jobId, { username, password });
      };
      const jobId = await submitRedo({ ...parts, onJob: keep }, id, request, context);
      parts.jobLog.append(jobId, "info", `asked for by ${context.actor}`);
      builds.reconcile();
      return queries.job(jobId);
    },
    async commitSandbox(request, context) {
      refuseWhenDraining();
      const jobId = await submitCommit(parts, request, context);
      parts.jobLog.append(jobId, "info", `asked for by ${context.actor}`);
      return queries.job(jobId);
    },
    async cancelJob(id, context) {
      await parts.cancelJob(id, context.actor);
      return queries.job(id);
    },
    deleteTemplate: (id, { force = false }, { actor }) =>
      parts.deletions.remove(id, { force, actor }),
    resolve,
    async runSandbox(request, context) {
      refuseWhenDraining();
      const chosen = resolve({
        template_id: request.template_id,
        preferred_node_id: queries.nodeId,
      });
      const made = replicas.made(chosen.template_id);
      if (made === undefined) {
        throw new AppError(
          "template_has_no_ready_replica",
          `template ${chosen.template_id} has no snapshot on this node`,
        );
      }
      return sandboxes.run({
        request,
        templateId: chosen.template_id,
        effective: chosen.request,
        ...made,
        ...(context.signal === undefined ? {} : { signal: context.signal }),
      });
    },
    async createSnapshot(sandboxId, request, context) {
      refuseWhenDraining();
      return parts.snapshots.create(sandboxId, request, context);
    },
    async rollbackSandbox(sandboxId, request, context) {
      refuseWhenDraining();
      return parts.snapshots.rollback(sandboxId, request, context);
    },
    async deliverSnapshot(id, request, context) {
      refuseWhenDraining();
      return deliverSnapshot(parts, id, request, context);
    },
    deleteSnapshot: (id, request, context) => parts.snapshots.remove(id, request, context),
    deleteSandbox: (id) => sandboxes.remove(id),
    collectGarbage: (options) => parts.collection.collect(options),
    applyRetention: (options, { actor }) => parts.retention.apply({ ...options, actor }),
    rescanCompat: (request) => parts.compat.rescan(request),
    adoptCompatBaseline: (id) => parts.compat.adopt(queries.template(id).template_id),
    resumeResnapshot: () => parts.resnapshot.resume(),
    async undeleteArtifact(id) {
      await parts.cleanup.undelete(id);
      return queries.artifact(id);
    },
    acquireRuntimeRef: (request) => parts.clusterRefs.acquire(request),
    releaseRuntimeRefs: (sandboxId, reason) => parts.clusterRefs.release(sandboxId, reason),
    async observeRuntimeRefs(observed) {
      if ("error" in observed) await parts.refs.fail(observed.error, "runtime");
      else await parts.refs.refresh(observed.observed, "runtime");
    },
    async openArtifact(id, token, range) {
      const artifact = records.get("artifact", id);
      const info = queries.artifact(id);
      const expected = artifact?.download_token ?? "";
      if (expected !== "" && !timingSafeEqual(sha256(expected), sha256(token ?? ""))) {
        throw new AppError("artifact_token_invalid", `the token for artifact ${id} is not valid`);
      }
      if (info.status !== "READY") {
        throw new AppError("artifact_not_ready", `artifact ${id} is ${info.status}`);
      }
      return { info, body: await parts.store.read(id, range) };
    },
    artifactToken: (id) => {
      queries.artifact(id);
      return records.get("artifact", id)?.download_token ?? "";
    },
  };
}

/** How many ended jobs go at once when there are more than are kept. */
export async function trimJobs(records: Records, jobLog: JobLog): Promise<number> {
  const ended = [...records.list("job")]
    .filter((job) => !isActiveJob(job))
    .sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1));
  const old = ended.slice(LIMITS.endedJobsKept);
  for (const job of old) {
    await records.update("job", job.job_id, (current) => (current ? null : undefined));
    await jobLog.remove(job.job_id);
  }
  return old.length;
}
