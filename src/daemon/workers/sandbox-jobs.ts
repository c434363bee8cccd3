/** The end of what was asked of a sandbox and failed, whichever node finds that out. */
import {
  errorText,
  isActiveJob,
  isAppError,
  templateMachine,
  type Catalog,
  type Clock,
  type JobRecord,
  type TemplateRecord,
} from "../../domain/index.ts";
import { failJob } from "../job-record.ts";
import type { Records } from "../records.ts";
import { dropDelivery } from "./delivery.ts";

export interface SandboxJobParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly clock: Pick<Clock, "now">;
  /** Lets an artifact go at once that only this job refers to. */
  readonly release: (artifactId: string, except: { readonly jobId: string }) => Promise<void>;
}

/**
 * Its snapshot FAILED, nothing of its commit left and of a delivery only what the record names,
 * then the job itself FAILED with the error. What is on the disk is its node's.
 * @throws AppError no_quorum, catalog_degraded: it is to be tried again
 */
export async function failSandboxJob(
  parts: SandboxJobParts,
  job: JobRecord,
  error: unknown,
): Promise<void> {
  const message = errorText(error);
  const id = job.resource_id;
  if (job.operation === "SNAPSHOT_CREATE") {
    await changeStatus(parts, id, { from: "CREATING", event: "fail" }, { last_error: message });
  }
  if (job.operation === "COMMIT") await dropCommit(parts, job);
  if (job.operation === "SNAPSHOT_DELIVER") {
    await dropDelivery(parts, job, isAppError(error, "job_cancelled"));
  }
  const at = new Date(parts.clock.now()).toISOString();
  const code = isAppError(error) ? error.code : "internal";
  const event = code === "job_cancelled" ? "cancel" : "fail";
  await parts.records.update("job", job.job_id, (current) =>
    current === undefined || !isActiveJob(current)
      ? undefined
      : failJob(current, event, { message, code }, at),
  );
}

/** Unless the snapshot is not in the status `from` any more. */
export async function changeStatus(
  { records, clock }: Pick<SandboxJobParts, "records" | "clock">,
  id: string,
  { from, event }: { readonly from: TemplateRecord["status"]; readonly event: "ready" | "fail" },
  change: Partial<TemplateRecord>,
): Promise<void> {
  const at = new Date(clock.now()).toISOString();
  await records.update("template", id, (current) =>
    current?.status === from
      ? {
          ...current,
          ...change,
          status: templateMachine.next(id, current.status, event),
          updated_at: at,
        }
      : undefined,
  );
}

/** What it has published is nobody's. */
async function dropCommit(
  { records, release }: SandboxJobParts,
  { job_id, resource_id }: JobRecord,
): Promise<void> {
  // It may have died between the record and its last step, and been cancelled meanwhile.
  await records.update("template", resource_id, (current) =>
    current?.job_id === job_id ? null : undefined,
  );
  const job = await records.update("job", job_id, () => undefined);
  for (const id of [job?.artifact_id ?? "", ...(job?.artifact_ids ?? [])]) {
    if (records.get("artifact", id) !== undefined) await release(id, { jobId: job_id });
  }
}
