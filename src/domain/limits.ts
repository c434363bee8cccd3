/** Every limit with its unit in the name and its reason. */
export const LIMITS = {
  /** A job that is still active after this long ends FAILED `job_deadline_exceeded`. */
  jobDeadlineMs: 60 * 60_000,
  /** Builds are bound by two cores and one disk: more at once make each of them slower. */
  concurrentBuilds: 2,
  /** Guests that boot at once: each takes a core under TCG. */
  concurrentBoots: 2,
  /** Sandboxes kept waiting for a snapshot, per READY template. */
  sandboxPoolSize: 0,
  /** Job log lines kept per job; older ones are dropped. */
  jobLogLines: 2_000,
  /** One log line; the rest is cut. */
  jobLogLineBytes: 2_048,
  /** Ended jobs kept; older ones go with their logs. */
  endedJobsKept: 1_000,
  /** Progress facts are written at most this often per job. */
  progressIntervalMs: 250,
  /** Answers of mutations kept for their Idempotency-Key. */
  idempotencyTtlMs: 24 * 60 * 60_000,
  /** Request bodies. */
  requestBodyBytes: 1024 * 1024,
  /** Lists: default and greatest page (spec §4.10 for the snapshot list's own 20). */
  pageDefault: 100,
  pageMax: 1_000,
  /** Events kept for readers that resume their stream. */
  eventRing: 1_024,
  /** Event streams open at once: each holds a socket. */
  eventStreams: 64,
  /** SIGTERM: work under way is parked at a step and the catalog closed within this. */
  shutdownGraceMs: 20_000,
  /** An artifact nobody asked for again is kept this long (spec §1.3). */
  artifactTtlMs: 7 * 24 * 60 * 60_000,
} as const;
