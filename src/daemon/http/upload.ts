/**
 * Bodies that are streams: read as they come, by one reader, however large. They are bounded by the
 * room on the disk and by silence, not by a length or a time.
 */
import { AppError } from "../../domain/index.ts";
import { BUNDLE_TYPE, readOut } from "./bundle-files.ts";
import type { AppContext } from "./ports.ts";

export const IMPORT_PATH = "/v1/import";
/** The form of the page, whose last field is the file. */
const FORM_PATH = "/ui/import";

/** True for what is read as it comes; anything before that leaves the body alone. */
export const isUpload = (method: string | undefined, path: string): boolean =>
  method === "POST" && (path === IMPORT_PATH || path === FORM_PATH);

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
