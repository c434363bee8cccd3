/**
 * Garbage collection of artifacts as pure rules (design §11): who refers to an artifact, and what
 * is to be done with it now. The artifact's record orders everything: whoever uses an artifact
 * renews it there, whoever collects it changes the same record, and a node names itself there
 * before it removes its bytes. So a use and a deletion cannot both believe to have won.
 */
import { artifactMachine } from "./artifact.ts";
import { isActiveJob } from "./job.ts";
import type { ArtifactRecord, JobRecord, TemplateRecord } from "./schema.ts";

export interface ArtifactReference {
  readonly kind: "template" | "snapshot" | "job";
  readonly id: string;
  readonly status: string;
  /** How it refers to the artifact. */
  readonly why: string;
}

/** A reference that is about to go and does not count. */
export interface ExceptReference {
  readonly jobId?: string;
  readonly templateId?: string;
}

export interface ReferenceRecords {
  readonly templates: Iterable<TemplateRecord>;
  readonly jobs: Iterable<JobRecord>;
}

const ARTIFACT_ANNOTATION = "cube.master.rootfs.artifact.id";

/** Artifact ids that a template's record names: its own, and those in its stored request. */
export function artifactsOfTemplate(template: TemplateRecord): ReadonlySet<string> {
  if (template.artifact_released === true) return new Set();
  const { request } = template;
  const containers = request.containers ?? [];
  return new Set(
    [
      template.artifact_id,
      ...(template.frozen?.files ?? []).map((file) => file.artifact_id),
      request.annotations?.[ARTIFACT_ANNOTATION],
      ...containers.map((container) => container?.image?.image),
      ...containers.map((container) => container?.image?.annotations?.[ARTIFACT_ANNOTATION]),
    ].filter((id) => id !== undefined && id !== ""),
  ) as Set<string>;
}

/** All references, by artifact id: templates and snapshots of any status, and active jobs. */
export function referencesByArtifact(
  { templates, jobs }: ReferenceRecords,
  except: ExceptReference = {},
): Map<string, ArtifactReference[]> {
  const found = new Map<string, ArtifactReference[]>();
  const add = (artifactId: string, reference: ArtifactReference) => {
    const known = found.get(artifactId);
    if (known === undefined) found.set(artifactId, [reference]);
    else known.push(reference);
  };
  for (const template of templates) {
    const { template_id: id, kind, status, artifact_id } = template;
    if (id === except.templateId) continue;
    for (const artifactId of artifactsOfTemplate(template)) {
      const isFile =
        template.frozen?.files.some((file) => file.artifact_id === artifactId) === true;
      const why =
        artifactId === artifact_id
          ? "made from it"
          : isFile
            ? "frozen in it"
            : "named in its stored request";
      add(artifactId, { kind, id, status, why });
    }
  }
  for (const job of jobs) {
    const { job_id: id, status, artifact_id = "", artifact_ids = [] } = job;
    if (id === except.jobId || !isActiveJob(job) || job.artifact_released === true) continue;
    for (const artifactId of new Set([artifact_id, ...artifact_ids])) {
      if (artifactId !== "") add(artifactId, { kind: "job", id, status, why: `in ${job.phase}` });
    }
  }
  return found;
}

/**
 * `grace`: nobody refers to it, it goes after a while. `renew`: it is used (again). `orphan`: its
 * build has no builder and nobody waits for it. `release`: its files go. `lost`: it is used and no
 * copy is left. `forget`: no file is left, the record goes.
 */
export type GcStep = "none" | "grace" | "renew" | "orphan" | "release" | "lost" | "forget";

export interface ArtifactSight {
  readonly references: readonly ArtifactReference[];
  /** True while the leadership under which it is BUILDING lasts. */
  readonly isBuilding: boolean;
  /** Members that hold all of it. */
  readonly holders: readonly string[];
  readonly nowSeconds: number;
  /**
   * Of the grace, as this node has counted it since it saw it begin. Deadlines in the record are
   * times of another node's clock: they are shown, and decide nothing that takes away.
   */
  readonly graceLeftMs: number;
  /** Nothing is waited for: its build has failed, or the disk is full. */
  readonly isUrgent?: boolean;
}

/** Members that hold it and have not begun to remove it. */
export const remainingHolders = (artifact: ArtifactRecord, holders: readonly string[]): string[] =>
  holders.filter((node) => artifact.cleaned_by?.includes(node) !== true);

/** When it goes at the earliest, or is looked at again when it is used: unix seconds, our clock. */
export const keptUntil = (artifact: ArtifactRecord, sight: ArtifactSight): number =>
  artifact.unreferenced_at === undefined || artifact.status === "CLEANUP_PENDING"
    ? artifact.gc_deadline
    : sight.nowSeconds + Math.ceil(sight.graceLeftMs / 1_000);

/** What is to be done with an artifact now. */
export function gcStep(artifact: ArtifactRecord, sight: ArtifactSight): GcStep {
  const { references, nowSeconds } = sight;
  const isUsed = references.length > 0;
  switch (artifact.status) {
    case "PENDING":
    case "BUILDING":
      return sight.isBuilding || references.some(({ kind }) => kind === "job") ? "none" : "orphan";
    case "CLEANUP_PENDING":
      if (!isUsed) return sight.holders.length === 0 ? "forget" : "none";
      return remainingHolders(artifact, sight.holders).length > 0 ? "renew" : "lost";
    case "READY":
    case "FAILED":
    case "ORPHANED":
      if (isUsed) {
        const isLate = artifact.status === "READY" && artifact.gc_deadline <= nowSeconds;
        return artifact.unreferenced_at !== undefined || isLate ? "renew" : "none";
      }
      if (sight.isUrgent === true) return "release";
      if (artifact.unreferenced_at === undefined) return "grace";
      return sight.graceLeftMs <= 0 ? "release" : "none";
  }
}

export interface GcTimes {
  readonly nowMs: number;
  /** How long one that is used is kept before it is looked at again. */
  readonly ttlMs: number;
  /** How long one that nobody refers to is kept. */
  readonly graceMs: number;
}

/** The record after a step; `null` when it goes, `undefined` when it stays as it is. */
export function applyGcStep(
  artifact: ArtifactRecord,
  step: GcStep,
  { nowMs, ttlMs, graceMs }: GcTimes,
): ArtifactRecord | null | undefined {
  const at = new Date(nowMs).toISOString();
  const after = (ms: number) => Math.floor((nowMs + ms) / 1_000);
  const next = (event: string) =>
    artifactMachine.next(artifact.artifact_id, artifact.status, event);
  const { unreferenced_at: _since, ...used } = artifact;
  switch (step) {
    case "none":
      return undefined;
    case "forget":
      return null;
    case "grace":
      return { ...artifact, unreferenced_at: at, gc_deadline: after(graceMs), updated_at: at };
    case "renew": {
      const isServed = artifact.status === "READY" || artifact.status === "CLEANUP_PENDING";
      const status = isServed ? next("renew") : artifact.status;
      return { ...used, status, gc_deadline: after(ttlMs), updated_at: at };
    }
    case "orphan": {
      const { builder: _gone, ...orphan } = artifact;
      const last_error = "whoever built it is gone and nobody waits for it";
      return { ...orphan, status: next("orphan"), last_error, updated_at: at };
    }
    case "release":
      return { ...artifact, status: next("release"), updated_at: at };
    case "lost": {
      const last_error = "its last copy was removed";
      return { ...used, status: next("fail"), last_error, updated_at: at };
    }
  }
}
