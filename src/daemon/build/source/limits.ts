/** Limits of image sources, each with its unit in the name and its reason. */
export const SOURCE_LIMITS = {
  /** Manifests, indexes and configs: what registries themselves accept; all are held in memory. */
  documentBytes: 4 * 1024 * 1024,
  /** An answer of a token endpoint. */
  tokenBytes: 256 * 1024,
  /** A credentials file. */
  authFileBytes: 1024 * 1024,
  /** Indexes inside indexes; one level is usual, two exist. */
  indexDepth: 4,
  /** Docker makes no image above 127 layers; others do, but not by much. */
  layers: 512,
  /** Layers downloaded ahead of the one being read (spec §3.6), and the most one may ask for. */
  prefetchDefault: 6,
  prefetchMax: 32,
  /** Members of an image archive: a few per layer. */
  archiveMembers: 100_000,
  /** A long name or a PAX header inside an archive. */
  archiveHeaderBytes: 1024 * 1024,
  /** A gzip-compressed archive expanded: a bomb must end before the disk does. */
  archiveInflatedBytes: 64 * 1024 ** 3,
  /** Reads of local blobs. */
  readBytes: 256 * 1024,
  /** Links from member to member inside an archive. */
  archiveLinks: 8,
  redirects: 5,
  connectTimeoutMs: 10_000,
  /** From the request to the head of the answer. */
  headersTimeoutMs: 30_000,
  /** Between two pieces of a body. */
  idleTimeoutMs: 30_000,
  /** Tries of one request, or of one blob without progress worth naming. */
  attempts: 6,
  /** A blob that advanced this far since its last cut gets its tries back. */
  progressBytes: 1024 * 1024,
  backoffBaseMs: 250,
  backoffCapMs: 15_000,
  /** A server may ask for more patience than our own back-off, but not for more than this. */
  retryAfterCapMs: 60_000,
  /** Used when a token answer names no lifetime (docker token specification). */
  tokenLifetimeMs: 60_000,
  /** Tokens are renewed this long before they expire. */
  tokenMarginMs: 5_000,
} as const;
