/**
 * Deletion in two steps (design §10): the record says DELETING, then every node that may give a
 * runtime ref is fenced. A ref that there is lifts the claim again; without one the record goes.
 * Pure: each step is decided inside the record's quorum change, so that of several deleters and
 * users one wins.
 */
import { AppError, type ErrorCode } from "./errors.ts";
import type { TemplateRecord } from "./schema.ts";
import { templateMachine } from "./template.ts";

/** One attempt to delete; ids are never used again, so that a late step of another is noticed. */
export interface DeletionClaim {
  readonly id: string;
  readonly node_id: string;
  /** RFC 3339. */
  readonly at: string;
}

const inProgress = (message: string, record: TemplateRecord): AppError =>
  new AppError("template_attempt_in_progress", message, {
    meta: { template_id: record.template_id, status: record.status },
  });

/** @throws AppError template_protected */
export function assertUnprotected(
  record: Pick<TemplateRecord, "kind" | "template_id" | "protected"> | undefined,
): void {
  if (record?.protected !== true) return;
  const { kind, template_id: id } = record;
  throw new AppError("template_protected", `${kind} ${id} is protected from deletion`, {
    meta: { template_id: id },
  });
}

/**
 * The record as DELETING under this claim. One that somebody else deletes is taken over when
 * `isAtWork` says that nobody carries that attempt out any more.
 * @throws AppError template_attempt_in_progress: it is being made, or deleted by somebody at work;
 *   template_protected, forced or not
 */
export function claimDeletion(
  record: TemplateRecord,
  claim: DeletionClaim,
  isAtWork: (deletion: NonNullable<TemplateRecord["deletion"]>) => boolean,
): TemplateRecord {
  const { template_id: id, status, deletion } = record;
  if (deletion?.id === claim.id) return record;
  if (status === "PENDING" || status === "CREATING") {
    throw inProgress(`${record.kind} ${id} is still being made`, record);
  }
  if (deletion !== undefined && isAtWork(deletion)) {
    throw inProgress(`${record.kind} ${id} is being deleted by ${deletion.node_id}`, record);
  }
  if (status !== "DELETING") assertUnprotected(record);
  const from = status === "DELETING" ? (deletion?.from_status ?? "FAILED") : status;
  return {
    ...record,
    status: status === "DELETING" ? status : templateMachine.next(id, status, "delete"),
    deletion: { id: claim.id, node_id: claim.node_id, from_status: from, begun_at: claim.at },
    updated_at: claim.at,
  };
}

const LIFT = {
  READY: "lift_ready",
  PARTIALLY_READY: "lift_partial",
  FAILED: "lift_failed",
} as const;

/** The record as it was before the claim; undefined when the claim does not hold any more. */
export function liftDeletion(
  record: TemplateRecord | undefined,
  claimId: string,
  at: string,
): TemplateRecord | undefined {
  if (record?.deletion?.id !== claimId) return undefined;
  const { deletion, ...rest } = record;
  const status = templateMachine.next(rest.template_id, rest.status, LIFT[deletion.from_status]);
  return { ...rest, status, updated_at: at };
}

const IN_USE: Readonly<Record<TemplateRecord["kind"], ErrorCode>> = {
  template: "template_in_use",
  snapshot: "snapshot_in_use",
};

/** @param users `sandbox@node`, the first few of `count` */
export function stillInUse(
  { kind, template_id: id }: Pick<TemplateRecord, "kind" | "template_id">,
  count: number,
  users: readonly string[],
): AppError {
  const some = users.slice(0, 5).join(", ");
  return new AppError(
    IN_USE[kind],
    `${kind} ${id} is in use by ${count} ${count === 1 ? "sandbox" : "sandboxes"}: ` +
      `active runtime ref of ${some}`,
    { meta: { template_id: id, count, sandboxes: users } },
  );
}
