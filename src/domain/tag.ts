/**
 * Tags: stable names that stand for templates and move as one record, with the history of where
 * they pointed. A template's display name is such a tag too, moved by the build that carries it
 * (spec §4.14). Each change has an id, so that one that is applied again changes nothing more.
 */
import { z } from "zod";
import { AppError } from "./errors.ts";

const shortText = z.string().max(256);

/** Of tags and display names: they stand wherever a template's id does. */
export const nameSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,63}$/, "must be lower-case letters, digits and dashes")
  .refine((name) => !/^(tpl|snap)-/.test(name), "must not start with tpl- or snap-");

export const tagRecordSchema = z.looseObject({
  name: shortText,
  template_id: shortText,
  /** Oldest first; the last one is where it points. */
  history: z.array(
    z.looseObject({
      change_id: shortText,
      template_id: shortText,
      /** It was set by going back. */
      rollback: z.boolean().optional(),
      actor: shortText,
      at: z.string(),
      /** When it was asked for: a build that began earlier does not take the name any more. */
      asked_at: z.string(),
    }),
  ),
  created_at: z.string(),
  updated_at: z.string(),
});
export type TagRecord = z.infer<typeof tagRecordSchema>;

const templateId = z.string().trim().min(1, "must not be blank").max(256).describe("id or name");

export const promoteTagSchema = z.strictObject({
  template_id: templateId,
  expected_template_id: templateId
    .nullable()
    .optional()
    .describe("move it only from there; null: only when there is no such tag"),
});
export type PromoteTagRequest = z.infer<typeof promoteTagSchema>;

export const rollbackTagSchema = z.strictObject({
  expected_template_id: templateId.optional().describe("go back only from there"),
});
export type RollbackTagRequest = z.infer<typeof rollbackTagSchema>;

export interface TagChange {
  readonly name: string;
  readonly id: string;
  readonly actor: string;
  /** RFC 3339. */
  readonly at: string;
  /** RFC 3339; absent: `at`. */
  readonly askedAt?: string;
  /** `undefined`: wherever it points; `null`: there is none. */
  readonly expected?: string | null | undefined;
}

const HISTORY_KEPT = 50;

const isApplied = (tag: TagRecord | undefined, { id }: TagChange): boolean =>
  tag?.history.at(-1)?.change_id === id;

function assertExpected(tag: TagRecord | undefined, { name, expected }: TagChange): void {
  const current = tag?.template_id ?? null;
  if (expected === undefined || expected === current) return;
  const where = current === null ? "there is no such tag" : `it points at ${current}`;
  throw new AppError("tag_moved", `tag ${name} was not moved: ${where}`, {
    meta: { expected_template_id: expected, template_id: current },
  });
}

function moved(
  tag: TagRecord | undefined,
  templateId: string,
  { name, id, actor, at, askedAt = at }: TagChange,
  rollback: boolean,
): TagRecord {
  const step = { change_id: id, template_id: templateId, actor, at, asked_at: askedAt };
  const history = [...(tag?.history ?? []), rollback ? { ...step, rollback } : step];
  return {
    ...tag,
    name,
    template_id: templateId,
    history: history.slice(-HISTORY_KEPT),
    created_at: tag?.created_at ?? at,
    updated_at: at,
  };
}

/**
 * The tag pointing at the template; undefined: it does already.
 * @throws AppError tag_moved: it does not point where the caller believes
 */
export function promoteTag(
  tag: TagRecord | undefined,
  templateId: string,
  change: TagChange,
): TagRecord | undefined {
  if (isApplied(tag, change)) return undefined;
  assertExpected(tag, change);
  return tag?.template_id === templateId ? undefined : moved(tag, templateId, change, false);
}

/**
 * The tag pointing where it pointed before; going back again comes back.
 * @throws AppError tag_not_found, tag_moved, tag_has_no_history
 */
export function rollbackTag(tag: TagRecord | undefined, change: TagChange): TagRecord | undefined {
  if (isApplied(tag, change)) return undefined;
  if (tag === undefined) throw new AppError("tag_not_found", `tag ${change.name} not found`);
  assertExpected(tag, change);
  const before = tag.history.at(-2)?.template_id;
  if (before === undefined) {
    throw new AppError(
      "tag_has_no_history",
      `tag ${tag.name} has pointed at ${tag.template_id} only`,
    );
  }
  return moved(tag, before, change, true);
}

/**
 * The name as a finished build takes it: of builds of one name the one that was asked for last has
 * it, and whoever moved it meanwhile keeps it there. Undefined: it is not this build's.
 * @param isFree only takes a name that nobody has
 */
export function claimName(
  tag: TagRecord | undefined,
  templateId: string,
  change: TagChange & { readonly askedAt: string },
  isFree = false,
): TagRecord | undefined {
  const last = tag?.history.at(-1);
  if (last !== undefined && (isFree || last.asked_at > change.askedAt)) return undefined;
  return promoteTag(tag, templateId, change);
}

/** Whether a template of that display name is still the one that the name stands for. */
export const isNameOf = (tag: TagRecord | undefined, templateId: string): boolean =>
  tag === undefined || tag.template_id === templateId;

/** Whether nothing is left of it when these templates are. */
export const isForgotten = (tag: TagRecord, isThere: (templateId: string) => boolean): boolean =>
  !tag.history.some((step) => isThere(step.template_id));
