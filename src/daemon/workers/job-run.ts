/**
 * One run of a template's job under one leadership (design §5): from the phase that the job's
 * record names to its end. Every record is written under the lease, so that a run that has lost it
 * changes nothing any more.
 */
import {
  AppError,
  errorText,
  giveUpRedo,
  isActiveJob,
  isAppError,
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
  type ReplicaStatus,
  type ResolvedImage,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Lease } from "../../gossip/index.ts";
import type { Artifacts, BakePlan } from "../build/artifacts.ts";
import type { JobLog } from "../job-log.ts";
import { enterPhase, failJob, workersOf } from "../job-record.ts";
import type { Leases } from "../leases.ts";
import type { Nodes } from "../nodes.ts";
import { imageInfo } from "../queries.ts";
import { ledRecords, replicasOf, type Facts, type Records } from "../records.ts";
import { claimTemplate } from "../redo.ts";
import { claimTemplateName } from "../tags.ts";
import {
  askForRedo,
  awaitReplicas,
  defineTemplate,
  planRedo,
  registerReplicas,
  requestOf,
  statusOf,
  type JobSteps,
} from "./job-replicas.ts";
import { defineImported, sourceIsGone } from "./job-import.ts";
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

  get #steps(): JobSteps {
    return {
      ...this.#parts,
      records: this.#records,
      enter: (jobId, phase, change) => this.#enter(jobId, phase, change),
      // A name is of no template's leadership.
      claimName: (job, template) =>
        claimTemplateName(this.#parts.records, job, template, this.#now()),
      now: () => this.#now(),
    };
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
    const started = {
      runs: job.runs + 1,
      worked_by: facts.nodeId,
      workers: [...new Set([...workersOf(job), facts.nodeId])],
    };
    const progress = createProgress({ ...this.#parts, jobId });
    try {
      if (job.operation === "COMMIT") job = await this.#enter(jobId, job.phase, started);
      else if (job.operation === "REDO") job = await this.#beginRedo(job, started, progress);
      else job = await this.#begin(job, started, progress);
      while (!(await awaitReplicas(this.#steps, job, signal, progress))) {
        jobLog.append(
          jobId,
          "warn",
          "the only copy of the artifact went with its node: built again",
        );
        job = await this.#build(job, {}, progress);
      }
      await registerReplicas(this.#steps, jobId);
    } finally {
      progress.end();
    }
  }

  /** The artifact from its image, then the definition that asks for its replicas. */
  async #build(
    job: JobRecord,
    started: Partial<JobRecord>,
    progress: ProgressReporter,
  ): Promise<JobRecord> {
    const { job_id: jobId, template_id: templateId } = job;
    const isRedo = job.operation === "REDO";
    // An import, or one of a prepared request: there is no image to build from.
    if (!isRedo && job.request === undefined) throw sourceIsGone(job);
    if (isRedo) assertBuildable(job);
    await this.#enter(jobId, "PULLING", started);
    const made = await this.#makeArtifact(jobId, this.#input.signal, progress);
    const isThere = this.#records.get("template", templateId) !== undefined;
    if (isRedo && (isThere || job["of_template"] === true)) {
      return askForRedo(this.#steps, job, made);
    }
    return defineTemplate(this.#steps, jobId, made.artifact, made.fresh);
  }

  async #begin(
    job: JobRecord,
    started: Partial<JobRecord>,
    progress: ProgressReporter,
  ): Promise<JobRecord> {
    const artifact = this.#finishedArtifact(job);
    if (artifact === undefined) return this.#build(job, started, progress);
    const phase = job.phase === "PULLING" ? "DISTRIBUTING" : job.phase;
    const entered = await this.#enter(job.job_id, phase, started);
    if (job.definition !== undefined) {
      return defineImported(this.#steps, entered, artifact);
    }
    if (this.#records.get("template", job.template_id) !== undefined) return entered;
    return defineTemplate(this.#steps, job.job_id, artifact, job["artifact_fresh"] === true);
  }

  /** What is there of the root filesystem is kept: only without it, it is built again. */
  async #beginRedo(
    job: JobRecord,
    started: Partial<JobRecord>,
    progress: ProgressReporter,
  ): Promise<JobRecord> {
    const entered = await this.#enter(job.job_id, job.phase, started);
    // Whoever asked for it does the same, to say at once when it cannot be had.
    await claimTemplate(this.#records, job.template_id, job.job_id);
    const planned = await planRedo(this.#steps, entered);
    const template = this.#records.get("template", job.template_id);
    const artifact = this.#records.get("artifact", template?.artifact_id ?? "");
    const isThere = template !== undefined && this.#parts.artifacts.isAvailable(artifact);
    if (isThere) return askForRedo(this.#steps, planned);
    return this.#build(planned, {}, progress);
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
    return this.#parts.source.resolve(sourceOf(this.#records.get("job", jobId), request), {
      platform: this.#parts.platform,
      scratchDir: await this.#parts.scratchDir(jobId),
      signal,
      ...(credentials === undefined ? {} : { credentials }),
    });
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
    const isFresh = job["artifact_fresh"] === true;
    const replicas = replicasOf(this.#parts.catalog, job.template_id);
    const template = await records.update("template", job.template_id, (current) =>
      current === undefined ? undefined : failed(current, job, replicas, { message, at, isFresh }),
    );
    // What is built anew and nothing is made from goes with the job.
    const isUseless = isFresh && (template === undefined || template.status === "FAILED");
    // Before the job is seen to have ended: it leaves nothing behind.
    if (isUseless && job.artifact_id !== undefined) {
      await records.update(
        "job",
        jobId,
        (current) => current && { ...current, artifact_released: true },
      );
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

/** @throws AppError redo_not_allowed: the root filesystem is gone and is not to be built again */
function assertBuildable(job: JobRecord): void {
  const why =
    job.memory_only === true
      ? "only its memory was to be made anew"
      : job.request?.source_image_ref === undefined
        ? "source_image_ref is required to build it again"
        : "";
  if (why === "") return;
  throw new AppError(
    "redo_not_allowed",
    `no node that is up holds the root filesystem of ${job.template_id}, and ${why}`,
    { meta: { artifact_id: job.artifact_id } },
  );
}

/** A redo builds from what the first build found, wherever the tag points now. */
function sourceOf(job: JobRecord | undefined, request: CreateFromImageRequest): string {
  const { source_image_ref: reference } = request;
  const isLocal = /^(oci|oci-archive|docker-archive):/.test(reference);
  if (job?.operation !== "REDO" || isLocal) return reference;
  return imageInfo(reference, job.source_image_digest ?? "");
}

/**
 * The record after a job that failed; undefined: it is not changed. A redo leaves what was there,
 * and asks for no more than that.
 */
function failed(
  template: TemplateRecord,
  job: JobRecord,
  replicas: readonly ReplicaStatus[],
  { message, at, isFresh }: { message: string; at: string; isFresh: boolean },
): TemplateRecord | undefined {
  const isRedo = job.operation === "REDO";
  const isOwn = template.job_id === job.job_id && (!isRedo || template.status !== "DELETING");
  if (!isOwn || (!isRedo && template.status !== "PENDING")) return undefined;
  const kept = isRedo ? giveUpRedo(template, replicas, job.generation) : template;
  const found = isRedo ? statusOf(kept, replicas) : undefined;
  if (found !== undefined && found.status !== "FAILED") {
    return { ...kept, status: found.status, last_error: found.error, updated_at: at };
  }
  if (template.status !== "PENDING") return kept;
  const released = isFresh ? { artifact_released: true } : {};
  return { ...kept, ...released, status: "FAILED", last_error: message, updated_at: at };
}
