/**
 * What is asked of this node's sandboxes (spec §4.7, §4.8): every active snapshot or rollback job
 * that names this node, whoever wrote it and whether he still waits. Level-triggered, so that a job
 * written while this node was down is done when it is back; one that it was at when it died is
 * settled by what is on the disk.
 */
import { join } from "node:path";
import {
  AppError,
  abandonedDelivery,
  assertMayRollback,
  errorText,
  guestSpecOf,
  isActiveJob,
  isAppError,
  isSandboxJob,
  type Catalog,
  type DriverSnapshot,
  type JobPhase,
  type JobRecord,
  type Log,
  type ReplicaStatus,
  type SandboxRequest,
  type TemplateRecord,
} from "../../domain/index.ts";
import { snapshotBytes, type Space } from "../disk/space.ts";
import type { JobLog } from "../job-log.ts";
import { JobTimes, enterPhase, finishJob } from "../job-record.ts";
import type { Nodes } from "../nodes.ts";
import type { RuntimeRefs } from "../runtime-refs.ts";
import type { Sandboxes } from "../sandboxes.ts";
import { commitSandbox, type CommitSteps, type CommitWorkParts } from "./commit.ts";
import { deliver, type DeliveryWorkParts } from "./delivery.ts";
import type { ReplicasWorker } from "./replicas.ts";
import { changeStatus, failSandboxJob, type SandboxJobParts } from "./sandbox-jobs.ts";

export interface SnapshotWorkParts
  extends CommitWorkParts, SandboxJobParts, Omit<DeliveryWorkParts, "replicas"> {
  readonly catalog: Catalog;
  readonly store: DeliveryWorkParts["store"];
  readonly nodes: Pick<Nodes, "all" | "get" | "onChange">;
  readonly space: Pick<Space, "hold" | "assertWritable">;
  readonly sandboxes: Sandboxes;
  readonly replicas: Pick<
    ReplicasWorker,
    "adopt" | "discard" | "snapshot" | "foreignDriver" | "canFetch"
  >;
  readonly refs: Pick<RuntimeRefs, "nextGeneration">;
  readonly jobLog: JobLog;
  readonly clock: CommitWorkParts["clock"];
  readonly log: Log;
  readonly templatesDir: string;
}

/** The name of the way in which the files are kept; the predecessor's is `cubecow`. */
const STORAGE_BACKEND = "local";
/** A record that could not be written is written again after this. */
const RETRY_MS = 2_000;

interface Running {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export class SnapshotsWorker {
  readonly #parts: SnapshotWorkParts;
  readonly #running = new Map<string, Running>();
  readonly #times: JobTimes;
  #stopping = false;
  #unsubscribe: () => void = () => undefined;

  constructor(parts: SnapshotWorkParts) {
    this.#parts = parts;
    this.#times = new JobTimes(parts.clock);
  }

  start(): void {
    const { catalog, records } = this.#parts;
    this.#unsubscribe = catalog.subscribe((entry) => {
      const job = entry.kind === "job" ? records.get("job", entry.id) : undefined;
      if (job !== undefined) this.#consider(job);
    });
    this.reconcile();
  }

  reconcile(): void {
    for (const job of this.#parts.records.list("job")) this.#consider(job);
    void this.#lookForFiles();
  }

  /** Jobs under way. */
  get activeCount(): number {
    return this.#running.size;
  }

  /** Resolves when nothing is under way for the job here. */
  async settled(jobId: string): Promise<void> {
    await this.#running.get(jobId)?.done;
  }

  /** What is under way ends FAILED: a frozen half of a sandbox is of no use to the next start. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#unsubscribe();
    const reason = new AppError("daemon_draining", "the daemon is stopping");
    for (const { abort } of this.#running.values()) abort.abort(reason);
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #isOwn(job: JobRecord): boolean {
    return isSandboxJob(job) && isActiveJob(job) && job.node_id === this.#parts.facts.nodeId;
  }

  #consider(job: JobRecord): void {
    if (!isActiveJob(job)) this.#times.forget(job.job_id);
    if (this.#stopping || !isActiveJob(job)) return;
    if (job.operation === "SNAPSHOT_DELIVER") void this.#endAbandoned(job);
    if (!this.#isOwn(job)) return;
    const running = this.#running.get(job.job_id);
    if (running !== undefined) {
      if (job.cancel_requested === true) running.abort.abort(cancelledBy(job));
      return;
    }
    this.#times.see(job.job_id);
    const abort = new AbortController();
    if (job.cancel_requested === true) abort.abort(cancelledBy(job));
    const { clock, log } = this.#parts;
    const done = this.#run(job, abort)
      .catch((error: unknown) => {
        log.warn("a snapshot operation is not settled yet", {
          job_id: job.job_id,
          reason: errorText(error),
        });
        clock.after(RETRY_MS, () => this.reconcile());
      })
      .finally(() => this.#running.delete(job.job_id));
    this.#running.set(job.job_id, { abort, done });
  }

  /** Its node cannot: whoever sees it does. */
  async #endAbandoned(job: JobRecord): Promise<void> {
    const { nodes, log } = this.#parts;
    const { job_id, node_id: carrier = "" } = job;
    this.#times.see(job_id);
    const error = abandonedDelivery(job, {
      isUp: nodes.get(carrier)?.healthy === true,
      leftMs: this.#times.leftMs(job),
    });
    if (error === undefined) return;
    await this.#fail(job, error).catch((reason: unknown) =>
      log.warn("an abandoned delivery is not ended yet", { job_id, reason: errorText(reason) }),
    );
  }

  async #run(job: JobRecord, abort: AbortController): Promise<void> {
    const { clock } = this.#parts;
    // RUNNING, and not by this worker: it was begun in a life before, or could not be written.
    const isLeftOver = job.status === "RUNNING";
    const deadline = clock.after(this.#times.leftMs(job), () =>
      abort.abort(new AppError("job_deadline_exceeded")),
    );
    try {
      if (job.operation === "SNAPSHOT_DELIVER") await this.#deliver(job, abort.signal);
      else if (isLeftOver) await this.#settle(job);
      else if (job.operation === "COMMIT") await this.#commit(job, abort.signal);
      else if (job.operation === "SNAPSHOT_CREATE") await this.#create(job, abort.signal);
      else await this.#rollback(job, abort.signal);
    } catch (thrown) {
      const error: unknown = abort.signal.aborted ? abort.signal.reason : thrown;
      // What was done stands, and is written when it can be.
      if (isAppError(error, "no_quorum") || isAppError(error, "catalog_degraded")) throw error;
      // The next start goes on with what others wait for.
      if (job.operation === "SNAPSHOT_DELIVER" && isAppError(error, "daemon_draining")) return;
      await this.#fail(job, error);
    } finally {
      deadline.cancel();
    }
  }

  async #create(job: JobRecord, signal: AbortSignal): Promise<void> {
    const { facts, records, sandboxes, replicas, space, clock } = this.#parts;
    const { resource_id: id, sandbox_id: sandboxId = "" } = job;
    signal.throwIfAborted();
    await this.#enter(job, "SNAPSHOTTING", 10);
    const { info, spec } = sandboxes.running(sandboxId);
    await space.assertWritable();
    const parentId = info.snapshot_id ?? info.template_id;
    const parent = records.get("template", parentId);
    if (parent === undefined) {
      throw new AppError("template_not_found", `${parentId}, which ${sandboxId} runs on, is gone`);
    }
    const at = this.#now();
    const record: TemplateRecord = {
      template_id: id,
      instance_type: parent.instance_type,
      version: parent.version,
      kind: "snapshot",
      status: "CREATING",
      ...(job.display_name === undefined ? {} : { display_name: job.display_name }),
      labels: {},
      origin_sandbox_id: sandboxId,
      origin_node_id: facts.nodeId,
      parent_id: parentId,
      storage_backend: STORAGE_BACKEND,
      retain: true,
      ...(parent.artifact_id === undefined ? {} : { artifact_id: parent.artifact_id }),
      ...(parent.image_info === undefined ? {} : { image_info: parent.image_info }),
      job_id: job.job_id,
      generation: 1,
      desired_nodes: [facts.nodeId],
      distribution_scope: [facts.nodeId],
      request: { ...spec, template_id: id },
      last_error: "",
      created_at: at,
      updated_at: at,
    };
    await records.update("template", id, (current) => (current === undefined ? record : undefined));
    const began = clock.monotonic();
    const made = await this.#take(sandboxId, id, spec, signal);
    const pause = Math.round(made.timings["pause_ms"] ?? 0);
    const took = Math.round(clock.monotonic() - began);
    this.#say(
      job,
      "info",
      `snapshot ${id} taken in ${took} ms; the sandbox paused for ${pause} ms`,
    );
    await this.#enter(job, "REGISTERING", 70);
    await replicas.adopt(record, made);
    await this.#finishCreate(job, made.bytes);
  }

  async #take(
    sandboxId: string,
    id: string,
    spec: SandboxRequest,
    signal: AbortSignal,
  ): Promise<DriverSnapshot> {
    const { sandboxes, space, driver, templatesDir } = this.#parts;
    const bytes = driver.name === "rootfs" ? 0 : snapshotBytes(guestSpecOf(spec));
    const room = await space.hold(bytes, "snapshot");
    try {
      const dir = join(templatesDir, id);
      return await sandboxes.snapshot({ sandboxId, snapshotId: id, dir }, { signal });
    } finally {
      room.release();
    }
  }

  #steps(job: JobRecord, signal: AbortSignal): CommitSteps {
    return {
      signal,
      enter: (phase, progress, change) => this.#enter(job, phase, progress, change),
      say: (message, level = "info") => this.#say(job, level, message),
    };
  }

  async #commit(job: JobRecord, signal: AbortSignal): Promise<void> {
    await commitSandbox(this.#parts, job, this.#steps(job, signal));
    await this.#handOver(job);
  }

  async #deliver(job: JobRecord, signal: AbortSignal): Promise<void> {
    await deliver(this.#parts, job, this.#steps(job, signal));
    await this.#finish(job);
  }

  /** Whoever leads the template goes on from here. */
  async #handOver(job: JobRecord): Promise<void> {
    const { records } = this.#parts;
    const template = await records.update("template", job.resource_id, () => undefined);
    if (template?.job_id !== job.job_id) {
      throw new AppError("job_interrupted", "the operation was cut short: ask again");
    }
    await this.#enter(job, "DISTRIBUTING", undefined, {
      artifact_id: template.artifact_id ?? "",
      expected_node_count: template.desired_nodes.length,
      template_status: template.status,
      artifact_status: "READY",
    });
  }

  async #finishCreate(job: JobRecord, bytes: number): Promise<void> {
    const to = { from: "CREATING", event: "ready" } as const;
    const change = { rootfs_size_bytes_at_snapshot: bytes };
    await changeStatus(this.#parts, job.resource_id, to, change);
    await this.#finish(job);
  }

  async #rollback(job: JobRecord, signal: AbortSignal): Promise<void> {
    const { records, catalog, sandboxes, replicas, refs, space } = this.#parts;
    const { resource_id: id, sandbox_id: sandboxId = "" } = job;
    signal.throwIfAborted();
    await this.#enter(job, "ROLLBACK_PREPARING");
    const { info } = sandboxes.running(sandboxId);
    await space.assertWritable();
    // What a majority knows: a deletion may have begun that is not heard of here.
    const known = await records.update("template", id, () => undefined);
    const held = [...catalog.list("replica", { id })].flatMap(({ value }) => value ?? []);
    assertMayRollback(known, info, held);
    const snapshot = replicas.snapshot(id);
    if (snapshot === undefined) {
      throw new AppError("template_has_no_ready_replica", `the files of ${id} are not here`);
    }
    const past = [...records.list("job")]
      .filter((one) => one.operation === "SNAPSHOT_ROLLBACK" && one.sandbox_id === sandboxId)
      .map((one) => one.sandbox_gen ?? 0);
    const generation = Math.max(refs.nextGeneration(sandboxId), Math.max(0, ...past) + 1);
    const from_id = info.snapshot_id ?? info.template_id;
    await this.#enter(job, "ROLLBACK_DRIVING", undefined, { sandbox_gen: generation, from_id });
    const after = await sandboxes.rollback(
      { sandboxId, snapshotId: id, snapshot, generation },
      { signal, onRestored: () => this.#enter(job, "ROLLBACK_RECOVERING") },
    );
    const took = Math.round(after.timings["running_ms"] ?? 0);
    this.#say(job, "info", `${sandboxId} runs on ${id} again, after ${took} ms`);
    await this.#finish(job);
  }

  /** After a restart: what is on the disk says which side the operation has come down on. */
  async #settle(job: JobRecord): Promise<void> {
    const { facts, replicas, sandboxes } = this.#parts;
    const { resource_id: id, sandbox_id: sandboxId = "" } = job;
    if (job.operation === "COMMIT") return this.#handOver(job);
    const snapshot = replicas.snapshot(id);
    if (job.operation === "SNAPSHOT_CREATE") {
      const isWhole = facts.get("replica", id)?.status === "READY" && snapshot !== undefined;
      if (isWhole) return this.#finishCreate(job, snapshot.bytes);
    } else {
      const { info } = sandboxes.running(sandboxId);
      const hasMoved = job["from_id"] !== id || job.phase === "ROLLBACK_RECOVERING";
      if (job["from_id"] !== undefined && hasMoved && info.snapshot_id === id) {
        return this.#finish(job);
      }
    }
    throw new AppError("job_interrupted", "the operation was cut short: ask again");
  }

  async #fail(job: JobRecord, error: unknown): Promise<void> {
    const { replicas, folders, templatesDir } = this.#parts;
    const id = job.resource_id;
    this.#say(job, "error", errorText(error));
    if (job.operation === "SNAPSHOT_CREATE") {
      await replicas.discard(id);
      await folders.remove(join(templatesDir, id));
    }
    await failSandboxJob(this.#parts, job, error);
    this.#times.forget(job.job_id);
  }

  async #enter(
    job: JobRecord,
    phase: JobPhase,
    progress?: number,
    change: Partial<JobRecord> = {},
  ): Promise<void> {
    const at = this.#now();
    const { facts, records } = this.#parts;
    const next = await records.update("job", job.job_id, (current) =>
      current === undefined || !isActiveJob(current)
        ? undefined
        : {
            ...enterPhase(current, phase, at),
            ...(progress === undefined ? {} : { progress: Math.max(current.progress, progress) }),
            worked_by: facts.nodeId,
            workers: [facts.nodeId],
            ...change,
          },
    );
    if (next === undefined || !isActiveJob(next)) {
      throw new AppError("job_not_active", `operation ${job.job_id} has ended`);
    }
    this.#say(job, "info", `phase ${phase}`);
  }

  async #finish(job: JobRecord): Promise<void> {
    const at = this.#now();
    await this.#parts.records.update("job", job.job_id, (current) =>
      current === undefined || !isActiveJob(current)
        ? undefined
        : { ...finishJob(current, at), template_status: "READY" },
    );
    this.#times.forget(job.job_id);
  }

  /**
   * Row 116: a snapshot whose files are gone from this node says so; one that another driver made
   * does until that is back.
   */
  async #lookForFiles(): Promise<void> {
    const { catalog, facts, replicas, records, log } = this.#parts;
    for (const { id, value } of [...catalog.list("replica", { owner: facts.nodeId })]) {
      const record = records.get("template", id);
      if (record?.kind !== "snapshot" || value === undefined) continue;
      const snapshot = replicas.snapshot(id);
      try {
        // What others have is fetched again: then the replica worker tells of it.
        const isLost = value.status === "READY" && snapshot === undefined;
        if (isLost && !replicas.canFetch(id)) await this.#tellLost(id, value);
        if (value.status === "FAILED" && snapshot !== undefined) {
          await replicas.adopt(record, snapshot);
          const to = { from: "FAILED", event: "ready" } as const;
          await changeStatus(this.#parts, id, to, { last_error: "" });
        }
      } catch (error) {
        log.warn("what became of a snapshot is not told yet", {
          snapshot_id: id,
          reason: errorText(error),
        });
      }
    }
  }

  async #tellLost(id: string, value: ReplicaStatus): Promise<void> {
    const { facts, replicas, log } = this.#parts;
    const driver = replicas.foreignDriver(id);
    const error_message =
      driver === undefined
        ? `the files of ${id} are gone from ${facts.nodeId}`
        : `${id} was made with the driver ${driver}, which ${facts.nodeId} does not run now`;
    log.error("a snapshot cannot be started here", { snapshot_id: id, reason: error_message });
    await facts.put("replica", id, {
      ...value,
      status: "FAILED",
      phase: "FAILED",
      cleanup_required: driver === undefined,
      last_error_phase: "SNAPSHOTTING",
      error_message,
    });
  }

  #say(job: JobRecord, level: "info" | "warn" | "error", message: string): void {
    this.#parts.jobLog.append(job.job_id, level, message);
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString();
  }
}

const cancelledBy = (job: JobRecord): AppError =>
  new AppError("job_cancelled", `the job was cancelled by ${job.cancelled_by ?? "an operator"}`);
