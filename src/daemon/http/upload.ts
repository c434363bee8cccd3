/**
 * Bodies that are streams: read as they come, by one reader, however large. They are bounded by the
 * room on the disk and by silence, not by a length or a time.
 */
import { AppError } from "../../domain/index.ts";
import type { AppContext } from "./ports.ts";

export const IMPORT_PATH = "/v1/import";
export const BUNDLE_TYPE = "application/x-tar";

/** True for what `uploadOf` will read; anything before it leaves the body alone. */
export const isUpload = (method: string | undefined, path: string): boolean =>
  method === "POST" && path === IMPORT_PATH;

/** So much of what nobody wants is read, so that the sender is ready to read why. */
const DRAIN_BYTES = 64 * 1024 * 1024;

/** A stream that is cancelled takes the connection with it, and the answer with that. */
async function* readOut(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let isEnded = false;
  const next = async (): Promise<Uint8Array | undefined> => {
    const { done, value } = await reader.read();
    isEnded = done;
    return value;
  };
  try {
    for (let bytes = await next(); bytes !== undefined; bytes = await next()) yield bytes;
  } finally {
    for (let drained = 0; !isEnded && drained < DRAIN_BYTES;) {
      drained += (await next().catch(() => void (isEnded = true)))?.length ?? 0;
    }
  }
}

/** @throws AppError unsupported_media_type */
export function uploadOf(c: AppContext): AsyncIterable<Uint8Array> {
  const type = (c.req.header("content-type") ?? "").split(";")[0]?.trim().toLowerCase();
  if (type !== BUNDLE_TYPE) {
    throw new AppError("unsupported_media_type", `a bundle must be sent as ${BUNDLE_TYPE}`, {
      meta: { expected: BUNDLE_TYPE },
    });
  }
  return readOut(c.req.raw.body ?? new Blob([]).stream());
}
