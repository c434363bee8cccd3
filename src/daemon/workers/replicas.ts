/**
 * Every node, per template that wants a replica here (design §5): the artifact is on this disk, the
 * guest boots from it once, answers its probe and is snapshotted; or, when the template is gone,
 * what was made for it is removed. Level-triggered: compares the template's record with this
 * node's own fact and files, at start, on every change of either and on a slow timer, so that a
 * reboot or a lost file needs no special case.
 */
import { join } from "node:path";
import PQueue from "p-queue";
import {
  AppError,
  attemptAt,
  errorText,
  evaluateCompat,
  guestSpecOf,
  isAppError,
  keepBound,
  wantedGeneration,
  type ArtifactRecord,
  type ArtifactStore,
  type Clock,
  type Catalog,
  type ComponentVersions,
  type DriverSnapshot,
  type Folders,
  type LocalWrite,
  type Log,
  type ReplicaStatus,
  type RuntimeDriver,
  type StoredArtifact,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Swarm } from "../../gossip/index.ts";
import { snapshotBytes, type Space } from "../disk/space.ts";
import type { JobLog } from "../job-log.ts";
import type { Facts, Records } from "../records.ts";
import { cleanReplica } from "./clean-replica.ts";
import { assertFits, deliverFrozen, isPublished } from "./frozen-replicas.ts";
import { MadeReplicas, type MadeReplica } from "./made-replicas.ts";
import { Retries } from "./retries.ts";

export interface ReplicaParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  /** Brings an artifact's bytes into the store from other nodes. */
  readonly swarm: Pick<Swarm, "fetch">;
  readonly isHeldElsewhere: (artifact: ArtifactRecord) => boolean;
  readonly driver: RuntimeDriver;
  readonly folders: Folders;
  readonly jobLog: JobLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly nodeIp: string;
  readonly templatesDir: string;
  readonly concurrency: number;
  readonly space: Pick<Space, "hold">;
  /** Every guest is cut off, whatever its request says. */
  readonly isolateGuests: boolean;
  /**
   * True while a sandbox of that template, or of that generation of its replica, runs here: its
   * snapshot's files are in use.
   */
  readonly inUse: (templateId: string, generation?: number) => boolean;
}

interface Work {
  readonly abort: AbortController;
  readonly generation: number;
  readonly done: Promise<void>;
}

export class ReplicasWorker {
  readonly #parts: ReplicaParts;
  readonly #made: MadeReplicas;
  readonly #working = new Map<string, Work>();
  readonly #boots: PQueue;
  /** By template id. */
  readonly #retries: Retries;
  #stopping = false;
  #unsubscribe: () => void = () => undefined;

  constructor(parts: ReplicaParts) {
    this.#parts = parts;
    this.#made = new MadeReplicas(parts);
    this.#retries = new Retries(parts.clock, (id) => this.#consider(id));
    this.#boots = new PQueue({ concurrency: parts.concurrency });
  }

  /** Loads what this node made before, and follows the templates from now on. */
  async start(): Promise<void> {
    const { catalog } = this.#parts;
    await this.#made.load();
    this.#unsubscribe = catalog.subscribe((entry) => {
      if (entry.kind === "template") this.#consider(entry.id);
      if (entry.kind === "artifact") this.#considerUsersOf(entry.id);
    });
    this.reconcile();
  }

  made(templateId: string): MadeReplica | undefined {
    return this.#made.get(templateId);
  }

  snapshot(templateId: string): DriverSnapshot | undefined {
    return this.#made.get(templateId)?.snapshot;
  }

  /** The driver that can start it, when that is not the one of this start. */
  foreignDriver(id: string): string | undefined {
    return this.#made.foreignDriver(id);
  }

  /** What the driver has frozen of a sandbox here is this node's replica of its record. */
  async adopt(record: TemplateRecord, snapshot: DriverSnapshot): Promise<void> {
    await this.#publishReady(record, snapshot);
  }

  /** Where files of a snapshot that comes from elsewhere go. */
  folder(templateId: string): string {
    return join(this.#parts.templatesDir, templateId);
  }

  /**
   * What was frozen elsewhere becomes this node's replica: `make` puts its files in place, and
   * `commit` writes the record that wants it. Without that record it goes again.
   * @throws AppError template_attempt_in_progress, and what the two throw
   */
  async take(
    record: TemplateRecord,
    make: () => Promise<DriverSnapshot>,
    commit: () => Promise<void>,
  ): Promise<void> {
    const id = record.template_id;
    if (this.#working.has(id) || this.#made.has(id) || this.#stopping) {
      throw new AppError("template_attempt_in_progress", `${id} is being made or removed here`);
    }
    const work = async () => {
      await this.#publishReady(record, await make());
      await commit();
    };
    const taken = work();
    const done = taken.catch(() => undefined);
    this.#working.set(id, { abort: new AbortController(), generation: record.generation, done });
    try {
      await taken;
    } finally {
      this.#working.delete(id);
      // Whatever a failure means: what has a record stays, and what has none goes.
      this.#consider(id);
    }
  }

  /** Drops what is here of it, whatever its record says. */
  discard(templateId: string): Promise<void> {
    return this.#drop(templateId);
  }

  /** What is frozen of a snapshot that shall be here can be had from others. */
  canFetch(id: string): boolean {
    const { artifact_id: rootfs = "", frozen } = this.#wanted(id) ?? {};
    if (frozen === undefined || this.foreignDriver(id) !== undefined) return false;
    const isThere = this.#parts.records.get("artifact", rootfs)?.status === "READY";
    return isThere && isPublished(this.#parts, frozen);
  }

  /** True while it is made or removed here. */
  isWorking(templateId: string): boolean {
    return this.#working.has(templateId);
  }

  /** Templates that work is under way for. */
  get activeCount(): number {
    return this.#working.size;
  }

  reconcile(): void {
    const { catalog, facts } = this.#parts;
    const ids = new Set(this.#made.ids());
    for (const entry of catalog.list("template")) ids.add(entry.id);
    for (const entry of catalog.list("replica", { owner: facts.nodeId })) ids.add(entry.id);
    for (const id of ids) this.#consider(id);
    void this.#made.dropRetired();
  }

  /** Resolves when nothing is under way for the template. */
  async settled(templateId: string): Promise<void> {
    for (;;) {
      const work = this.#working.get(templateId);
      if (work === undefined) return;
      await work.done;
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#unsubscribe();
    for (const { abort } of this.#working.values()) {
      abort.abort(new AppError("daemon_draining", "the daemon is stopping"));
    }
    await Promise.all([...this.#working.values()].map(({ done }) => done));
  }

  /** Their record may have come before that of the artifact. */
  #considerUsersOf(artifactId: string): void {
    for (const template of this.#parts.records.list("template")) {
      const { template_id: id, frozen } = template;
      const isFile = frozen?.files.some(({ artifact_id }) => artifact_id === artifactId) === true;
      if (template.artifact_id === artifactId || isFile) this.#consider(id);
    }
  }

  #wanted(templateId: string): TemplateRecord | undefined {
    const template = this.#parts.records.get("template", templateId);
    return template?.desired_nodes.includes(this.#parts.facts.nodeId) === true
      ? template
      : undefined;
  }

  /** What is to be done for a template now: the plan, from goal and actual. */
  #plan(templateId: string): "make" | "remove" | "nothing" {
    const template = this.#wanted(templateId);
    const replica = this.#parts.facts.get("replica", templateId);
    const isMade = this.#made.has(templateId);
    if (template === undefined) {
      const something = replica !== undefined || isMade;
      return something && !this.#parts.inUse(templateId) ? "remove" : "nothing";
    }
    if (template.status === "DELETING") return "nothing";
    // Memory of a sandbox: it cannot be made again, only had from where it is.
    const isFrozen = template.kind === "snapshot";
    if (isFrozen && (isMade || !this.canFetch(templateId))) return "nothing";
    const generation = wantedGeneration(template, this.#parts.facts.nodeId);
    if (replica?.status === "READY") {
      if (!isMade) return "make";
      if (replica.generation === generation) return "nothing";
    }
    const isFailed = attemptAt(replica, generation)?.phase === "FAILED";
    // One that is frozen can only be had: it is tried again in each life, and when it is asked for.
    const isAskedAgain = isFrozen && replica?.last_job_id !== template.job_id;
    const isFirst = isFrozen && !this.#retries.has(templateId);
    if (isFailed && !isAskedAgain && !isFirst && !this.#retries.isDue(templateId)) return "nothing";
    const artifact = this.#parts.records.get("artifact", template.artifact_id ?? "");
    if (artifact?.status !== "READY") return "nothing";
    return template.status === "FAILED" && !isFrozen ? "nothing" : "make";
  }

  #consider(templateId: string): void {
    if (this.#stopping) return;
    const working = this.#working.get(templateId);
    if (working !== undefined) {
      const template = this.#wanted(templateId);
      const generation =
        template === undefined ? undefined : wantedGeneration(template, this.#parts.facts.nodeId);
      const hasFailed = template?.status === "FAILED" && template.kind === "template";
      if (generation !== working.generation || hasFailed) {
        working.abort.abort(new AppError("job_cancelled", "it is not wanted here any more"));
      }
      return;
    }
    const plan = this.#plan(templateId);
    if (plan === "nothing") return;
    const abort = new AbortController();
    const template = this.#wanted(templateId);
    const generation =
      template === undefined ? 0 : wantedGeneration(template, this.#parts.facts.nodeId);
    const drop = () => this.#drop(templateId);
    const work =
      plan === "make"
        ? this.#make(templateId, abort.signal)
        : cleanReplica(this.#parts, templateId, drop);
    const done = work.then(
      () => {
        this.#working.delete(templateId);
        if (plan === "make") this.#consider(templateId);
      },
      (error: unknown) => {
        this.#working.delete(templateId);
        this.#parts.log.warn("replica work failed", { template_id: templateId, err: error });
        // Not at once: what cannot be written down now can't be in a moment either.
        this.#retries.later(templateId);
      },
    );
    this.#working.set(templateId, { abort, generation, done });
  }

  /** What serves stays as it is while another generation is made beside it. */
  async #publish(
    template: TemplateRecord,
    change: Partial<ReplicaStatus> & Pick<ReplicaStatus, "status" | "phase">,
    local: readonly LocalWrite[] = [],
  ): Promise<void> {
    const { facts, nodeIp } = this.#parts;
    const { template_id: id } = template;
    const generation = wantedGeneration(template, facts.nodeId);
    const current = facts.get("replica", id);
    const serves = current?.status === "READY" && this.#made.has(id);
    if (serves && change.status !== "READY" && current.generation !== generation) {
      const { phase, last_error_phase, error_message } = change;
      const redo = {
        generation,
        phase,
        job_id: template.job_id ?? "",
        ...(last_error_phase === undefined ? {} : { last_error_phase }),
        ...(error_message === undefined ? {} : { error_message }),
      };
      await facts.update("replica", id, (serving) => ({ ...serving, redo }));
      return;
    }
    const container = template.request.containers?.[0];
    const replica: ReplicaStatus = {
      node_id: facts.nodeId,
      node_ip: nodeIp,
      instance_type: template.instance_type,
      spec: `cpu=${container?.resources?.cpu ?? ""},mem=${container?.resources?.mem ?? ""}`,
      artifact_id: template.artifact_id ?? "",
      last_job_id: template.job_id ?? "",
      generation,
      ...change,
    };
    const value = change.status === "READY" ? replica : keepBound(current, replica);
    await facts.put("replica", id, value, { local });
  }

  async #make(templateId: string, signal: AbortSignal): Promise<void> {
    const template = this.#wanted(templateId);
    if (template === undefined) return;
    const say = (level: "info" | "error", message: string) =>
      this.#parts.jobLog.append(template.job_id ?? templateId, level, message);
    let step: ReplicaStatus["phase"] = "DISTRIBUTING";
    try {
      await this.#publish(template, {
        status: "FAILED",
        phase: "DISTRIBUTING",
        last_error_phase: "DISTRIBUTING",
        cleanup_required: true,
      });
      if (template.kind === "snapshot" && template.frozen !== undefined) {
        await assertFits(this.#parts, template.frozen, signal);
      }
      const artifact = await this.#deliver(template, signal);
      const generation = wantedGeneration(template, this.#parts.facts.nodeId);
      const dir = this.#made.folder(template.template_id, generation);
      const told = (reason: string) =>
        say("info", `${this.#parts.facts.nodeId} boots it, without its memory: ${reason}`);
      const options = { generation, dir, signal, onBoot: told };
      const thawed = await deliverFrozen(this.#parts, template, options);
      await this.#publish(template, { status: "FAILED", phase: "DISTRIBUTED" });
      step = "SNAPSHOTTING";
      const snapshot = await this.#boots.add(
        async () =>
          (await thawed?.(artifact.path)) ?? (await this.#boot(template, artifact.path, signal)),
      );
      this.#retries.forget(templateId);
      await this.#publishReady(template, snapshot);
      say("info", `replica on ${this.#parts.facts.nodeId} is READY`);
    } catch (thrown) {
      const error: unknown = signal.aborted ? signal.reason : thrown;
      if (isAppError(error, "daemon_draining") || this.#wanted(templateId) === undefined) return;
      const message = errorText(error);
      say("error", `replica on ${this.#parts.facts.nodeId}: ${message}`);
      for (const line of consoleTail(error)) say("error", `console: ${line}`);
      await this.#publish(template, {
        status: "FAILED",
        phase: "FAILED",
        last_error_phase: step,
        cleanup_required: true,
        error_message: message,
      });
      const mayPass = template.kind === "snapshot" || (isAppError(error) && error.row.retryable);
      if (mayPass) this.#retries.later(templateId);
    }
  }

  /** The artifact on this node's disk, fetched from others when it is not there. */
  async #deliver(template: TemplateRecord, signal: AbortSignal): Promise<StoredArtifact> {
    const { store, swarm, records, jobLog, clock } = this.#parts;
    const id = template.artifact_id ?? "";
    const artifact = records.get("artifact", id);
    const held = store.find(id);
    if (held !== undefined && held.digest === artifact?.digest) {
      // What was made once already may have been damaged since.
      if (!this.#made.has(template.template_id) || (await this.#isWhole(held, signal))) {
        return held;
      }
    }
    if (artifact === undefined) throw new AppError("artifact_not_found", `artifact ${id} is gone`);
    const began = clock.monotonic();
    await swarm.fetch(artifact, { signal });
    const fetched = store.find(id);
    if (fetched === undefined) {
      throw new AppError("artifact_source_missing", `artifact ${id} is not on this node's disk`);
    }
    const seconds = ((clock.monotonic() - began) / 1_000).toFixed(1);
    const job = template.job_id ?? template.template_id;
    jobLog.append(job, "info", `${this.#parts.facts.nodeId} has fetched ${id} in ${seconds} s`);
    return fetched;
  }

  async #isWhole({ digest, artifactId }: StoredArtifact, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#parts.store.verify(digest, { signal });
      return true;
    } catch (error) {
      if (!isAppError(error, "artifact_corrupt")) throw error;
      this.#parts.log.error("an artifact is damaged and is mended", { artifact_id: artifactId });
      // Nobody is to wait for it here; the swarm says so when it is whole again.
      await this.#parts.facts.put("holding", artifactId, undefined);
      return false;
    }
  }

  async #boot(
    template: TemplateRecord,
    rootfsPath: string,
    signal: AbortSignal,
  ): Promise<DriverSnapshot> {
    signal.throwIfAborted();
    const { driver, jobLog, facts, space } = this.#parts;
    const job = template.job_id ?? template.template_id;
    const generation = wantedGeneration(template, facts.nodeId);
    await this.#publish(template, {
      status: "FAILED",
      phase: "SNAPSHOTTING",
      last_error_phase: "SNAPSHOTTING",
      cleanup_required: true,
    });
    const guest = guestSpecOf(template.request, this.#parts.isolateGuests);
    const room = await space.hold(driver.name === "rootfs" ? 0 : snapshotBytes(guest), "snapshot");
    try {
      return await driver.makeSnapshot(
        {
          templateId: template.template_id,
          rootfsPath,
          guest,
          dir: this.#made.folder(template.template_id, generation),
        },
        {
          signal,
          onLog: (line) => jobLog.append(job, "debug", line),
          onStep: (name) => jobLog.append(job, "info", name),
        },
      );
    } finally {
      room.release();
    }
  }

  async #publishReady(template: TemplateRecord, snapshot: DriverSnapshot): Promise<void> {
    const { template_id: id } = template;
    const generation = wantedGeneration(template, this.#parts.facts.nodeId);
    const publish = async (rows: readonly LocalWrite[]) =>
      this.#publish(
        template,
        {
          status: "READY",
          phase: "READY",
          last_error_phase: "",
          cleanup_required: false,
          ...versionsOf(snapshot.versions),
          compat_policy: "STRICT",
          compat_status: await this.#compatOf(snapshot),
          compat_checked_unix: Math.floor(this.#parts.clock.now() / 1_000),
          timings: { ...snapshot.timings },
        },
        rows,
      );
    await this.#made.replace(id, { snapshot, generation }, publish);
  }

  /** What its guest was made with against what it would be made with now. */
  async #compatOf({ versions }: DriverSnapshot) {
    const current = versionsOf(await this.#parts.driver.versions());
    return evaluateCompat(versionsOf(versions), current, "STRICT");
  }

  async #drop(templateId: string): Promise<void> {
    await this.#made.remove(templateId);
    await this.#parts.facts.put("replica", templateId, undefined);
  }
}

const versionsOf = ({ extra, ...versions }: ComponentVersions) => ({
  ...versions,
  versions_extra: { ...extra },
});

const consoleTail = (error: unknown): string[] => {
  const tail = isAppError(error) ? error.meta["console_tail"] : undefined;
  return Array.isArray(tail) ? tail.map(String) : [];
};
