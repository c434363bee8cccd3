/**
 * What was asked of the sandboxes of a node that was removed from the cluster: nobody carries it
 * out any more, so that it ends FAILED, and whoever waits for it hears why. One of the nodes that
 * are left does it, and another one when that fails.
 */
import {
  AppError,
  candidateOrder,
  errorText,
  isActiveJob,
  isSandboxJob,
  type Clock,
  type JobRecord,
  type Log,
} from "../../domain/index.ts";
import type { Nodes } from "../nodes.ts";
import { failSandboxJob, type SandboxJobParts } from "./sandbox-jobs.ts";

export interface RemovedNodesParts extends SandboxJobParts {
  readonly nodes: Pick<Nodes, "self" | "all" | "wasRemoved" | "onChange">;
  readonly clock: Pick<Clock, "now" | "after">;
  readonly log: Log;
}

/** Changes that come together are looked at together. */
const SETTLE_MS = 250;
/** After a failure: no quorum, as a rule. */
const RETRY_MS = 2_000;

export class RemovedNodesWorker {
  readonly #parts: RemovedNodesParts;
  readonly #unsubscribe: (() => void)[] = [];
  #timer: { cancel(): void } | undefined;
  #pass: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: RemovedNodesParts) {
    this.#parts = parts;
  }

  start(): void {
    const { catalog, nodes } = this.#parts;
    this.#unsubscribe.push(
      // A job may be heard of later than its node's removal.
      catalog.subscribe(({ kind, id }) => {
        if (kind !== "job") return;
        const job = this.#parts.records.get("job", id);
        if (job !== undefined && this.#isLeft(job)) this.#lookAfter(SETTLE_MS);
      }),
      nodes.onChange(() => this.#lookAfter(SETTLE_MS)),
    );
    this.#lookAfter(SETTLE_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    await this.#pass;
  }

  #lookAfter(milliseconds: number): void {
    if (this.#stopped) return;
    this.#timer ??= this.#parts.clock.after(milliseconds, () => {
      this.#timer = undefined;
      this.#pass = this.#pass.then(() => this.#settleAll());
    });
  }

  #isLeft(job: JobRecord): boolean {
    if (!isSandboxJob(job) || !isActiveJob(job)) return false;
    return this.#parts.nodes.wasRemoved(job.node_id ?? "");
  }

  /** Whether this node is the first of those that can. */
  #isOurs({ job_id }: JobRecord): boolean {
    const { nodes } = this.#parts;
    const healthy = nodes.all().filter((node) => node.healthy);
    const names = healthy.map(({ node_id }) => node_id);
    return candidateOrder(job_id, names)[0] === nodes.self;
  }

  async #settleAll(): Promise<void> {
    for (const job of [...this.#parts.records.list("job")]) {
      if (this.#stopped) return;
      if (this.#isLeft(job) && this.#isOurs(job)) await this.#settle(job);
    }
  }

  async #settle({ job_id, node_id = "" }: JobRecord): Promise<void> {
    const { records, log } = this.#parts;
    const fields = { job_id, node_id };
    try {
      // What a majority knows: it may have been handed over, or be of a node that is back.
      const job = await records.update("job", job_id, () => undefined);
      if (job === undefined || !this.#isLeft(job)) return;
      const message = `${node_id}, which was to carry it out, was removed from the cluster`;
      await failSandboxJob(this.#parts, job, new AppError("job_interrupted", message));
      log.warn("an operation went with its node", fields);
    } catch (error) {
      const reason = errorText(error);
      log.warn("an operation of a removed node is not settled yet", { ...fields, reason });
      this.#lookAfter(RETRY_MS);
    }
  }
}
