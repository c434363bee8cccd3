/** What a failed call means for those who asked the driver. */
import { AppError, isAppError, type ErrorCode } from "../../../domain/index.ts";

const MEANINGS: Readonly<Record<string, ErrorCode>> = {
  not_running: "sandbox_not_found",
  no_space: "disk_space_low",
  unavailable: "driver_unavailable",
  unsupported: "driver_unsupported",
};

/**
 * The error to throw for one of a call: `code` unless the executable has said which. Anything else
 * that was thrown, as an abort's reason, is handed on as it is.
 */
export function meaningOf(
  thrown: unknown,
  code: ErrorCode,
  what: string,
  meanings: Readonly<Record<string, ErrorCode>> = {},
): unknown {
  if (!isAppError(thrown, "driver_failed")) return thrown;
  const said = thrown.meta["driver_error"];
  const meaning = typeof said === "string" ? (meanings[said] ?? MEANINGS[said]) : undefined;
  return new AppError(meaning ?? code, what, { cause: thrown, meta: thrown.meta });
}
