/**
 * The leader's side of a template's job (design §5): drives it from the phase its record names to
 * its end. Level-triggered: `reconcile` takes up every active job nobody here works on, at start,
 * when a job record changes and on a slow timer, so that no job stays RUNNING with nobody working
 * on it.
 */
import PQueue from "p-queue";
import {
  AppError,
  errorText,
  generateCreateRequest,
  isActiveJob,
  isAppError,
  statusFromReplicas,
  type ArtifactRecord,
  type Catalog,
  type Clock,
  type CreateFromImageRequest,
  type ImageSource,
  type JobPhase,
  type JobRecord,
  type Log,
  type Platform,
  type RegistryCredentials,
  type ResolvedImage,
} from "../../domain/index.ts";
import type { Artifacts, BakePlan } from "../build/artifacts.ts";
import type { JobLog } from "../job-log.ts";
import { enterPhase, failJob, finishJob } from "../job-record.ts";
import type { Facts, Records } from "../records.ts";
import { imageInfo } from "../queries.ts";
import { createProgress, type ProgressReporter } from "./progress.ts";

export interface BuildParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly source: ImageSource;
  readonly artifacts: Artifacts;
  readonly jobLog: JobLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly platform: Platform;
  readonly concurrency: number;
  /** A folder of the job's own, made by this call. */
  readonly scratchDir: (jobId: string) => Promise<string>;
  readonly dropScratch: (jobId: string) => Promise<void>;
  /** @throws AppError ca_invalid, envd_missing */
  readonly bakePlan: (request: CreateFromImageRequest) => Promise<BakePlan>;
  readonly onJobEnd: (job: JobRecord) => void;
}

interface Running {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

/** A job taken up this often without coming to an end would take the daemon down again. */
const MAX_RUNS = 8;

export class BuildsWorker {
  readonly #parts: BuildParts;
  readonly #running = new Map<string, Running>();
  readonly #credentials = new Map<string, RegistryCredentials>();
  readonly #slots: PQueue;
  #stopping = false;

  constructor(parts: BuildParts) {
    this.#parts = parts;
    this.#slots = new PQueue({ concurrency: parts.concurrency });
  }

  /** Kept in memory until the job ends; never stored. */
  keepCredentials(jobId: string, credentials: RegistryCredentials): void {
    this.#credentials.set(jobId, credentials);
  }

  get activeCount(): number {
    return this.#running.size;
  }

  reconcile(): void {
    if (this.#stopping) return;
    for (const job of this.#parts.records.list("job")) {
      if (job.operation !== "CREATE" || !isActiveJob(job) || this.#running.has(job.job_id))
        continue;
      const abort = new AbortController();
      const done = this.#run(job.job_id, abort).finally(() => this.#running.delete(job.job_id));
      this.#running.set(job.job_id, { abort, done });
    }
  }

  /** Resolves when the job has ended. */
  async cancel(jobId: string, actor: string): Promise<void> {
    const running = this.#running.get(jobId);
    running?.abort.abort(new AppError("job_cancelled", `the job was cancelled by ${actor}`));
    await running?.done;
  }

  async settled(jobId: string): Promise<void> {
    await this.#running.get(jobId)?.done;
  }

  /** Parks every job: its record stays RUNNING in its phase and the next start takes it up. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const { abort } of this.#running.values()) {
      abort.abort(new AppError("daemon_draining", "the daemon is stopping"));
    }
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString();
  }

  async #run(jobId: string, abort: AbortController): Promise<void> {
    const { clock, records, log } = this.#parts;
    const job = records.get("job", jobId);
    if (job === undefined) return;
    const left = Date.parse(job.deadline_at) - clock.now();
    const deadline = clock.after(Math.max(left, 0), () => {
      const minutes = Math.round(
        (Date.parse(job.deadline_at) - Date.parse(job.created_at)) / 60_000,
      );
      abort.abort(
        new AppError("job_deadline_exceeded", `the job did not end within ${minutes} minutes`),
      );
    });
    try {
      await this.#slots.add(() => this.#drive(jobId, abort.signal));
    } catch (thrown) {
      // Whatever an aborted step throws, the reason of the abort is what happened.
      const error: unknown = abort.signal.aborted ? abort.signal.reason : thrown;
      if (isAppError(error, "daemon_draining")) return;
      log.warn("job failed", { job_id: jobId, template_id: job.template_id, err: error });
      await this.#fail(jobId, error);
    } finally {
      deadline.cancel();
      await this.#parts.dropScratch(jobId);
      const ended = records.get("job", jobId);
      if (ended !== undefined && !isActiveJob(ended)) {
        this.#credentials.delete(jobId);
        this.#parts.onJobEnd(ended);
      }
    }
  }

  async #enter(
    jobId: string,
    phase: JobPhase,
    change: Partial<JobRecord> = {},
  ): Promise<JobRecord> {
    const job = await this.#parts.records.update("job", jobId, (current) =>
      current === undefined || !isActiveJob(current)
        ? undefined
        : { ...enterPhase(current, phase, this.#now()), ...change },
    );
    if (job === undefined || !isActiveJob(job)) {
      throw new AppError("job_not_active", `job ${jobId} has ended`);
    }
    this.#parts.jobLog.append(jobId, "info", `phase ${phase}`);
    return job;
  }

  async #drive(jobId: string, signal: AbortSignal): Promise<void> {
    const { records, jobLog } = this.#parts;
    signal.throwIfAborted();
    let job = records.get("job", jobId);
    if (job === undefined || !isActiveJob(job)) return;
    if (job.runs >= MAX_RUNS) {
      throw new AppError(
        "job_interrupted",
        `the job was taken up ${job.runs} times and never ended`,
      );
    }
    const resumed = job.runs > 0;
    if (resumed) jobLog.append(jobId, "warn", `taken up again in phase ${job.phase}`);
    // The pull is what a build streams from, so that every phase before the artifact starts there;
    // blobs and artifacts that are complete are not fetched or built again.
    const artifact = this.#finishedArtifact(job);
    const runs = job.runs + 1;
    const progress = createProgress({ ...this.#parts, jobId });
    try {
      if (artifact === undefined) {
        await this.#enter(jobId, "PULLING", { runs });
        const made = await this.#makeArtifact(jobId, signal, progress);
        job = await this.#define(jobId, made.artifact, made.fresh);
      } else {
        job = await this.#enter(jobId, job.phase === "PULLING" ? "DISTRIBUTING" : job.phase, {
          runs,
        });
        if (records.get("template", job.template_id) === undefined) {
          job = await this.#define(jobId, artifact, job["artifact_fresh"] === true);
        }
      }
      await this.#awaitReplicas(job, signal, progress);
      await this.#register(jobId);
    } finally {
      progress.end();
    }
  }

  /** The job's artifact when the job got past building it, so that a resume goes on from there. */
  #finishedArtifact(job: JobRecord): ArtifactRecord | undefined {
    if (["PULLING", "UNPACKING", "BUILDING_EXT4"].includes(job.phase)) return undefined;
    const artifact = this.#parts.records.get("artifact", job.artifact_id ?? "");
    return artifact?.status === "READY" ? artifact : undefined;
  }

  async #makeArtifact(
    jobId: string,
    signal: AbortSignal,
    progress: ProgressReporter,
  ): Promise<{ artifact: ArtifactRecord; fresh: boolean }> {
    const { records, artifacts, jobLog } = this.#parts;
    const request = requestOf(records.get("job", jobId));
    const image = await this.#resolve(jobId, request, signal);
    try {
      const bake = await this.#parts.bakePlan(request);
      const spec = artifacts.specOf(image, request, bake);
      jobLog.append(jobId, "info", `image ${image.reference} is ${image.digest}`);
      await this.#enter(jobId, "PULLING", {
        artifact_id: spec.artifactId,
        template_spec_fingerprint: spec.fingerprint,
        source_image_ref: image.reference,
        source_image_digest: image.digest,
        artifact_status: "BUILDING",
      });
      progress.layers(image);
      let phase: JobPhase = "PULLING";
      const entered: Promise<unknown>[] = [];
      const made = await artifacts.ensure(spec, image, request, bake, {
        signal,
        onLog: (message) => jobLog.append(jobId, "info", message),
        onProgress: (state) => {
          progress.build(state);
          if (state.phase === phase) return;
          phase = state.phase;
          entered.push(this.#enter(jobId, phase).catch(() => undefined));
        },
      });
      await Promise.all(entered);
      await this.#enter(jobId, "GENERATING_JSON", {
        artifact_status: "READY",
        artifact_fresh: made.fresh,
      });
      return made;
    } finally {
      await image.close();
    }
  }

  async #resolve(
    jobId: string,
    request: CreateFromImageRequest,
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const credentials = this.#credentials.get(jobId);
    if (request.registry_username !== undefined && credentials === undefined) {
      throw new AppError(
        "job_interrupted",
        "the daemon was restarted and registry passwords are never stored: create the template again",
      );
    }
    return this.#parts.source.resolve(request.source_image_ref, {
      platform: this.#parts.platform,
      scratchDir: await this.#parts.scratchDir(jobId),
      signal,
      ...(credentials === undefined ? {} : { credentials }),
    });
  }

  /**
   * The definition, PENDING, with the nodes that shall hold a replica: reconcilers take it from
   * here.
   */
  async #define(jobId: string, artifact: ArtifactRecord, fresh: boolean): Promise<JobRecord> {
    const { records } = this.#parts;
    const job = records.get("job", jobId);
    const request = requestOf(job);
    if (job === undefined || artifact.image_config === undefined) {
      throw new AppError("internal", `job ${jobId} or its image configuration is gone`);
    }
    const nodes = targetNodes(this.#parts.catalog, request);
    const at = this.#now();
    await records.update("template", job.template_id, (current) => ({
      template_id: job.template_id,
      instance_type: request.instance_type ?? "cubebox",
      version: "v2",
      kind: "template",
      status: "PENDING",
      ...(request.display_name === undefined ? {} : { display_name: request.display_name }),
      labels: request.labels ?? {},
      artifact_id: artifact.artifact_id,
      image_info: imageInfo(artifact.source_image_ref, artifact.source_image_digest),
      job_id: jobId,
      generation: (current?.generation ?? 0) + 1,
      desired_nodes: nodes,
      request: generateCreateRequest({
        templateId: job.template_id,
        artifactId: artifact.artifact_id,
        fingerprint: artifact.template_spec_fingerprint,
        artifactDigest: artifact.digest,
        artifactSizeBytes: artifact.ext4_size_bytes,
        image: artifact.image_config as NonNullable<typeof artifact.image_config>,
        request,
      }),
      last_error: "",
      created_at: current?.created_at ?? at,
      updated_at: at,
    }));
    return this.#enter(jobId, "DISTRIBUTING", {
      expected_node_count: nodes.length,
      template_status: "PENDING",
      artifact_status: "READY",
      artifact_fresh: fresh,
    });
  }

  /** Follows the replicas' facts until each is READY or FAILED for this generation. */
  async #awaitReplicas(
    job: JobRecord,
    signal: AbortSignal,
    progress: ProgressReporter,
  ): Promise<void> {
    const { catalog, records } = this.#parts;
    let wake: () => void = () => undefined;
    const unsubscribe = catalog.subscribe((entry) => {
      if (entry.id === job.template_id) wake();
    });
    const onAbort = () => wake();
    signal.addEventListener("abort", onAbort);
    try {
      for (;;) {
        const changed = new Promise<void>((resolve) => (wake = resolve));
        signal.throwIfAborted();
        const template = records.get("template", job.template_id);
        if (template === undefined)
          throw new AppError("template_not_found", "the template was deleted");
        const replicas = [...catalog.list("replica", { id: job.template_id })].flatMap(
          ({ value }) => (value?.generation === template.generation ? [value] : []),
        );
        const ended = replicas.filter((r) => r.phase === "READY" || r.phase === "FAILED");
        const delivered = replicas.filter((r) => r.phase !== "DISTRIBUTING");
        progress.replicas(ended.length, template.desired_nodes.length);
        if (delivered.length >= template.desired_nodes.length) {
          const at = records.get("job", job.job_id)?.phase;
          if (at === "DISTRIBUTING" || at === "GENERATING_JSON") {
            await this.#enter(job.job_id, "CREATING_TEMPLATE");
          }
          if (at === "CREATING_TEMPLATE") await this.#enter(job.job_id, "SNAPSHOTTING");
          if (at !== "SNAPSHOTTING" && at !== "REGISTERING") continue;
        }
        if (ended.length >= template.desired_nodes.length) return;
        await changed;
      }
    } finally {
      unsubscribe();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #register(jobId: string): Promise<void> {
    const { catalog, records, jobLog } = this.#parts;
    const job = await this.#enter(jobId, "REGISTERING");
    const template = records.get("template", job.template_id);
    const replicas = [...catalog.list("replica", { id: job.template_id })].flatMap(({ value }) =>
      value === undefined ? [] : [value],
    );
    const summary = statusFromReplicas(template?.desired_nodes ?? [], replicas);
    const counts = { ready_node_count: summary.ready, failed_node_count: summary.failed };
    if (summary.status === "FAILED") {
      await records.update("job", jobId, (current) => current && { ...current, ...counts });
      throw new AppError("snapshot_failed", summary.error);
    }
    const at = this.#now();
    await records.update(
      "template",
      job.template_id,
      (current) =>
        current && {
          ...current,
          status: summary.status,
          last_error: summary.error,
          updated_at: at,
        },
    );
    await records.update(
      "job",
      jobId,
      (current) =>
        current && {
          ...finishJob(current, this.#now()),
          ...counts,
          template_status: summary.status,
        },
    );
    jobLog.append(jobId, "info", `template ${job.template_id} is ${summary.status}`);
  }

  /** Ends the job FAILED, and keeps trying while the catalog cannot be written. */
  async #fail(jobId: string, error: unknown): Promise<void> {
    const { clock, jobLog } = this.#parts;
    const message = errorText(error);
    const code = isAppError(error) ? error.code : "internal";
    jobLog.append(jobId, "error", message);
    for (let pause = 200; ; pause = Math.min(pause * 2, 10_000)) {
      try {
        await this.#settleFailure(jobId, message, code);
        return;
      } catch (cause) {
        if (this.#stopping || !isAppError(cause) || !cause.row.retryable) throw cause;
        await clock.sleep(pause);
      }
    }
  }

  async #settleFailure(jobId: string, message: string, code: string): Promise<void> {
    const { records, artifacts } = this.#parts;
    const job = records.get("job", jobId);
    if (job === undefined || !isActiveJob(job)) return;
    const at = this.#now();
    const template = await records.update("template", job.template_id, (current) =>
      current?.status === "PENDING"
        ? { ...current, status: "FAILED", last_error: message, updated_at: at }
        : undefined,
    );
    await records.update("job", jobId, (current) =>
      current === undefined || !isActiveJob(current)
        ? undefined
        : {
            ...failJob(
              current,
              code === "job_cancelled" ? "cancel" : "fail",
              { message, code },
              at,
            ),
            template_status: template?.status ?? "FAILED",
            artifact_status: records.get("artifact", job.artifact_id ?? "")?.status ?? "FAILED",
          },
    );
    if (job["artifact_fresh"] === true && job.artifact_id !== undefined) {
      await artifacts.release(job.artifact_id, { jobId, templateId: job.template_id });
    }
  }
}

function requestOf(job: JobRecord | undefined): CreateFromImageRequest {
  const request = job?.request;
  if (request?.source_image_ref === undefined || request.writable_layer_size === undefined) {
    throw new AppError("internal", `job ${job?.job_id ?? ""} has no stored request`);
  }
  return {
    ...request,
    source_image_ref: request.source_image_ref,
    writable_layer_size: request.writable_layer_size,
  };
}

/**
 * Healthy, undrained nodes of the instance type, restricted to the scope by node id or address.
 * @throws AppError no_template_nodes, invalid_request "target nodes are not healthy or not found:
 * a,b"
 */
export function targetNodes(catalog: Catalog, request: CreateFromImageRequest): string[] {
  const healthy = [...catalog.list("node")].flatMap(({ value }) =>
    value?.healthy === true && !value.drained ? [value] : [],
  );
  if (healthy.length === 0) throw new AppError("no_template_nodes");
  const scope = request.distribution_scope ?? [];
  const missing = scope.filter(
    (name) => !healthy.some((node) => node.node_id === name || node.node_ip === name),
  );
  if (missing.length > 0) {
    const names = [...new Set(missing)].sort().join(",");
    throw new AppError("invalid_request", `target nodes are not healthy or not found: ${names}`, {
      meta: { errors: [{ pointer: "/distribution_scope", detail: `unknown: ${names}` }] },
    });
  }
  return healthy
    .filter((n) => scope.length === 0 || scope.includes(n.node_id) || scope.includes(n.node_ip))
    .map((node) => node.node_id);
}
