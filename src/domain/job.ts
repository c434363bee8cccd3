import { defineMachine } from "./machine.ts";

/** The seed's phases that a template job of one image goes through, in order (design §6). */
export const IMAGE_JOB_PHASES = [
  "PULLING",
  "UNPACKING",
  "BUILDING_EXT4",
  "GENERATING_JSON",
  "DISTRIBUTING",
  "CREATING_TEMPLATE",
  "SNAPSHOTTING",
  "REGISTERING",
  "READY",
] as const;

export const JOB_PHASES = [
  ...IMAGE_JOB_PHASES,
  "ROLLBACK_PREPARING",
  "ROLLBACK_DRIVING",
  "ROLLBACK_RECOVERING",
  "DELETING",
] as const;
export type JobPhase = (typeof JOB_PHASES)[number];

export const JOB_OPERATIONS = [
  "CREATE",
  "REDO",
  "COMMIT",
  "LEGACY",
  "IMPORT",
  "SNAPSHOT_CREATE",
  "SNAPSHOT_ROLLBACK",
  "SNAPSHOT_DELETE",
  "SNAPSHOT_DELIVER",
] as const;

export const JOB_STATUSES = ["PENDING", "RUNNING", "READY", "FAILED"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** READY and FAILED are terminal: trying again is a new job (spec §1.5). */
export const jobMachine = defineMachine("job", {
  PENDING: { start: "RUNNING", fail: "FAILED", cancel: "FAILED" },
  RUNNING: {
    resume: "RUNNING",
    advance: "RUNNING",
    finish: "READY",
    fail: "FAILED",
    cancel: "FAILED",
  },
  READY: {},
  FAILED: {},
});

/** A job is active iff it is PENDING or RUNNING, in any case (spec §1.5). */
export const isActiveJob = (job: { readonly status: string }): boolean =>
  ["PENDING", "RUNNING"].includes(job.status.toUpperCase());

/** Progress in percent at which each phase starts (spec §3.1 and §4). */
export const PHASE_START_PERCENT: Readonly<Record<JobPhase, number>> = {
  PULLING: 5,
  UNPACKING: 20,
  BUILDING_EXT4: 55,
  GENERATING_JSON: 65,
  DISTRIBUTING: 70,
  CREATING_TEMPLATE: 80,
  SNAPSHOTTING: 85,
  REGISTERING: 95,
  READY: 100,
  ROLLBACK_PREPARING: 5,
  ROLLBACK_DRIVING: 25,
  ROLLBACK_RECOVERING: 75,
  DELETING: 20,
};

/** Ordinal of an image job's phase for "[n/9] PHASE", 1-based; 0 for phases of other operations. */
export const phaseOrdinal = (phase: string): number =>
  (IMAGE_JOB_PHASES as readonly string[]).indexOf(phase) + 1;
