/**
 * The one vocabulary of states: word, shape and tone, so that colour never says anything alone.
 * The word is the state's own name in the API and the CLI, in sentence case.
 */
export type Tone = "ok" | "busy" | "warn" | "bad" | "idle";
export type Shape =
  "ready" | "building" | "waiting" | "stale" | "failed" | "unknown" | "deleting" | "missing";

export interface Status {
  readonly word: string;
  readonly shape: Shape;
  readonly tone: Tone;
}

const TONES: Readonly<Record<Shape, Tone>> = {
  ready: "ok",
  building: "busy",
  waiting: "idle",
  stale: "warn",
  failed: "bad",
  unknown: "idle",
  deleting: "warn",
  missing: "idle",
};

const SHAPES: Readonly<Record<string, Shape>> = {
  READY: "ready",
  OK: "ready",
  ALIVE: "ready",
  IN_SYNC: "ready",
  WARMING: "building",
  SUSPECT: "stale",
  BEHIND: "stale",
  DEAD: "failed",
  NO_QUORUM: "failed",
  HEALTHY: "ready",
  DISTRIBUTED: "building",
  PENDING: "waiting",
  CREATING: "building",
  RUNNING: "building",
  STARTING: "building",
  BUILDING: "building",
  DISTRIBUTING: "building",
  SNAPSHOTTING: "building",
  PARTIALLY_READY: "stale",
  STALE: "stale",
  WARN: "stale",
  DRAINED: "stale",
  CLEANUP_PENDING: "deleting",
  FAILED: "failed",
  UNHEALTHY: "failed",
  REJECT: "failed",
  DELETE_ONLY: "failed",
  DELETING: "deleting",
  CLEANING: "deleting",
  MISSING: "missing",
  ORPHANED: "missing",
  STOPPED: "missing",
};

/** `PARTIALLY_READY` to `Partially ready`. */
export function sentenceCase(constant: string): string {
  const words = constant.toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Word, shape and tone of a state of a template, replica, job, node or storage. */
export function status(state: string): Status {
  const shape = SHAPES[state.toUpperCase()] ?? "unknown";
  const word = state.toUpperCase() === "OK" ? "OK" : sentenceCase(state || "unknown");
  return { word, shape, tone: TONES[shape] };
}

/** A running sandbox is a good end, a running job is not an end. */
export function sandboxStatus(state: string): Status {
  return state === "RUNNING" ? { word: "Running", shape: "ready", tone: "ok" } : status(state);
}

/** One state per node, worst first. */
export function nodeStatus(node: { healthy: boolean; drained: boolean }): Status {
  if (!node.healthy) return status("UNHEALTHY");
  return status(node.drained ? "DRAINED" : "HEALTHY");
}

/** In the order of help and legend. */
export const LEGEND: readonly { shape: Shape; tone: Tone; words: string }[] = [
  { shape: "ready", tone: "ok", words: "ready, healthy, OK: nothing to do" },
  { shape: "building", tone: "busy", words: "running, building, warming: work is under way" },
  { shape: "waiting", tone: "idle", words: "pending: waits for its turn" },
  { shape: "stale", tone: "warn", words: "partially ready, stale, drained: usable, look at it" },
  { shape: "failed", tone: "bad", words: "failed, unhealthy, dead, no quorum: needs you" },
  { shape: "deleting", tone: "warn", words: "deleting, cleaning: going away" },
  { shape: "missing", tone: "idle", words: "missing, stopped: not there" },
  { shape: "unknown", tone: "idle", words: "unknown: nobody can tell" },
];
