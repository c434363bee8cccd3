/** Waiting for a job's replicas, when the job itself goes meanwhile. */
import { expect, it } from "vitest";
import {
  awaitReplicas,
  defineTemplate,
  type JobSteps,
} from "../../../src/daemon/workers/job-replicas.ts";
import {
  AppError,
  type ArtifactRecord,
  type JobRecord,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { templateValue } from "../../support/storage.ts";

it("ends when the job's record is gone while the template is still there", async () => {
  const template: TemplateRecord = {
    ...templateValue("tpl-1"),
    generation: 1,
    desired_nodes: ["a"],
  };
  const entered: string[] = [];
  const steps = {
    // It has the artifact, and makes its snapshot.
    catalog: {
      list: () => [{ id: "tpl-1", value: { node_id: "a", generation: 1, phase: "SNAPSHOTTING" } }],
      subscribe: () => () => undefined,
    },
    nodes: { get: () => ({ healthy: true }), onChange: () => () => undefined },
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

it("does not make a template anew that was deleted after the job had made it", async () => {
  const phases = [{ phase: "DISTRIBUTING" as const, started_at: "" }];
  const request = { source_image_ref: "i", writable_layer_size: "1Gi" };
  const job = { job_id: "j1", template_id: "tpl-1", request, phases } as unknown as JobRecord;
  const steps = {
    nodes: { all: () => [{ node_id: "a", healthy: true, drained: false }] },
    now: () => "",
    records: {
      get: () => job,
      update: (_kind: string, _id: string, change: (current: undefined) => unknown) =>
        Promise.resolve().then(() => change(undefined)),
    },
  } as unknown as JobSteps;
  const artifact = { artifact_id: "rfs-1" } as ArtifactRecord;
  await expect(defineTemplate(steps, "j1", artifact, true)).rejects.toMatchObject({
    code: "template_not_found",
  });
});
