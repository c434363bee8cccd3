/**
 * The read side and the write side of a daemon, as the HTTP routes, the page and the tests use
 * them. Reads of the replicated state are answered from memory; only logs and files touch the disk.
 */
import type {
  ArtifactInfo,
  CreateFromImageRequest,
  JobInfo,
  NodeFact,
  ReplicaStatus,
  ResolveResult,
  RunSandboxRequest,
  SandboxInfo,
  SandboxRequest,
  TemplateInfo,
} from "./schema.ts";
import type { BundleManifest, Imported, ImportRequest } from "./bundle.ts";
import type { CommitTemplateRequest } from "./commit.ts";
import type { DeliverSnapshotRequest } from "./delivery.ts";
import type { ChangeEvent, JobLogLine } from "./event.ts";
import type { RedoPreview, RedoRequest } from "./redo.ts";
import type { LabelTemplateRequest } from "./labels.ts";
import type { RenderedRequest } from "./render.ts";
import type { CreateTemplateRequest } from "./prepared.ts";
import type { RetentionPolicy, RetentionReport } from "./retention.ts";
import type { PromoteTagRequest, RollbackTagRequest, TagRecord } from "./tag.ts";
import type {
  CreateSnapshotRequest,
  LineageEntry,
  RollbackRequest,
  SnapshotFilter,
  SnapshotInfo,
  SnapshotOperation,
} from "./snapshot.ts";
import type { AcquireRefRequest, ObservedRefs, RuntimeRef } from "./runtime-ref.ts";
import type { MatrixFilter, TemplateCompatMatrix } from "./compat-matrix.ts";
import type { CompatPreview, Upgrade } from "./compat-preview.ts";
import type { AdoptedCompat, CompatScan, RescanCompatRequest } from "./compat-scan.ts";
import type { ResnapshotView } from "./resnapshot.ts";
import type { ArtifactWhy, GcReport, TemplateWhy } from "./collection.ts";
import type { StorageList } from "./storage-status.ts";
import type {
  ClusterView,
  CreatedToken,
  CreateTokenRequest,
  JoinRequest,
  SwarmView,
} from "./cluster.ts";

export interface Page<T> {
  readonly items: readonly T[];
  /** Opaque; absent on the last page. */
  readonly next_token?: string;
}

export interface PageRequest {
  readonly limit?: number;
  readonly next_token?: string;
}

export interface Overview {
  readonly node: NodeFact;
  readonly templates: Readonly<Record<string, number>>;
  readonly jobs: Readonly<Record<string, number>>;
  readonly sandboxes: number;
  readonly active_jobs: readonly JobInfo[];
  /**
   * What needs an operator: no quorum, dead members, nodes that differ for long, stale
   * templates, failed ones, low disk, a driver that cannot run.
   */
  readonly attention: readonly {
    readonly subject: string;
    readonly kind: "template" | "job" | "node" | "cluster" | "compat";
    readonly since: string;
    readonly why: string;
    readonly next: string;
  }[];
}

/** Runtime refs found on all nodes. */
export interface RuntimeRefList {
  readonly items: readonly RuntimeRef[];
  /** Of all of them, also of those that a node holds beyond the first thousands. */
  readonly count: number;
  /** Nodes that did not answer: what they hold counts as held. */
  readonly unanswered: readonly { readonly node_id: string; readonly reason: string }[];
}

export interface Queries {
  readonly nodeId: string;
  overview(): Overview;
  /**
   * Most recently updated first (spec §2.5); a running build without definition shows as an entry.
   */
  listTemplates(
    filter?: PageRequest & { status?: string; text?: string; label?: string },
  ): Page<TemplateInfo>;
  /** By id, then by tag, then by display name. @throws AppError template_not_found */
  template(idOrName: string): TemplateInfo;
  /** The stored create request with a fresh request id. @throws AppError template_not_found */
  templateRequest(id: string): SandboxRequest;
  /**
   * What a sandbox would be started with; nothing is started.
   * @throws AppError template_not_found
   */
  renderRequest(id: string, request: SandboxRequest): RenderedRequest;
  /** By node; PENDING of those that shall hold one and have not begun it. */
  replicas(id: string): readonly ReplicaStatus[];
  /** What a redo would do now; nothing is changed. @throws AppError as `redoTemplate` */
  redoPreview(id: string, request: RedoRequest): RedoPreview;
  /** @throws AppError tag_not_found */
  tag(name: string): TagRecord;
  /** By name. */
  listTags(page?: PageRequest): Page<TagRecord>;
  /** Newest first. */
  listJobs(filter?: PageRequest & { status?: string; template_id?: string }): Page<JobInfo>;
  /** @throws AppError job_not_found */
  job(id: string): JobInfo;
  /** Lines after `after` (a sequence), oldest first. @throws AppError job_not_found */
  jobLog(id: string, options?: { after?: number; limit?: number }): Promise<readonly JobLogLine[]>;
  /** @throws AppError artifact_not_found */
  artifact(id: string): ArtifactInfo;
  listArtifacts(): readonly ArtifactInfo[];
  /** Why it is still here. @throws AppError artifact_not_found */
  whyArtifact(id: string): ArtifactWhy;
  /** Who uses it, and why it is not ready on a node. @throws AppError template_not_found */
  whyTemplate(id: string): Promise<TemplateWhy>;
  /** Templates by nodes, by id; the summary is of all of them. */
  compat(page?: PageRequest & MatrixFilter): TemplateCompatMatrix;
  /** What would be stale if every node had these versions. */
  compatPreview(upgrade: Upgrade): CompatPreview;
  /**
   * Snapshots of sandboxes, most recently updated first (spec §4.10); those that are being deleted
   * only by their status. @throws AppError invalid_request
   */
  listSnapshots(filter?: SnapshotFilter): Page<SnapshotInfo>;
  /** @throws AppError snapshot_not_found, also for the id of a template */
  snapshot(id: string, options?: { includeRequest?: boolean }): SnapshotInfo;
  /** Ids of nodes it can be started on. @throws AppError snapshot_not_found, template_stale, … */
  snapshotNodes(id: string): readonly string[];
  /**
   * The tree that a snapshot or template is in, or every tree with a snapshot; parents first.
   * @throws AppError template_not_found
   */
  lineage(id?: string): readonly LineageEntry[];
  /** @throws AppError snapshot_operation_not_found */
  snapshotOperation(id: string): SnapshotOperation;
  /** Where making stale replicas again by themselves is. */
  resnapshot(): ResnapshotView;
  nodes(): readonly NodeFact[];
  /** `self` is this node. @throws AppError node_not_found */
  node(id: string): NodeFact;
  /** Every node's storage, as it is known now. */
  storage(): StorageList;
  /** The same after asking the nodes whose state is old or unknown, or all of them. */
  refreshStorage(options: { force: boolean }): Promise<StorageList>;
  sandboxes(): readonly SandboxInfo[];
  /** @throws AppError sandbox_not_found */
  sandbox(id: string): SandboxInfo;
  /**
   * ACTIVE refs of a snapshot or template, asked of every node.
   * @throws AppError template_not_found
   */
  runtimeRefs(snapshotId: string): Promise<RuntimeRefList>;
  /** The sandbox's newest ACTIVE ref. @throws AppError runtime_ref_not_found */
  runtimeRefOf(sandboxId: string): Promise<RuntimeRef>;
  /** Members, quorum, leaders, gossip health, as this node sees them now. */
  cluster(): ClusterView;
  /** Distributions under way, or the one of an artifact. @throws AppError artifact_not_found */
  swarms(artifactId?: string): readonly SwarmView[];
  /** Every later change, in order. */
  subscribe(listener: (event: ChangeEvent) => void): () => void;
  /**
   * The events after that id, or undefined when it is too old or of another start of the daemon.
   */
  eventsSince(id: string): readonly ChangeEvent[] | undefined;
  /** Id of the newest event. */
  lastEventId(): string;
  /** Rises with every change of a template, a replica or a node: what `resolve` depends on. */
  resolveRevision(): number;
}

/** Who is signed in on the page, by a secret of its own; tokens are compared and forgotten. */
export interface SignIns {
  /** False: this daemon asks for no token, and everybody may change things. */
  readonly required: boolean;
  /**
   * @param from the address that it comes from, whose wrong tokens are counted
   * @returns the secret of the session, and the token's name
   * @throws AppError unauthorized, too_many_requests
   */
  signIn(token: string, from: string): { readonly secret: string; readonly name: string };
  /** The token's name; undefined when the session is not known or over. */
  whoIs(secret: string): string | undefined;
  signOut(secret: string): void;
}

/** Who asks, for the audit row and the log. */
export interface CallContext {
  readonly requestId: string;
  readonly actor: string;
  readonly signal?: AbortSignal;
}

export interface Commands {
  /**
   * From a prepared request, over a root filesystem that is there (spec §2.4); resolves when its
   * job has ended, which goes on when the caller leaves.
   * @throws AppError invalid_request, template_already_exists, artifact_not_found,
   *   artifact_not_ready, no_template_nodes, daemon_draining, no_quorum; what its job failed with
   */
  createTemplate(request: CreateTemplateRequest, context: CallContext): Promise<TemplateInfo>;
  /**
   * @throws AppError invalid_request, invalid_image_reference, no_template_nodes, daemon_draining
   */
  createFromImage(request: CreateFromImageRequest, context: CallContext): Promise<JobInfo>;
  /**
   * Makes replicas anew; what is there serves until the new one is READY.
   * @throws AppError template_not_found, template_attempt_in_progress, redo_not_allowed,
   *   no_failed_template_replicas, no_template_nodes, invalid_request, daemon_draining, no_quorum
   */
  redoTemplate(id: string, request: RedoRequest, context: CallContext): Promise<JobInfo>;
  /**
   * Makes a template of a running sandbox, on whichever node it is; the job goes on when the caller
   * leaves. A request with the same id and content is answered with the same job.
   * @throws AppError sandbox_not_found, peer_unreachable, storage_not_writable, invalid_request,
   *   request_id_conflict, snapshot_operation_in_progress, no_template_nodes, no_quorum
   */
  commitSandbox(request: CommitTemplateRequest, context: CallContext): Promise<JobInfo>;
  /** @throws AppError job_not_found, job_not_active */
  cancelJob(id: string, context: CallContext): Promise<JobInfo>;
  /**
   * A snapshot's id deletes the snapshot, with its guards.
   * @param options.force cancels what still makes it; who uses it is honoured all the same
   * @throws AppError template_not_found, template_in_use, snapshot_in_use, template_protected,
   *   template_attempt_in_progress, peer_unreachable, no_quorum
   */
  deleteTemplate(
    id: string,
    options: { force?: boolean },
    context: CallContext,
  ): Promise<{ template_id: string }>;
  /**
   * Makes the tag point at that template, from anywhere or only from where it is expected.
   * @throws AppError invalid_request, template_not_found, template_has_no_ready_replica,
   *   tag_moved, no_quorum
   */
  promoteTag(name: string, request: PromoteTagRequest, context: CallContext): Promise<TagRecord>;
  /**
   * Makes it point where it pointed before; twice comes back.
   * @throws AppError tag_not_found, tag_moved, tag_has_no_history, template_not_found, no_quorum
   */
  rollbackTag(name: string, request: RollbackTagRequest, context: CallContext): Promise<TagRecord>;
  /** Its templates stay, and are called so no more. @throws AppError tag_not_found, no_quorum */
  deleteTag(name: string, context: CallContext): Promise<void>;
  /**
   * Another display name; blank: none (spec §4.14).
   * @throws AppError invalid_request, template_not_found, name_taken,
   *   template_attempt_in_progress, no_quorum
   */
  renameTemplate(id: string, name: string, context: CallContext): Promise<TemplateInfo>;
  /** @throws AppError template_not_found, template_attempt_in_progress, no_quorum */
  labelTemplate(
    id: string,
    request: LabelTemplateRequest,
    context: CallContext,
  ): Promise<TemplateInfo>;
  /**
   * Keeps a template or snapshot from being deleted, or does so no more.
   * @throws AppError template_not_found, template_attempt_in_progress, no_quorum
   */
  protectTemplate(id: string, isProtected: boolean, context: CallContext): Promise<TemplateInfo>;
  /** Answered from memory (design §8). */
  resolve(request: SandboxRequest): ResolveResult;
  /** @throws AppError template_not_found, template_has_no_ready_replica, restore_failed */
  runSandbox(request: RunSandboxRequest, context: CallContext): Promise<SandboxInfo>;
  /**
   * Freezes a running sandbox on whichever node it is; resolves when the snapshot is READY, and
   * goes on when the caller leaves.
   * @throws AppError sandbox_not_found, storage_not_writable, request_id_conflict,
   *   snapshot_operation_in_progress, snapshot_failed, job_deadline_exceeded, peer_unreachable
   */
  createSnapshot(
    sandboxId: string,
    request: CreateSnapshotRequest,
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /**
   * Puts a sandbox back to one of its own snapshots; when that fails it runs on as it was.
   * @throws AppError as createSnapshot; snapshot_not_found, snapshot_deleting, snapshot_foreign,
   *   wrong_status, template_has_no_ready_replica, restore_failed
   */
  rollbackSandbox(
    sandboxId: string,
    request: RollbackRequest,
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /**
   * Brings a snapshot to other nodes, so that sandboxes can start from it there; resolves when all
   * of them have it, and goes on when the caller leaves.
   * @throws AppError before anything is copied: snapshot_not_found, snapshot_deleting,
   *   wrong_status, node_not_found, peer_unreachable, invalid_request, snapshot_incompatible,
   *   storage_not_writable, disk_space_low, template_has_no_ready_replica, request_id_conflict,
   *   snapshot_operation_in_progress; later: snapshot_not_delivered, job_deadline_exceeded
   */
  deliverSnapshot(
    id: string,
    request: DeliverSnapshotRequest,
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /**
   * @throws AppError snapshot_not_found, snapshot_in_use, template_protected,
   *   template_attempt_in_progress, request_id_conflict, peer_unreachable
   */
  deleteSnapshot(
    id: string,
    request: { readonly request_id?: string },
    context: CallContext,
  ): Promise<SnapshotOperation>;
  /** @throws AppError sandbox_not_found */
  deleteSandbox(id: string, context: CallContext): Promise<void>;
  /**
   * For a runtime that this daemon does not drive: its sandbox runs on that snapshot now.
   * @throws AppError snapshot_not_found, snapshot_deleting, template_has_no_ready_replica,
   *   node_not_found, peer_unreachable
   */
  acquireRuntimeRef(request: AcquireRefRequest, context: CallContext): Promise<RuntimeRef>;
  /** @throws AppError peer_unreachable */
  releaseRuntimeRefs(sandboxId: string, reason: string, context: CallContext): Promise<number>;
  /** What such a runtime has seen on this node, or why it could not look. */
  observeRuntimeRefs(observed: ObservedRefs, context: CallContext): Promise<void>;
  /** @throws AppError artifact_not_found, artifact_token_invalid, artifact_source_missing */
  openArtifact(
    id: string,
    token: string | undefined,
    range?: { start: number; end: number },
  ): Promise<{ info: ArtifactInfo; body: AsyncIterable<Uint8Array> }>;
  /**
   * A READY template or snapshot as one file, by id or name. The body must be read to its end or
   * returned; one that throws was no whole bundle.
   * @throws AppError template_not_found, wrong_status, artifact_not_ready, artifact_source_missing,
   *   template_has_no_ready_replica: it is on other nodes, which are named
   */
  exportBundle(
    idOrName: string,
    context: CallContext,
  ): Promise<{ manifest: BundleManifest; body: AsyncIterableIterator<Uint8Array> }>;
  /**
   * Takes a bundle in from a stream, which is read to its end. All of it is verified before any of
   * it is visible; a refused one leaves nothing.
   * @throws AppError bundle_invalid, bundle_untrusted, bundle_conflict, template_already_exists,
   *   driver_unavailable, disk_space_low, storage_not_writable, too_many_requests, no_quorum
   */
  importBundle(
    source: AsyncIterable<Uint8Array>,
    request: ImportRequest,
    context: CallContext,
  ): Promise<Imported>;
  /** What is due goes now; `dryRun` only says what would. A step that fails is in the report. */
  collectGarbage(options: { dryRun: boolean }, context: CallContext): Promise<GcReport>;
  /**
   * Deletes the templates that retention names, with all guards of a deletion; `dryRun` only says
   * which. One that cannot be deleted is in the report.
   * @param options.policy instead of what the nodes are configured with
   */
  applyRetention(
    options: { dryRun: boolean; policy?: Partial<RetentionPolicy> },
    context: CallContext,
  ): Promise<RetentionReport>;
  /** @throws AppError artifact_not_found, wrong_status, no_quorum */
  undeleteArtifact(id: string, context: CallContext): Promise<ArtifactInfo>;
  /**
   * Judges the replicas of these nodes again, one node after the other.
   * @throws AppError invalid_request, node_not_found, peer_unreachable
   */
  rescanCompat(request: RescanCompatRequest, context: CallContext): Promise<CompatScan>;
  /**
   * Replicas of unknown versions are taken as made with what their node has now.
   * @throws AppError template_not_found, peer_unreachable
   */
  adoptCompatBaseline(id: string, context: CallContext): Promise<AdoptedCompat>;
  /** Goes on making stale replicas again after one has failed. @throws AppError no_quorum */
  resumeResnapshot(context: CallContext): Promise<ResnapshotView>;
  /** Makes this node a cluster of one when it is alone. @throws AppError no_quorum */
  createJoinToken(request: CreateTokenRequest, context: CallContext): Promise<CreatedToken>;
  /** @throws AppError join_token_not_found, no_quorum, not_clustered */
  revokeJoinToken(tokenId: string, context: CallContext): Promise<void>;
  /**
   * This node joins the cluster that made the token.
   * @throws AppError already_clustered, node_has_templates, join_token_invalid, join_token_expired,
   *   join_token_used, cluster_mismatch, node_name_taken, clock_skew, peer_unreachable, no_quorum
   */
  joinCluster(request: JoinRequest, context: CallContext): Promise<ClusterView>;
  /** This node hands over and leaves; it is alone and empty afterwards. */
  leaveCluster(context: CallContext): Promise<void>;
  /** Takes a member out, whether it lives or not. @throws AppError node_not_found, no_quorum */
  removeNode(nodeId: string, context: CallContext): Promise<void>;
  /** @throws AppError node_not_found, no_quorum */
  drainNode(nodeId: string, drained: boolean, context: CallContext): Promise<void>;
  /** The download token, for callers with the right to hand it out. */
  artifactToken(id: string): string;
}
