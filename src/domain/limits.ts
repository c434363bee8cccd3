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
  /** A snapshot, rollback or deletion of a snapshot ends within this (spec §2.10). */
  snapshotOperationMs: 15 * 60_000,
  /** Job log lines kept per job; older ones are dropped. */
  jobLogLines: 2_000,
  /** One log line; the rest is cut. */
  jobLogLineBytes: 2_048,
  /** Ended jobs kept; older ones go with their logs. */
  endedJobsKept: 1_000,
  /** Progress facts are written at most this often per job. */
  progressIntervalMs: 250,
  /** A progress fact is spread at most this often. */
  progressSpreadMs: 250,
  /** Answers of mutations kept for their Idempotency-Key. */
  idempotencyTtlMs: 24 * 60 * 60_000,
  /** Request bodies. */
  requestBodyBytes: 1024 * 1024,
  /** A sign-in on the page ends after this at the latest. */
  pageSessionMs: 12 * 60 * 60_000,
  /** Sign-ins kept at once, and addresses whose wrong tokens are counted; the oldest go. */
  pageSessions: 1_000,
  /** Wrong tokens that one address may try on the page: guessing must be slow. */
  wrongTokensPerMinute: 10,
  /** Lists: default and greatest page (spec §4.10 for the snapshot list's own 20). */
  pageDefault: 100,
  pageMax: 1_000,
  /** Events kept for readers that resume their stream. */
  eventRing: 1_024,
  /** Event streams open at once: each holds a socket. */
  eventStreams: 64,
  /** SIGTERM: work under way is parked at a step and the catalog closed within this. */
  shutdownGraceMs: 20_000,
  /** A tombstone is kept at least so long, and until no member holds anything older. */
  tombstoneAgeMs: 24 * 60 * 60_000,
  tombstoneRoundMs: 10 * 60_000,
  /** A proposer writes again without asking first for so long; below the age of a tombstone. */
  promiseKeptMs: 10_000,
  /** Released runtime refs that a node keeps to be looked at. */
  releasedRefsKept: 1_000,
  /** An artifact nobody asked for again is kept this long (spec §1.3). */
  artifactTtlMs: 7 * 24 * 60 * 60_000,
  /** A leader that has not renewed its session for this long may be succeeded (design §4). */
  sessionTermMs: 8_000,
  /** An update of a record that no majority agreed to in this time is refused: no_quorum. */
  registerTimeoutMs: 5_000,
  /** One message to one voter: longer than a flush of a slow disk, shorter than an update. */
  registerRequestTimeoutMs: 1_500,
  /** A voter that has accepted a value and not heard of it for so long reads the register. */
  registerLearnMs: 500,
  /** One page of what a former voter held. */
  registerDumpTimeoutMs: 5_000,
  /** A voter that has been down for so long is replaced: a reboot takes less. */
  voterReplacedAfterMs: 5 * 60_000,
  /** A join token that admits nobody any more is known for so long, and so many of them. */
  joinTokenKeptMs: 24 * 60 * 60_000,
  deadJoinTokensKept: 50,
  /** Clocks of members that differ by more make expiry and shown times meaningless. */
  clockSkewMs: 5 * 60_000,
} as const;
