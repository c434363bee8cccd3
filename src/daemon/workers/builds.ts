/**
 * Which template jobs this node works on: every active job whose template it leads. Level-
 * triggered: `reconcile` looks at all active jobs at start, when a job record or a leadership
 * changes and on a slow timer, so that no job stays RUNNING with nobody working on it.
 */
import PQueue from "p-queue";
import {
  AppError,
  isActiveJob,
  isAppError,
  isTemplateJob,
  type JobRecord,
  type RegistryCredentials,
} from "../../domain/index.ts";
import type { Lease } from "../../gossip/index.ts";
import { JobTimes } from "../job-record.ts";
import { JobRun, cancelled, type BuildParts } from "./job-run.ts";

interface Running {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

/** Reasons that end a run and leave the job to whoever leads next, this node too. */
const PARKED = new Set(["daemon_draining", "leadership_lost", "fenced", "no_quorum"]);
/** After a run was parked for want of a quorum. */
const RETRY_MS = 2_000;

export class BuildsWorker {
  readonly #parts: BuildParts;
  readonly #running = new Map<string, Running>();
  readonly #times: JobTimes;
  readonly #credentials = new Map<string, RegistryCredentials>();
  readonly #slots: PQueue;
  readonly #unsubscribe: (() => void)[] = [];
  readonly #stop = new AbortController();

  constructor(parts: BuildParts) {
    this.#parts = parts;
    this.#times = new JobTimes(parts.clock);
    this.#slots = new PQueue({ concurrency: parts.concurrency });
  }

  /** Follows jobs and leaderships from now on. */
  start(): void {
    const { catalog, leases } = this.#parts;
    this.#unsubscribe.push(
      catalog.subscribe((entry) => {
        if (entry.kind !== "job") return;
        if (entry.value === undefined) this.#forget(entry.id);
        this.reconcile();
      }),
      leases.onOpportunity(() => this.reconcile()),
    );
    this.reconcile();
  }

  /** Kept in memory until the job ends; never stored. */
  keepCredentials(jobId: string, credentials: RegistryCredentials): void {
    this.#credentials.set(jobId, credentials);
  }

  /** For the node that works on the job. */
  credentialsOf(jobId: string): RegistryCredentials | undefined {
    return this.#credentials.get(jobId);
  }

  get activeCount(): number {
    return this.#running.size;
  }

  reconcile(): void {
    if (this.#stop.signal.aborted) return;
    for (const job of this.#parts.records.list("job")) {
      if (!isTemplateJob(job)) continue;
      if (!isActiveJob(job)) {
        this.#credentials.delete(job.job_id);
        this.#times.forget(job.job_id);
        continue;
      }
      this.#times.see(job.job_id);
      const running = this.#running.get(job.job_id);
      if (running === undefined) this.#start(job);
      else if (job.cancel_requested === true) running.abort.abort(cancelled(job));
    }
  }

  /** Resolves when nothing is under way for the job here. */
  async settled(jobId: string): Promise<void> {
    await this.#running.get(jobId)?.done;
  }

  /** Parks every job: its record stays RUNNING in its phase and the next leader takes it up. */
  async stop(): Promise<void> {
    const reason = new AppError("daemon_draining", "the daemon is stopping");
    this.#stop.abort(reason);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    for (const { abort } of this.#running.values()) abort.abort(reason);
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #forget(jobId: string): void {
    this.#credentials.delete(jobId);
    this.#times.forget(jobId);
    this.#parts.facts.put("job-progress", jobId, undefined, { sync: false }).catch(() => undefined);
  }

  #start(job: JobRecord): void {
    const { leases, clock, log } = this.#parts;
    const abort = new AbortController();
    const { job_id: jobId, template_id: templateId } = job;
    const done = leases
      .use(templateId, (lease) => this.#run(jobId, abort, lease))
      .then(() => undefined)
      .catch((error: unknown) => {
        if (!isAppError(error) || !PARKED.has(error.code)) {
          log.warn("a job could not be taken up", { job_id: jobId, err: error });
        }
        clock.after(RETRY_MS, () => this.reconcile());
      })
      .finally(() => this.#running.delete(jobId));
    this.#running.set(jobId, { abort, done });
  }

  async #run(jobId: string, abort: AbortController, lease: Lease): Promise<void> {
    const { clock, records, log } = this.#parts;
    const job = records.get("job", jobId);
    if (job === undefined) return;
    const signal = AbortSignal.any([abort.signal, lease.signal]);
    const deadline = clock.after(this.#times.leftMs(job), () => {
      const minutes = Math.round(
        (Date.parse(job.deadline_at) - Date.parse(job.created_at)) / 60_000,
      );
      abort.abort(
        new AppError("job_deadline_exceeded", `the job did not end within ${minutes} minutes`),
      );
    });
    const run = new JobRun(this.#parts, {
      jobId,
      lease,
      signal,
      credentials: await this.#findCredentials(job),
    });
    try {
      await this.#slots.add(() => run.drive());
    } catch (thrown) {
      // Whatever an aborted step throws, the reason of the abort is what happened.
      const error: unknown = signal.aborted ? signal.reason : thrown;
      if (isAppError(error) && PARKED.has(error.code)) throw error;
      log.warn("job failed", { job_id: jobId, template_id: job.template_id, err: error });
      // Before the job is seen to have ended: it leaves nothing behind.
      await this.#parts.dropScratch(jobId);
      await run.fail(error, this.#stop.signal);
    } finally {
      deadline.cancel();
      await this.#parts.dropScratch(jobId);
      const ended = records.get("job", jobId);
      if (ended !== undefined && !isActiveJob(ended)) this.#parts.onJobEnd(ended);
    }
  }

  /** This node's own, or those that the node has to which they were given. */
  async #findCredentials(job: JobRecord): Promise<RegistryCredentials | undefined> {
    const own = this.#credentials.get(job.job_id);
    if (own !== undefined || job.request?.registry_username === undefined) return own;
    try {
      return await this.#parts.askCredentials(job);
    } catch (error) {
      this.#parts.log.warn("registry credentials could not be had", {
        job_id: job.job_id,
        err: error,
      });
      return undefined;
    }
  }
}
