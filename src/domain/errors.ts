/**
 * Every failure that leaves a function of ours on purpose. One table gives each code its HTTP
 * status, title, CLI exit code, log level and whether trying again can help; a code without its
 * row does not compile. The seed's errors map one to one (spec §2.15).
 */
interface ErrorRow {
  readonly status: number;
  readonly title: string;
  /**
   * CLI exit code: 1 failed, 2 usage, 3 not found, 4 conflict, 5 no daemon, 6 stale, 7 timed out,
   * 8 not allowed, 75 later, 78 configuration.
   */
  readonly exit: number;
  readonly level: "debug" | "info" | "warn" | "error";
  readonly retryable: boolean;
}

const row = (
  status: number,
  exit: number,
  title: string,
  level: ErrorRow["level"] = "info",
  retryable = false,
): ErrorRow => ({ status, exit, title, level, retryable });

export const ERRORS = {
  invalid_request: row(400, 2, "the request is not valid"),
  invalid_image_reference: row(400, 2, "the image reference is not valid"),
  unauthorized: row(401, 8, "a valid token is needed"),
  forbidden: row(403, 8, "not allowed"),
  host_not_allowed: row(421, 8, "the Host header names another host"),
  not_found: row(404, 3, "there is no such resource"),
  method_not_allowed: row(405, 2, "the method is not allowed here"),
  template_not_found: row(404, 3, "template not found"),
  template_id_required: row(400, 2, "template id is required"),
  template_has_no_ready_replica: row(409, 4, "template has no ready replica"),
  template_stale_needs_redo: row(409, 6, "template is stale and needs redo"),
  template_already_exists: row(409, 4, "template already exists"),
  no_failed_template_replicas: row(409, 4, "no failed template replicas matched redo request"),
  redo_not_allowed: row(409, 4, "redo is not allowed"),
  template_attempt_in_progress: row(409, 4, "template attempt is already in progress"),
  tag_not_found: row(404, 3, "tag not found"),
  tag_moved: row(409, 4, "the tag does not point there any more"),
  tag_has_no_history: row(409, 4, "the tag has pointed nowhere else"),
  name_taken: row(409, 4, "the name stands for another template"),
  template_protected: row(409, 4, "it is protected from deletion"),
  template_in_use: row(409, 4, "template is still in use"),
  no_template_nodes: row(409, 4, "no healthy nodes available for template creation"),
  node_not_found: row(404, 3, "node not found"),
  job_not_found: row(404, 3, "job not found"),
  job_not_active: row(409, 4, "the job has already ended"),
  job_cancelled: row(409, 1, "the job was cancelled"),
  job_deadline_exceeded: row(504, 7, "the job ran past its deadline", "warn"),
  job_interrupted: row(500, 1, "the job was interrupted", "warn", true),
  artifact_not_found: row(404, 3, "artifact not found"),
  artifact_not_ready: row(409, 4, "artifact is not ready"),
  artifact_token_invalid: row(401, 8, "the artifact token is not valid"),
  artifact_source_missing: row(410, 3, "the artifact's file is missing", "warn"),
  artifact_corrupt: row(500, 1, "the artifact does not match its digest", "error"),
  bundle_invalid: row(422, 1, "the bundle cannot be taken in", "warn"),
  bundle_untrusted: row(403, 8, "the bundle's signer is not trusted", "warn"),
  bundle_conflict: row(409, 4, "what is here differs from what is in the bundle"),
  sandbox_not_found: row(404, 3, "sandbox not found"),
  sandbox_already_exists: row(409, 4, "sandbox already exists"),
  snapshot_not_found: row(404, 3, "snapshot not found"),
  snapshot_deleting: row(409, 4, "the snapshot is being deleted"),
  snapshot_in_use: row(409, 4, "snapshot is still in use"),
  snapshot_incompatible: row(409, 6, "the snapshot does not fit the node"),
  snapshot_not_delivered: row(502, 75, "a node did not get the snapshot", "warn", true),
  snapshot_foreign: row(409, 4, "the snapshot is of another sandbox"),
  snapshot_operation_not_found: row(404, 3, "snapshot operation not found"),
  snapshot_operation_in_progress: row(409, 4, "another snapshot operation is still running"),
  request_id_conflict: row(409, 4, "the request id was used with another request"),
  runtime_ref_not_found: row(404, 3, "the sandbox has no active runtime ref"),
  image_not_found: row(404, 3, "the image was not found at its source"),
  image_refused: row(422, 1, "the image was refused"),
  image_digest_mismatch: row(502, 1, "downloaded content does not match its digest", "warn"),
  image_too_large: row(422, 1, "the image is larger than the limit"),
  image_platform_missing: row(404, 3, "the image has no variant for this platform"),
  registry_unauthorized: row(401, 8, "the registry refused the credentials"),
  registry_unavailable: row(502, 75, "the registry did not answer as it should", "warn", true),
  ca_invalid: row(422, 1, "the CubeEgress root CA is missing or not valid"),
  envd_missing: row(422, 1, "the in-guest agent to inject is missing"),
  disk_space_low: row(507, 75, "not enough free disk space", "warn", true),
  storage_not_writable: row(409, 75, "the node's storage takes no new data", "warn", true),
  catalog_locked: row(503, 75, "the catalog is open in another process", "error"),
  catalog_unavailable: row(503, 75, "the catalog is not open", "warn", true),
  catalog_degraded: row(507, 75, "the catalog cannot be written", "error", true),
  catalog_corrupt: row(500, 1, "a stored record does not read back", "error"),
  catalog_too_new: row(500, 78, "the catalog was written by a newer version", "error"),
  idempotency_mismatch: row(422, 4, "the idempotency key was used with another request"),
  idempotency_in_progress: row(409, 4, "a request with this idempotency key is still running"),
  wrong_status: row(409, 4, "the transition is not allowed from this status"),
  driver_unavailable: row(503, 75, "the runtime driver cannot run here", "warn"),
  driver_failed: row(502, 1, "the runtime driver's executable failed", "warn"),
  driver_unsupported: row(501, 1, "the runtime driver does not offer this"),
  guest_assets_missing: row(503, 75, "the guest kernel and initramfs are not installed", "warn"),
  guest_boot_failed: row(502, 1, "the guest did not start", "warn"),
  guest_probe_failed: row(504, 7, "the guest did not answer its readiness probe", "warn"),
  snapshot_failed: row(500, 1, "the guest snapshot failed", "warn"),
  restore_failed: row(500, 1, "the sandbox could not be restored", "warn"),
  config_invalid: row(400, 78, "the configuration is not valid"),
  daemon_unreachable: row(503, 5, "the daemon cannot be reached"),
  daemon_draining: row(503, 75, "the daemon is stopping", "info", true),
  too_many_requests: row(429, 75, "too many requests", "info", true),
  no_quorum: row(503, 75, "no majority of the voters can be reached", "warn", true),
  not_leader: row(409, 75, "another node leads this template", "info", true),
  leadership_lost: row(409, 75, "the leadership has ended", "info", true),
  fenced: row(409, 4, "a later leader has taken over"),
  not_clustered: row(409, 4, "this node is not in a cluster"),
  already_clustered: row(409, 4, "this node is in a cluster already"),
  node_has_templates: row(409, 4, "this node has templates of its own"),
  join_token_invalid: row(401, 8, "the join token is not valid"),
  join_token_expired: row(401, 8, "the join token has expired"),
  join_token_used: row(401, 8, "the join token has no uses left"),
  join_token_revoked: row(401, 8, "the join token was revoked"),
  join_token_not_found: row(404, 3, "join token not found"),
  cluster_mismatch: row(409, 4, "the other node belongs to another cluster"),
  node_name_taken: row(409, 4, "the node's name is taken"),
  clock_skew: row(409, 4, "the clocks are too far apart"),
  not_a_member: row(403, 8, "the node is not a member of the cluster", "warn"),
  node_removed: row(403, 8, "the node was removed from the cluster", "warn"),
  identity_copied: row(409, 78, "the data directory belongs to another node", "error"),
  peer_unreachable: row(503, 75, "the peer cannot be reached", "info", true),
  wire_invalid: row(502, 75, "a message of a peer is not valid", "warn"),
  chunk_mismatch: row(502, 75, "a chunk does not match its hash", "warn", true),
  fetch_failed: row(502, 75, "the artifact could not be fetched from any holder", "warn", true),
  payload_too_large: row(413, 2, "the request body is too large"),
  unsupported_media_type: row(415, 2, "the request body is of another media type"),
  range_not_satisfiable: row(416, 2, "the range lies outside the content"),
  internal: row(500, 1, "internal error", "error"),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

/** One field of a request that is wrong: `pointer` is an RFC 6901 JSON pointer into the body. */
export interface FieldProblem {
  readonly pointer: string;
  readonly detail: string;
}

export interface ErrorMeta {
  readonly errors?: readonly FieldProblem[];
  readonly [key: string]: unknown;
}

/**
 * An expected failure with a stable code. The message says what failed, with its subject, in lower
 * case and without the inner error's text, which is in `cause`.
 */
export class AppError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "AppError";
  readonly code: C;
  readonly meta: ErrorMeta;

  constructor(code: C, message?: string, options: { meta?: ErrorMeta; cause?: unknown } = {}) {
    super(
      message ?? ERRORS[code].title,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.code = code;
    this.meta = options.meta ?? {};
  }

  get row(): ErrorRow {
    return ERRORS[this.code];
  }

  /** RFC 9457 problem details. `instance` is the request id. */
  toProblem(instance?: string): Record<string, unknown> {
    return {
      // First, because a detail's name must not hide a member that RFC 9457 defines.
      ...this.meta,
      type: `urn:templatecenter:problem:${this.code}`,
      title: this.row.title,
      status: this.row.status,
      detail: this.message,
      code: this.code,
      retryable: this.row.retryable,
      ...(instance === undefined ? {} : { instance }),
    };
  }
}

export const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code);

export const isAppError = (error: unknown, code?: ErrorCode): error is AppError =>
  error instanceof AppError && (code === undefined || error.code === code);

/** The texts of an error and its causes, outermost first, joined by `: `. */
export function errorText(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error; at !== undefined && parts.length < 6;) {
    const text =
      at instanceof Error ? at.message : typeof at === "string" ? at : JSON.stringify(at);
    if (text !== "" && !parts.some((part) => part.includes(text))) parts.push(text);
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(": ") || "unknown error";
}
