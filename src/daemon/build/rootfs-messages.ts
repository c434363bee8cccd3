/** What the daemon's main thread and a build thread say to each other. */
import type { ErrorCode, ErrorMeta } from "../../domain/index.ts";
import { AppError, ERRORS, isAppError } from "../../domain/core.ts";
import type { RunProgress, RunRequest, RunResult } from "./rootfs-run.ts";

/** An error in a form that crosses threads: class and cause would be lost otherwise. */
export interface ErrorParts {
  readonly code: ErrorCode;
  readonly message: string;
  readonly meta: ErrorMeta;
  /** The cause's own text and stack. */
  readonly cause?: string;
}

export type ToThread =
  | { readonly kind: "bytes"; readonly layer: number; readonly bytes: Uint8Array }
  | { readonly kind: "end"; readonly layer: number }
  /** The source failed; the thread cleans up and ends. */
  | { readonly kind: "fail"; readonly error: ErrorParts };

export type FromThread =
  | { readonly kind: "open"; readonly layer: number }
  | { readonly kind: "taken"; readonly bytes: number }
  | { readonly kind: "progress"; readonly progress: RunProgress }
  | { readonly kind: "done"; readonly result: RunResult }
  | { readonly kind: "failed"; readonly error: ErrorParts };

export type ThreadInput = RunRequest;

export function errorParts(error: unknown): ErrorParts {
  const inner = error instanceof AppError ? error.cause : error;
  const cause = inner instanceof Error ? (inner.stack ?? inner.message) : undefined;
  if (isAppError(error)) {
    return { code: error.code, message: error.message, meta: plainMeta(error.meta), cause };
  }
  return { code: "internal", message: "the root filesystem build failed", meta: {}, cause };
}

export function errorOf(parts: ErrorParts): AppError {
  const code = parts.code in ERRORS ? parts.code : "internal";
  const cause = parts.cause === undefined ? undefined : new Error(parts.cause);
  return new AppError(code, parts.message, { meta: parts.meta, cause });
}

/** Only what can be cloned between threads. */
const plainMeta = (meta: ErrorMeta): ErrorMeta => JSON.parse(JSON.stringify(meta)) as ErrorMeta;
