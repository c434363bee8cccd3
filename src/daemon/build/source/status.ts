import { AppError } from "../../../domain/index.ts";
import type { Clock } from "../../../domain/index.ts";
import { unavailable } from "./http.ts";
import type { HttpAnswer } from "./http.ts";
import { documentTooLarge } from "./image.ts";
import { parseRetryAfter, TransientFailure } from "./retry.ts";

/**
 * What an answer without the content asked for means. Nothing of its body is quoted: it is the
 * server's text, and may repeat what was sent to it.
 */
export function statusFailure(answer: HttpAnswer, clock: Clock): AppError | TransientFailure {
  const { status, url } = answer;
  const meta = { host: url.host, status };
  if (status === 401 || status === 403) {
    const message = `registry ${url.host} refused the credentials`;
    return new AppError("registry_unauthorized", message, { meta });
  }
  if (status === 404) {
    const message = `registry ${url.host} has no such image`;
    return new AppError("image_not_found", message, { meta });
  }
  const failure = unavailable(url.host, `answered ${status}`, { status });
  const isTransient = status === 429 || status === 408 || status >= 500;
  if (!isTransient) return failure;
  return new TransientFailure(failure, parseRetryAfter(answer.header("retry-after"), clock.now()));
}

/** @throws AppError image_refused reason `document_too_large` as soon as the limit is passed */
export async function readLimited(answer: HttpAnswer, limitBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of answer.body) {
    size += bytes.length;
    if (size > limitBytes) throw documentTooLarge(`an answer of ${answer.url.host}`);
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}
