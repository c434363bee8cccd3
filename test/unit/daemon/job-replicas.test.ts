/** Waiting for a job's replicas, when the job itself goes meanwhile. */
import { expect, it } from "vitest";
import { awaitReplicas, type JobSteps } from "../../../src/daemon/workers/job-replicas.ts";
import { AppError, type JobRecord, type TemplateRecord } from "../../../src/domain/index.ts";
import { templateValue } from "../../support/storage.ts";

it("ends when the job's record is gone while the template is still there", async () => {
  const template: TemplateRecord = { ...templateValue("tpl-1"), desired_nodes: ["a"] };
  const entered: string[] = [];
  const steps = {
    catalog: { list: () => [], subscribe: () => () => undefined },
    // A node that is down holds nothing up: all is delivered at once.
    nodes: { get: () => undefined, onChange: () => () => undefined },
    artifacts: { isAvailable: () => true },
    records: { get: (kind: string) => (kind === "template" ? template : undefined) },
    enter: (_id: string, phase: string) => {
      entered.push(phase);
      if (entered.length > 3) throw new Error("it goes round and round");
      return Promise.reject(new AppError("job_not_active", "the job has ended"));
    },
  } as unknown as JobSteps;
  const job = { job_id: "j1", template_id: "tpl-1" } as JobRecord;
  const progress = { replicas: () => undefined } as never;
  await expect(
    awaitReplicas(steps, job, new AbortController().signal, progress),
  ).rejects.toMatchObject({ code: "job_not_active" });
  expect(entered).toHaveLength(1);
});
