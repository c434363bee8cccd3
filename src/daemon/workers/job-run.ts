/**
 * One run of a template's job under one leadership (design §5): from the phase that the job's
 * record names to its end. Every record is written under the lease, so that a run that has lost it
 * changes nothing any more.
 */
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
import type { Lease } from "../../gossip/index.ts";
import type { Artifacts, BakePlan } from "../build/artifacts.ts";
import type { JobLog } from "../job-log.ts";
import { enterPhase, failJob, finishJob, workersOf } from "../job-record.ts";
import type { Leases } from "../leases.ts";
import { targetNodes, type Nodes } from "../nodes.ts";
import { imageInfo } from "../queries.ts";
import { ledRecords, type Facts, type Records } from "../records.ts";
import { createProgress, type ProgressReporter } from "./progress.ts";

export interface BuildParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly nodes: Nodes;
  readonly leases: Leases;
  /**
   * Registry credentials that were given to another node with the request, or undefined.
   * @throws AppError peer_unreachable
   */
  readonly askCredentials: (job: JobRecord) => Promise<RegistryCredentials | undefined>;
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

export const cancelled = (job: Pick<JobRecord, "cancelled_by">): AppError =>
  new AppError("job_cancelled", `the job was cancelled by ${job.cancelled_by ?? "an operator"}`);

/** A job taken up this often without coming to an end would take the daemon down again. */
const MAX_RUNS = 8;

/** More than a run ever logs. */
const LINES_OF_A_RUN = 1_000_000;

export interface RunInput {
  readonly jobId: string;
  readonly lease: Lease;
  readonly signal: AbortSignal;
  readonly credentials: RegistryCredentials | undefined;
}

export class JobRun {
  readonly #parts: BuildParts;
  readonly #records: Records;
  readonly #input: RunInput;

  constructor(parts: BuildParts, input: RunInput) {
    this.#parts = parts;
    this.#input = input;
    this.#records = ledRecords(parts.records, input.lease);
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString();
  }

  async #enter(
    jobId: string,
    phase: JobPhase,
    change: Partial<JobRecord> = {},
  ): Promise<JobRecord> {
    const job = await this.#records.update("job", jobId, (current) =>
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

  /** @throws what ended the run before the job was READY; the signal's reason when it aborted */
  async drive(): Promise<void> {
    const { facts, jobLog } = this.#parts;
    const { jobId, signal } = this.#input;
    const records = this.#records;
    signal.throwIfAborted();
    // What is held here may lag behind what the leader before has written.
    let job = await records.update("job", jobId, () => undefined);
    if (job === undefined || !isActiveJob(job)) return;
    await records.update("template", job.template_id, () => undefined);
    if (job.cancel_requested === true) throw cancelled(job);
    if (job.runs >= MAX_RUNS) {
      throw new AppError(
        "job_interrupted",
        `the job was taken up ${job.runs} times and never ended`,
      );
    }
    const resumed = job.runs > 0;
    if (resumed) jobLog.startAt(jobId, job.runs * LINES_OF_A_RUN + 1);
    if (resumed) jobLog.append(jobId, "warn", `taken up again in phase ${job.phase}`);
    // The pull is what a build streams from, so that every phase before the artifact starts there;
    // blobs and artifacts that are complete are not fetched or built again.
    const artifact = this.#finishedArtifact(job);
    const started = {
      runs: job.runs + 1,
      worked_by: facts.nodeId,
      workers: [...new Set([...workersOf(job), facts.nodeId])],
    };
    const progress = createProgress({ ...this.#parts, jobId });
    try {
      const build = async () => {
        await this.#enter(jobId, "PULLING", started);
        const made = await this.#makeArtifact(jobId, signal, progress);
        return this.#define(jobId, made.artifact, made.fresh);
      };
      if (artifact === undefined) {
        job = await build();
      } else {
        job = await this.#enter(
          jobId,
          job.phase === "PULLING" ? "DISTRIBUTING" : job.phase,
          started,
        );
        if (records.get("template", job.template_id) === undefined) {
          job = await this.#define(jobId, artifact, job["artifact_fresh"] === true);
        }
      }
      while (!(await this.#awaitReplicas(job, signal, progress))) {
        jobLog.append(
          jobId,
          "warn",
          "the only copy of the artifact went with its node: built again",
        );
        job = await build();
      }
      await this.#register(jobId);
    } finally {
      progress.end();
    }
  }

  /** The job's artifact when the job got past building it, so that a resume goes on from there. */
  #finishedArtifact(job: JobRecord): ArtifactRecord | undefined {
    if (["PULLING", "UNPACKING", "BUILDING_EXT4"].includes(job.phase)) return undefined;
    const artifact = this.#records.get("artifact", job.artifact_id ?? "");
    return artifact !== undefined && this.#parts.artifacts.isAvailable(artifact)
      ? artifact
      : undefined;
  }

  async #makeArtifact(
    jobId: string,
    signal: AbortSignal,
    progress: ProgressReporter,
  ): Promise<{ artifact: ArtifactRecord; fresh: boolean }> {
    const { artifacts, jobLog } = this.#parts;
    const records = this.#records;
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
        builder: {
          node_id: this.#parts.facts.nodeId,
          template_id: this.#input.lease.templateId,
          epoch: this.#input.lease.epoch,
        },
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
    const { credentials } = this.#input;
    if (request.registry_username !== undefined && credentials === undefined) {
      throw new AppError(
        "job_interrupted",
        "the node that was given the registry's password is gone or was restarted, and passwords " +
          "are never stored: create the template again",
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
    const records = this.#records;
    const job = records.get("job", jobId);
    const request = requestOf(job);
    if (job === undefined || artifact.image_config === undefined) {
      throw new AppError("internal", `job ${jobId} or its image configuration is gone`);
    }
    const scope = request.distribution_scope ?? [];
    const nodes = targetNodes(this.#parts.nodes.all(), scope);
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
      distribution_scope: scope,
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

  /**
   * Follows the replicas' facts until each is READY or FAILED for this generation.
   * @returns false when no node that is up holds the artifact any more, so that nobody can get it
   */
  async #awaitReplicas(
    job: JobRecord,
    signal: AbortSignal,
    progress: ProgressReporter,
  ): Promise<boolean> {
    const { artifacts, catalog, nodes } = this.#parts;
    const records = this.#records;
    let wake: () => void = () => undefined;
    const unsubscribe = catalog.subscribe((entry) => {
      if (entry.id === job.template_id) wake();
    });
    const unwatch = nodes.onChange(() => wake());
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
        const seen = new Map(replicas.map((replica) => [replica.node_id, replica.phase]));
        const phases = template.desired_nodes.map((node) => seen.get(node) ?? "DISTRIBUTING");
        // A node that is down does not hold up the others: it catches up when it comes back.
        const ended = template.desired_nodes.filter(
          (node) =>
            ["READY", "FAILED"].includes(seen.get(node) ?? "") || nodes.get(node)?.healthy !== true,
        );
        const delivered = template.desired_nodes.filter(
          (node, index) => phases[index] !== "DISTRIBUTING" || ended.includes(node),
        );
        progress.replicas(ended.length, template.desired_nodes.length);
        if (delivered.length >= template.desired_nodes.length) {
          const at = records.get("job", job.job_id)?.phase;
          if (at === "DISTRIBUTING" || at === "GENERATING_JSON") {
            await this.#enter(job.job_id, "CREATING_TEMPLATE");
          }
          if (at === "CREATING_TEMPLATE") await this.#enter(job.job_id, "SNAPSHOTTING");
          if (at !== "SNAPSHOTTING" && at !== "REGISTERING") continue;
        }
        if (ended.length >= template.desired_nodes.length) return true;
        if (!artifacts.isAvailable(records.get("artifact", template.artifact_id ?? ""))) {
          return false;
        }
        await changed;
      }
    } finally {
      unsubscribe();
      unwatch();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #register(jobId: string): Promise<void> {
    const { catalog, jobLog } = this.#parts;
    const records = this.#records;
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

  /**
   * Ends the job FAILED, and keeps trying while the records cannot be written.
   * @throws the last error when the lease has ended or the signal of `parked` says to stop
   */
  async fail(error: unknown, parked: AbortSignal): Promise<void> {
    const { clock, jobLog } = this.#parts;
    const { jobId, lease } = this.#input;
    const message = errorText(error);
    const code = isAppError(error) ? error.code : "internal";
    jobLog.append(jobId, "error", message);
    for (let pause = 200; ; pause = Math.min(pause * 2, 10_000)) {
      try {
        await this.#settleFailure(jobId, message, code);
        return;
      } catch (cause) {
        if (!isAppError(cause) || !cause.row.retryable || !lease.isValid()) throw cause;
        await clock.sleep(pause, { signal: parked });
      }
    }
  }

  async #settleFailure(jobId: string, message: string, code: string): Promise<void> {
    const { artifacts } = this.#parts;
    const records = this.#records;
    const job = records.get("job", jobId);
    if (job === undefined || !isActiveJob(job)) return;
    const at = this.#now();
    const released = job["artifact_fresh"] === true ? { artifact_released: true } : {};
    const template = await records.update("template", job.template_id, (current) =>
      current?.status === "PENDING"
        ? { ...current, ...released, status: "FAILED", last_error: message, updated_at: at }
        : undefined,
    );
    // Before the job is seen to have ended: it leaves nothing behind.
    if (job["artifact_fresh"] === true && job.artifact_id !== undefined) {
      await records.update("job", jobId, (current) => current && { ...current, ...released });
      await artifacts.release(job.artifact_id, { isUrgent: true });
    }
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
