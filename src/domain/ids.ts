import { AppError } from "./errors.ts";
import type { Random } from "./ports.ts";

const hex24 = (random: Random): string => random.uuid().replaceAll("-", "").slice(0, 24);

/** `tpl-` and 24 hex characters of a random UUID (spec §2.2, GenerateTemplateID). */
export const newTemplateId = (random: Random): string => `tpl-${hex24(random)}`;
/** `snap-` and 24 hex characters. */
export const newSnapshotId = (random: Random): string => `snap-${hex24(random)}`;
/** `sb-` and 24 hex characters. */
export const newSandboxId = (random: Random): string => `sb-${hex24(random)}`;
/** A whole UUID (spec §2.2). */
export const newJobId = (random: Random): string => random.uuid();

/** `rfs-` and the first 24 hex characters of the template-spec fingerprint (spec §3.4). */
export const artifactIdOf = (fingerprint: string): string => `rfs-${fingerprint.slice(0, 24)}`;

const SAFE_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** True when the text is safe as one component of a path and of a catalog key. */
export const isSafeId = (text: string): boolean => SAFE_ID.test(text) && !text.includes("..");

/**
 * Trims a template or snapshot id and checks its shape (spec §2.3).
 * @throws AppError template_id_required when blank, invalid_request when it is not `tpl-…` or
 * `snap-…`.
 */
export function parseTemplateId(text: string | undefined, pointer = "/template_id"): string {
  const id = (text ?? "").trim();
  if (id === "") {
    throw new AppError("template_id_required", "template id is required", {
      meta: { errors: [{ pointer, detail: "must not be blank" }] },
    });
  }
  const suffix = /^(?:tpl|snap)-(.*)$/.exec(id)?.[1]?.trim() ?? "";
  if (suffix === "" || !isSafeId(id)) {
    throw new AppError("invalid_request", `template id ${JSON.stringify(id)} is not valid`, {
      meta: { errors: [{ pointer, detail: "must start with tpl- or snap- and have a suffix" }] },
    });
  }
  return id;
}
