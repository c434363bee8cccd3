/**
 * What the HTTP side is given from outside, and the context its handlers share. Small interfaces
 * that the adapters in storage and daemon satisfy by their shape.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context, Hono, MiddlewareHandler } from "hono";
import type { Registry } from "prom-client";
import type { Clock, Commands, Log, Queries, Random } from "../../domain/index.ts";

/** An answer as it is kept for its Idempotency-Key. */
export interface StoredAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface IdempotencyPort {
  /** @throws AppError idempotency_mismatch, idempotency_in_progress */
  begin(
    key: string,
    bodyHash: string,
  ): Promise<{ state: "new" } | { state: "replay"; answer: unknown }>;
  finish(key: string, answer: StoredAnswer): Promise<void>;
  /** Forgets a key whose request changed nothing, so that it can be tried again. */
  abandon(key: string): unknown;
}

/** One mutation that was asked for, and how it ended. Never carries a body or a secret. */
export interface AuditRow {
  readonly request_id: string;
  /** `socket`, `token:<name>` or `anonymous`. */
  readonly actor: string;
  /** Method and route pattern: `DELETE /v1/templates/{id}`. */
  readonly action: string;
  readonly subject: string;
  /** `ok`, or the error code. */
  readonly result: string;
  /** `from`: remote address or `unix`; `status`: of the answer. */
  readonly details: { readonly from: string; readonly status: number };
}

export interface AuditPort {
  append(row: AuditRow): Promise<unknown>;
}

export interface HealthCheck {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Answers of the last checks; probes never touch the disk (ops-notes §4). */
export interface HealthPort {
  live(): { readonly ok: boolean; readonly checks: readonly HealthCheck[] };
  ready(): { readonly ok: boolean; readonly checks: readonly HealthCheck[] };
}

export interface AuthToken {
  readonly name: string;
  /** Lower-case hex SHA-256 of the token. */
  readonly sha256: string;
}

export interface AuthConfig {
  /** Empty: TCP is open, which `listen` is only to be asked for on loopback. */
  readonly tokens: readonly AuthToken[];
}

export interface AppDeps {
  readonly queries: Queries;
  readonly commands: Commands;
  readonly idempotency: IdempotencyPort;
  readonly audit: AuditPort;
  readonly health: HealthPort;
  /** Where the HTTP metrics are registered, and what `/metrics` prints. */
  readonly metrics: Registry;
  /** The page, mounted at `/ui`. */
  readonly ui?: Hono;
  readonly auth: AuthConfig;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
  readonly version: string;
  /** Host names besides IP literals and `localhost` that a Host header may carry. */
  readonly allowedHosts: readonly string[];
}

/** What handlers get: the dependencies, and the streams that end with the server. */
export interface RouteDeps extends AppDeps {
  readonly streams: EventStreams;
}

/** `door` is set by the listener; `incoming` and `outgoing` by @hono/node-server. */
export interface Bindings {
  readonly door?: "tcp" | "unix";
  readonly incoming?: IncomingMessage;
  readonly outgoing?: ServerResponse;
}

export interface AppEnv {
  Bindings: Bindings;
  Variables: {
    requestId: string;
    /** `socket`, `token:<name>` or `anonymous`. */
    actor: string;
    /** True over the unix socket and with a valid token. */
    trusted: boolean;
    /** The address that the request comes from, or `unix`. */
    from: string;
    /** The error that a handler ended with, for the audit row. */
    failure: unknown;
  };
}

export type AppContext = Context<AppEnv>;
export type AppMiddleware = MiddlewareHandler<AppEnv>;

/** `unix` when the request came through the unix socket. */
export const doorOf = (c: AppContext): "tcp" | "unix" => c.env?.door ?? "tcp";

/** The address that the request comes from; `unix` for the unix socket. */
export const fromOf = (c: AppContext): string =>
  doorOf(c) === "unix" ? "unix" : (c.env?.incoming?.socket.remoteAddress ?? "");

/* ---- event streams ------------------------------------------------------------------------ */

export interface EventFrame {
  readonly event: string;
  readonly data: unknown;
  readonly id?: string;
}

export interface EventSink {
  send(frame: EventFrame): void;
  /** Ends the stream after what was sent. */
  end(): void;
}

export interface EventStreams {
  /** Aborts when the server stops: whoever holds a request ends it. */
  readonly closing: AbortSignal;
  size(): number;
  /**
   * Answers with a stream; `start` sends what is there and subscribes, and returns how to leave.
   * @throws AppError too_many_requests above LIMITS.eventStreams, daemon_draining
   */
  open(c: AppContext, start: (sink: EventSink) => () => void): Response;
  closeAll(): void;
}
