/**
 * Deleting templates and snapshots (spec §4.6, §4.9; design §10). Everything that says whether it
 * may go is looked at inside the change that claims it or behind the fence, so that what comes in
 * between wins or loses as a whole. A deletion whose node died is carried on by another.
 */
import {
  AppError,
  CLUSTER,
  assertUnprotected,
  claimDeletion,
  errorText,
  isActiveJob,
  isAppError,
  liftDeletion,
  stillInUse,
  type Catalog,
  type Clock,
  type DeletionClaim,
  type Log,
  type Queries,
  type Random,
  type TemplateRecord,
} from "../domain/index.ts";
import type { Artifacts } from "./build/artifacts.ts";
import type { CancelJob } from "./job-cancel.ts";
import type { JobLog } from "./job-log.ts";
import type { Leases } from "./leases.ts";
import type { Nodes } from "./nodes.ts";
import { KeyedQueue, type Records } from "./records.ts";
import type { ClusterRefs } from "./ref-asks.ts";
import { dropForgottenTags } from "./tags.ts";

export interface DeletionParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Pick<Nodes, "self" | "isMember">;
  /** True while the node is believed to be there. */
  readonly isUp: (nodeId: string) => boolean;
  readonly queries: Pick<Queries, "template">;
  readonly clusterRefs: Pick<ClusterRefs, "find" | "fence" | "unfence">;
  readonly replicas: { settled(templateId: string): Promise<void> };
  readonly artifacts: Pick<Artifacts, "release">;
  readonly jobLog: Pick<JobLog, "remove">;
  readonly leases: Pick<Leases, "use">;
  readonly cancelJob: CancelJob;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface RemoveOptions {
  /** Cancels what still makes it; who uses it is honoured all the same. */
  readonly force: boolean;
  readonly actor: string;
  /** Asked again where it is claimed; throws what keeps it. */
  readonly mayGo?: (current: TemplateRecord) => void;
}

export interface Deletions {
  /**
   * @param idOrName of a template or a snapshot: its kind says which guards there are
   * @throws AppError template_not_found, template_in_use, snapshot_in_use,
   *   template_attempt_in_progress, template_protected (forced or not),
   *   peer_unreachable (a node that may hold a ref does not answer)
   */
  remove(idOrName: string, options: RemoveOptions): Promise<{ template_id: string }>;
  /**
   * Ends the deletions that nobody carries out any more, and drops the tags that they have left;
   * one that fails is left for next time.
   */
  resume(): Promise<void>;
}

export function createDeletions(parts: DeletionParts): Deletions {
  return new ClusterDeletions(parts);
}

class ClusterDeletions implements Deletions {
  readonly #parts: DeletionParts;
  readonly #perTemplate = new KeyedQueue();
  /** Claims that this process is carrying out. */
  readonly #atWork = new Set<string>();

  constructor(parts: DeletionParts) {
    this.#parts = parts;
  }

  async remove(idOrName: string, options: RemoveOptions): Promise<{ template_id: string }> {
    const { template_id } = this.#parts.queries.template(idOrName);
    await this.#perTemplate.run(template_id, () => this.#remove(template_id, options));
    return { template_id };
  }

  async resume(): Promise<void> {
    const { records, log } = this.#parts;
    for (const template of [...records.list("template")]) {
      if (template.status !== "DELETING" || this.#isAtWork(template.deletion)) continue;
      const { template_id } = template;
      try {
        await this.#perTemplate.run(template_id, () => this.#takeOver(template));
      } catch (error) {
        const isOver = isAppError(error, "template_in_use") || isAppError(error, "snapshot_in_use");
        const what = isOver ? "a deletion was taken back" : "a deletion could not be carried on";
        log[isOver ? "info" : "warn"](what, { template_id, reason: errorText(error) });
      }
    }
    // Of deletions that were cut off behind their last step.
    await dropForgottenTags(records).catch((error: unknown) => {
      log.info("forgotten tags are not dropped yet", { reason: errorText(error) });
    });
  }

  async #remove(templateId: string, options: RemoveOptions): Promise<void> {
    const info = this.#parts.queries.template(templateId);
    // Looked at before anything is marked or cancelled, also when forced (spec §4.6).
    assertUnprotected(await this.#parts.records.update("template", templateId, () => undefined));
    if (info.status !== "FAILED") await this.#assertUnused(info);
    await this.#endJobs(templateId, options);
    const claim = this.#newClaim();
    await this.#working(claim, async () => {
      const claimed = await this.#claim(templateId, claim, options);
      if (claimed === undefined) await this.#dropRest(templateId, await this.#dropJobs(templateId));
      else await this.#carryOut(claimed, claim);
    });
  }

  async #takeOver(seen: TemplateRecord): Promise<void> {
    const { leases, nodes, records } = this.#parts;
    const claim = this.#newClaim();
    const work = () =>
      this.#working(claim, async () => {
        const taken = await records.update("template", seen.template_id, (current) =>
          current?.status === "DELETING" && current.deletion?.id === seen.deletion?.id
            ? claimDeletion(current, claim, () => false)
            : undefined,
        );
        if (taken?.deletion?.id === claim.id) await this.#carryOut(taken, claim);
      });
    // Of this node's own attempts nobody else takes one over while it is up.
    if (seen.deletion?.node_id === nodes.self) await work();
    else await leases.use(seen.template_id, work);
  }

  #newClaim(): DeletionClaim {
    const { random, nodes, clock } = this.#parts;
    return { id: random.uuid(), node_id: nodes.self, at: new Date(clock.now()).toISOString() };
  }

  async #working(claim: DeletionClaim, work: () => Promise<void>): Promise<void> {
    this.#atWork.add(claim.id);
    try {
      await work();
    } finally {
      this.#atWork.delete(claim.id);
    }
  }

  #isAtWork(deletion: TemplateRecord["deletion"]): boolean {
    if (deletion === undefined) return false;
    const { nodes, isUp } = this.#parts;
    if (deletion.node_id === nodes.self) return this.#atWork.has(deletion.id);
    return nodes.isMember(deletion.node_id) && isUp(deletion.node_id);
  }

  /** @throws AppError template_attempt_in_progress unless forced; then the jobs are cancelled */
  async #endJobs(templateId: string, { force, actor }: RemoveOptions): Promise<void> {
    for (const job of this.#jobs(templateId).filter(isActiveJob)) {
      if (!force) throw beingMade(templateId, job.job_id);
      await this.#parts.cancelJob(job.job_id, actor).catch((error: unknown) => {
        if (!isAppError(error, "job_not_active") && !isAppError(error, "job_not_found")) {
          throw error;
        }
      });
    }
  }

  #jobs(templateId: string) {
    return [...this.#parts.records.list("job")].filter((job) => job.template_id === templateId);
  }

  /**
   * Undefined when there is no record, only jobs. A job claims the record by its `job_id` after its
   * own record is written: so the job that is named there is looked at where a majority has it, and
   * the claim holds only while the record names no other.
   */
  async #claim(
    templateId: string,
    claim: DeletionClaim,
    options: RemoveOptions,
  ): Promise<TemplateRecord | undefined> {
    const { records } = this.#parts;
    for (;;) {
      const jobId = records.get("template", templateId)?.job_id ?? "";
      const job = jobId === "" ? undefined : await records.update("job", jobId, () => undefined);
      if (job !== undefined && isActiveJob(job)) {
        await this.#endJobs(templateId, options);
        const after = records.get("job", jobId);
        if (after !== undefined && isActiveJob(after)) throw beingMade(templateId, jobId);
      }
      const claimed = await records.update("template", templateId, (current) => {
        if (current === undefined || (current.job_id ?? "") !== jobId) return undefined;
        if (current.deletion?.id !== claim.id) options.mayGo?.(current);
        return claimDeletion(current, claim, (deletion) => this.#isAtWork(deletion));
      });
      if (claimed === undefined || claimed.deletion?.id === claim.id) return claimed;
    }
  }

  async #carryOut(template: TemplateRecord, claim: DeletionClaim): Promise<void> {
    const { catalog, clusterRefs } = this.#parts;
    const { template_id: id } = template;
    const version = catalog.get(CLUSTER, "template", id)?.version;
    const holders = this.#holders(template);
    try {
      const refs = await clusterRefs.fence(id, holders, version);
      // Row 79: what FAILED has no replica that a sandbox could run on.
      if (template.deletion?.from_status !== "FAILED" || refs.length > 0) {
        this.#assertFree(template, refs);
      }
    } catch (error) {
      // Before the record is lifted: a fence that outlives it would be of no claim.
      await clusterRefs.unfence(id, holders, version);
      await this.#lift(id, claim);
      throw error;
    }
    await this.#drop(template, claim);
  }

  /** One that cannot be written now is taken up by `resume`. */
  async #lift(templateId: string, claim: DeletionClaim): Promise<void> {
    const { records, clock, log } = this.#parts;
    const at = new Date(clock.now()).toISOString();
    try {
      await records.update("template", templateId, (current) =>
        liftDeletion(current, claim.id, at),
      );
    } catch (error) {
      const fields = { template_id: templateId, reason: errorText(error) };
      log.warn("a deletion is not taken back yet", fields);
    }
  }

  /** Nodes that could give a ref now; one that is away finds the record gone when it is back. */
  #holders(template: TemplateRecord): string[] {
    const { catalog, nodes, isUp } = this.#parts;
    const { template_id: id } = template;
    const all = new Set([nodes.self, ...template.desired_nodes]);
    for (const { owner } of catalog.list("replica", { id })) all.add(owner);
    for (const { owner } of catalog.list("refs", { id })) all.add(owner);
    return [...all].filter((node) => nodes.isMember(node) && isUp(node)).sort();
  }

  async #assertUnused(info: Pick<TemplateRecord, "template_id" | "kind">): Promise<void> {
    const { refs, unanswered } = await this.#parts.clusterRefs.find({
      snapshotId: info.template_id,
    });
    const silent = new Set(unanswered.map(({ node_id }) => node_id));
    this.#assertFree(info, refs, (node) => silent.has(node));
  }

  /**
   * @param refs of the nodes that have answered; of the others what they last told of themselves
   * @throws AppError template_in_use, snapshot_in_use
   */
  #assertFree(
    template: Pick<TemplateRecord, "template_id" | "kind">,
    refs: readonly { readonly sandbox_id: string; readonly node_id: string }[],
    isSilent: (nodeId: string) => boolean = (nodeId) => !this.#parts.isUp(nodeId),
  ): void {
    const { catalog, nodes } = this.#parts;
    const users = refs.map((ref) => `${ref.sandbox_id}@${ref.node_id}`);
    let count = users.length;
    for (const { owner, value } of catalog.list("refs", { id: template.template_id })) {
      // Refs of a node that was removed went with it.
      if (value === undefined || !nodes.isMember(owner) || !isSilent(owner)) continue;
      count += value.count;
      users.push(...value.sandboxes.map((sandbox) => `${sandbox}@${owner}`));
    }
    if (count > 0) throw stillInUse(template, count, users);
  }

  async #drop(template: TemplateRecord, claim: DeletionClaim): Promise<void> {
    const { template_id: id, artifact_id, frozen } = template;
    const jobs = await this.#dropJobs(id);
    const left = await this.#parts.records.update("template", id, (current) =>
      current?.deletion?.id === claim.id ? null : undefined,
    );
    if (left !== undefined) {
      throw new AppError("template_attempt_in_progress", `${id} is being deleted by another node`);
    }
    // Nobody else can have any use for a sandbox's memory.
    await this.#dropRest(id, [{ artifact_id }, ...jobs]);
    for (const file of frozen?.files ?? []) {
      await this.#parts.artifacts.release(file.artifact_id, { templateId: id, isUrgent: true });
    }
  }

  /** What goes by itself later when this is not reached. */
  async #dropRest(
    id: string,
    users: readonly { readonly artifact_id?: string | undefined }[],
  ): Promise<void> {
    const { records, artifacts, replicas } = this.#parts;
    await replicas.settled(id);
    const artifactIds = new Set(users.map((user) => user.artifact_id));
    for (const artifactId of [...artifactIds].sort()) {
      if (artifactId !== undefined && records.get("artifact", artifactId) !== undefined) {
        await artifacts.release(artifactId, { templateId: id });
      }
    }
    await dropForgottenTags(records);
    await records.update("leader", id, (current) => (current ? null : undefined));
  }

  async #dropJobs(templateId: string) {
    const jobs = this.#jobs(templateId);
    for (const job of jobs) {
      await this.#parts.records.update("job", job.job_id, (current) =>
        current ? null : undefined,
      );
      await this.#parts.jobLog.remove(job.job_id);
    }
    return jobs;
  }
}

const beingMade = (templateId: string, jobId: string): AppError =>
  new AppError(
    "template_attempt_in_progress",
    `template ${templateId} is still being made by job ${jobId}: cancel it first, or force`,
    { meta: { job_id: jobId } },
  );
