/**
 * What a simulation of daemons knows and no daemon does: the newest records, what was deleted, who
 * was out of touch, and what each host really holds. What must never happen is said here.
 */
import {
  CLUSTER,
  isActiveJob,
  referencesByArtifact,
  type ArtifactRecord,
  type Entry,
  type JobRecord,
  type RuntimeRef,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import type { World } from "../world.ts";
import type { DaemonNode } from "./daemon-node.ts";
import type { BuildUnderWay } from "./images.ts";

/** Who was believed to be dead, or was, so short a time ago may not have been asked. */
const AWAY_MS = 20_000;
/** A host that has just been woken learns within this that its leadership is over. */
const WOKEN_MS = 1_500;

interface Fields {
  readonly epoch?: number;
  readonly worked_by?: string;
}

interface Shown {
  readonly status?: string;
  readonly phase?: string;
}

export class Truth {
  readonly #world: World;
  readonly #nodes: () => readonly DaemonNode[];
  readonly #fail: (what: string) => void;
  readonly #records = new Map<string, Entry>();
  /** Deleted templates and snapshots → nodes that were not in touch when that was decided. */
  readonly gone = new Map<string, ReadonlySet<string>>();
  /** Node → when somebody last believed it to be dead. */
  readonly #troubledAt = new Map<string, number>();
  /** Template and epoch → who has worked under it. */
  readonly #leaders = new Map<string, string>();
  readonly #judged = new Set<string>();
  readonly builds = new Set<BuildUnderWay>();

  constructor(world: World, nodes: () => readonly DaemonNode[], fail: (what: string) => void) {
    this.#world = world;
    this.#nodes = nodes;
    this.#fail = fail;
  }

  *all<T>(kind: "template" | "job" | "artifact"): Iterable<T> {
    for (const entry of this.#records.values()) {
      if (entry.kind === kind && entry.value !== undefined) yield entry.value as T;
    }
  }

  templates(): TemplateRecord[] {
    return [...this.all<TemplateRecord>("template")];
  }

  jobs(): JobRecord[] {
    return [...this.all<JobRecord>("job")];
  }

  activeJobs(): JobRecord[] {
    return this.jobs().filter(isActiveJob);
  }

  artifacts(): ArtifactRecord[] {
    return [...this.all<ArtifactRecord>("artifact")];
  }

  /** A node was seen to be out of touch, or is. */
  troubled(name: string): void {
    this.#troubledAt.set(name, this.#world.now);
  }

  hear(at: string, entry: Entry): void {
    if (entry.owner !== CLUSTER) return;
    const key = `${entry.kind}/${entry.id}`;
    const known = this.#records.get(key);
    if (known !== undefined && known.version >= entry.version) return;
    this.#records.set(key, entry);
    if (entry.kind === "template" || entry.kind === "job" || entry.kind === "artifact") {
      const { status = "gone", phase = "" } = (entry.value ?? {}) as Shown;
      this.#world.note(`${at} ${key} ${status} ${phase}`);
    }
    if (entry.kind === "template" && entry.value === undefined) this.#onDeleted(entry.id);
    if (entry.kind === "template" && entry.value !== undefined && this.gone.has(entry.id)) {
      this.#fail(`${entry.id} is back after it was deleted`);
    }
    if (entry.kind === "job") this.#checkLeader(entry.value as (JobRecord & Fields) | undefined);
  }

  /** One node works under an epoch. */
  #checkLeader(job: (JobRecord & Fields) | undefined): void {
    if (job?.epoch === undefined || job.worked_by === undefined) return;
    if (job.operation !== "CREATE" && job.operation !== "REDO") return;
    const key = `${job.job_id}@${job.epoch}`;
    const known = this.#leaders.get(key);
    if (known !== undefined && known !== job.worked_by && job.status === "RUNNING") {
      // The record's epoch rises with a new leader's first write, which names it.
      this.#fail(`${known} and ${job.worked_by} both worked on ${key}`);
    }
    this.#leaders.set(key, job.worked_by);
  }

  isAway(node: DaemonNode): boolean {
    const { host } = node;
    if (!host.up || this.#world.now < host.pausedUntil + AWAY_MS) return true;
    const at = this.#troubledAt.get(node.name);
    if (at !== undefined && this.#world.now - at < AWAY_MS) return true;
    return this.#nodes().some(
      ({ daemon }) => daemon !== undefined && !daemon.state.cluster.liveness.isUp(node.name),
    );
  }

  /** A ref outlives its snapshot only where nobody could be asked. */
  #onDeleted(id: string): void {
    this.#world.count("deletions");
    const away = new Set(this.#nodes().flatMap((node) => (this.isAway(node) ? [node.name] : [])));
    this.gone.set(id, away);
    for (const node of this.#nodes()) {
      const held = refsOnDisk(node).filter((ref) => ref.snapshot_id === id);
      if (held.length === 0) continue;
      const isFenced = node.disk.rows.local.has(`setting\0ref-fence/${id}`);
      if (away.has(node.name) && !isFenced) this.#world.count("refs of nodes that were away");
      else
        this.#fail(`${id} was deleted while ${held[0]?.sandbox_id ?? ""} on ${node.name} has it`);
    }
  }

  /** After every step. */
  check(): void {
    for (const node of this.#nodes()) this.#checkRefs(node);
    this.#checkLeases();
    if (this.builds.size > 1) this.#checkBuilds();
  }

  #checkRefs(node: DaemonNode): void {
    const { daemon } = node;
    if (daemon === undefined || this.gone.size === 0) return;
    for (const id of daemon.runtime.refs.usedSnapshots()) {
      const away = this.gone.get(id);
      const key = `${node.name}#${node.host.life}/${id}`;
      if (away === undefined || away.has(node.name) || this.#judged.has(key)) continue;
      // Given before this node could hear of the deletion, in a time when it could not be fenced.
      const isUnheard = daemon.state.catalog.get(CLUSTER, "template", id)?.value !== undefined;
      const isFenced = node.disk.rows.local.has(`setting\0ref-fence/${id}`);
      if (isFenced || !isUnheard) this.#fail(`${node.name} has a ref of ${id}, which is deleted`);
      this.#judged.add(key);
    }
  }

  #checkLeases(): void {
    for (const { template_id: id } of this.all<TemplateRecord | JobRecord>("job")) {
      let holder = "";
      for (const node of this.#nodes()) {
        if (node.daemon?.state.cluster.leadership.lease(id) === undefined) continue;
        if (holder !== "") this.#fail(`two leaders of ${id}: ${holder}, ${node.name}`);
        holder = node.name;
      }
    }
  }

  #checkBuilds(): void {
    const at = new Map<string, BuildUnderWay>();
    for (const build of [...this.builds]) {
      const { host } = build.machine;
      if (!host.up || host.life !== build.life) {
        this.builds.delete(build);
        continue;
      }
      if (this.#world.now < host.pausedUntil + WOKEN_MS) continue;
      const other = at.get(build.imageDigest);
      if (other !== undefined) {
        const names = `${other.machine.host.name} and ${host.name}`;
        this.#fail(`${names} both build ${build.imageDigest}`);
      }
      at.set(build.imageDigest, build);
    }
  }

  /** Called before the bytes of an artifact go from a node. */
  removesBytes(name: string, artifactId: string): void {
    this.#world.count("removed copies");
    const isElsewhere = this.#nodes().some(
      (node) =>
        node.name !== name &&
        [...node.machine.files.values()].some(({ sidecars }) => sidecars.has(artifactId)),
    );
    if (isElsewhere) return;
    const templates = this.templates().filter(
      ({ status }) => status !== "FAILED" && status !== "DELETING",
    );
    const [user] = referencesByArtifact({ templates, jobs: [] }).get(artifactId) ?? [];
    if (user === undefined) return;
    this.#fail(`the last copy of ${artifactId} goes from ${name}, and ${user.id} refers to it`);
  }
}

/** ACTIVE ones, as they would be found after a crash. */
export function refsOnDisk(node: DaemonNode): RuntimeRef[] {
  return [...node.disk.rows.local]
    .filter(([key]) => key.startsWith("runtime-ref\0"))
    .map(([, row]) => row as RuntimeRef)
    .filter(({ status }) => status === "ACTIVE");
}
