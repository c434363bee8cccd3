/** A sandbox becomes a template: what its own node does for that, over a fake driver. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  AppError,
  CLUSTER,
  commitTemplateSchema,
  isActiveJob,
  type CommitTemplateRequest,
} from "../../../src/domain/index.ts";
import { NODE, startNode, startWithSandbox } from "../../support/snapshot-node.ts";
import { waitFor } from "../../support/storage.ts";

type Setup = Awaited<ReturnType<typeof startWithSandbox>>;
let setup: Setup;
let node: Setup["node"];

beforeEach(async () => {
  setup = await startWithSandbox();
  node = setup.node;
});

afterEach(async () => {
  await node.worker.stop();
  await node.replicas.stop();
  await rm(setup.dir, { recursive: true, force: true });
});

const commit = (request_id = "c1", more: Partial<CommitTemplateRequest> = {}) =>
  node.commit({ sandbox_id: "sb-1", request_id, ...more });
const job = (id: string) => setup.catalog.get(CLUSTER, "job", id)!.value!;
const artifacts = () => [...node.records.list("artifact")].map(({ artifact_id }) => artifact_id);
const never = () => new Promise<void>(() => undefined);
/** Where the sandbox's node has done its part, or the job has ended. */
const settled = async (id: string) => {
  await waitFor(() => !isActiveJob(job(id)) || job(id).phase === "DISTRIBUTING");
  return job(id);
};
const committed = async (id: string) => {
  const { template_id } = await settled(id);
  await waitFor(() => node.facts.get("replica", template_id)?.status === "READY");
  return node.records.get("template", template_id)!;
};
const said = async (id: string) => {
  await node.jobLog.flush();
  return (await node.jobLog.read(id)).map(({ level, message }) => `${level} ${message}`);
};
/** Another process over the same disk and the same guests. */
async function crash(): Promise<void> {
  setup.fake.die();
  void node.worker.stop();
  void node.replicas.stop();
  node = await startNode(setup.catalog, setup.fake, setup.dir);
}
const left = async () => {
  const names = (dir: string) => readdir(join(setup.dir, dir)).catch((): string[] => []);
  const scratch = (await names("work/artifacts")).concat(await names("artifacts/sha256"));
  return { artifacts: artifacts(), scratch, files: [...setup.fake.files] };
};
const nothing = { artifacts: [], scratch: [], files: [] };

describe("a commit", () => {
  it("freezes the sandbox once and publishes a root filesystem and what was frozen", async () => {
    const id = await commit("c1", { display_name: "mine", labels: { of: "me" } });
    expect(await settled(id)).toMatchObject({
      operation: "COMMIT",
      status: "RUNNING",
      phase: "DISTRIBUTING",
      artifact_status: "READY",
      expected_node_count: 1,
      node_id: NODE,
    });
    const record = await committed(id);
    expect(record).toMatchObject({
      kind: "template",
      status: "PENDING",
      display_name: "mine",
      labels: { of: "me" },
      parent_id: "tpl-1",
      origin_sandbox_id: "sb-1",
      origin_node_id: NODE,
      desired_nodes: [NODE],
      frozen: { generation: 1, guest_image_version: "g", driver: "rootfs" },
    });
    const { template_id, artifact_id = "" } = record;
    expect(artifacts().sort()).toEqual([artifact_id, `${template_id}.memory`].sort());
    for (const one of artifacts()) {
      expect(node.store.find(one)).toBeDefined();
      expect(node.facts.get("holding", one)).toMatchObject({ complete: true });
    }
    expect(record.request).toMatchObject({
      template_id,
      labels: { is: "spec" },
      annotations: { "cube.master.rootfs.artifact.id": artifact_id },
    });
    expect(setup.fake.calls).toBe(1);
    expect(node.sandboxes.running("sb-1").info.status).toBe("RUNNING");
  });

  it("has the guest flush its file systems first", async () => {
    const id = await commit();
    expect(await committed(id)).not.toHaveProperty("warning");
    expect(job(id)).not.toHaveProperty("warning");
    expect(await said(id)).toContain("info the guest flushed");
  });

  it("of a guest that does not goes on, and job and template tell of it", async () => {
    setup.fake.unsynced = "the guest's agent does not run";
    const id = await commit();
    const warning = expect.stringMatching(/^the guest's agent does not run: .* frozen memory/);
    expect(await committed(id)).toMatchObject({ status: "PENDING", warning });
    expect(job(id)).toMatchObject({ phase: "DISTRIBUTING", warning });
    expect((await said(id)).find((line) => line.startsWith("warn "))).toContain("does not run");
  });

  it("goes on from its memory, and a redo boots its root filesystem", async () => {
    const { template_id: id } = await committed(await commit());
    expect(setup.fake.imports).toEqual([join(setup.dir, "templates", `${id}.g1`)]);
    expect(setup.fake.boots).toEqual([]);
    await node.records.update("template", id, (now) => now && { ...now, generation: 2 });
    await waitFor(() => node.facts.get("replica", id)?.generation === 2);
    expect(setup.fake.boots).toEqual([join(setup.dir, "templates", `${id}.g2`)]);
  });

  it("is booted where what was frozen is lost", async () => {
    const { template_id: id } = await committed(await commit());
    await node.records.update("artifact", `${id}.memory`, () => null);
    await node.replicas.stop();
    setup.fake.files.delete(join(setup.dir, "templates", `${id}.g1`));
    await crash();
    await waitFor(() => setup.fake.boots.length === 1);
  });

  it("row 21: a blank request id is refused", () => {
    const parsed = commitTemplateSchema.safeParse({ sandbox_id: "sb-1", request_id: " " });
    expect(parsed.error?.issues.map(({ message }) => message)).toEqual(["requestID is required"]);
  });

  it("row 22: an equal request is the same job, another with its id a conflict", async () => {
    const id = await commit("c1", { create_request: { labels: { a: "1" }, request_id: "x" } });
    await committed(id);
    const again = { create_request: { request_id: "y", labels: { a: "1" } }, wait: true };
    expect(await commit("c1", again)).toBe(id);
    await expect(commit("c1", { display_name: "other" })).rejects.toMatchObject({
      code: "request_id_conflict",
    });
    expect(setup.fake.calls).toBe(1);
  });

  it("row 23: of equal requests at once one job is written, which both are given", async () => {
    const [one, two] = await Promise.all([commit(), commit()]);
    expect(one).toBe(two);
    await committed(one);
    expect(setup.fake.calls).toBe(1);
  });

  it("row 24: one that fails says why, also where nobody said it, and leaves nothing", async () => {
    setup.fake.before = () => Promise.reject(new AppError("snapshot_failed", ""));
    const silent = await settled(await commit("c1"));
    expect(silent).toMatchObject({ status: "FAILED", error_code: "snapshot_failed" });
    expect(silent.error_message).not.toBe("");
    setup.fake.before = () => Promise.resolve();
    setup.fake.flattening = () => Promise.reject(new AppError("snapshot_failed", "no space"));
    expect(await settled(await commit("c2"))).toMatchObject({ error_message: "no space" });
    expect(await left()).toEqual(nothing);
    expect([...node.records.list("template")].map(({ template_id }) => template_id)).toEqual([
      "tpl-1",
    ]);
    expect(node.sandboxes.running("sb-1").info.status).toBe("RUNNING");
  });

  it("is refused of nobody's sandbox, on a full disk, and beside a snapshot of it", async () => {
    const nobody = node.commit({ sandbox_id: "sb-none", request_id: "c0" });
    await expect(nobody).rejects.toMatchObject({ code: "sandbox_not_found" });
    Object.assign(node.node.storage, { mode: "reject", usage_pct: 90 });
    await expect(commit()).rejects.toMatchObject({ code: "storage_not_writable" });
    Object.assign(node.node.storage, { mode: "healthy", usage_pct: 10 });
    setup.fake.before = never;
    await commit();
    await waitFor(() => setup.fake.calls === 1);
    await expect(commit("c2")).rejects.toMatchObject({ code: "snapshot_operation_in_progress" });
  });

  it("that is cancelled leaves nothing, and the sandbox as it was", async () => {
    setup.fake.flattening = never;
    const id = await commit();
    await waitFor(() => job(id).phase === "BUILDING_EXT4");
    await node.records.update("job", id, (now) => now && { ...now, cancel_requested: true });
    expect(await settled(id)).toMatchObject({ status: "FAILED", error_code: "job_cancelled" });
    expect(await left()).toEqual(nothing);
    expect(node.sandboxes.running("sb-1").info.status).toBe("RUNNING");
  });
});

describe("after a crash", () => {
  it.each(["before", "after", "flattening"] as const)(
    "a commit that was cut off at '%s' is settled, with nothing left of it",
    async (step) => {
      let isThere = false;
      setup.fake[step] = () => {
        isThere = true;
        return never();
      };
      const id = await commit();
      await waitFor(() => isThere);
      setup.fake[step] = () => Promise.resolve();
      await crash();
      expect(await settled(id)).toMatchObject({ status: "FAILED", error_code: "job_interrupted" });
      setup.fake.files.clear();
      expect(await left()).toEqual(nothing);
      await committed(await commit("c2"));
    },
  );

  it("one whose template is written goes on", async () => {
    const id = await commit();
    await committed(id);
    const back = { phase: "GENERATING_JSON", artifact_status: "BUILDING" } as const;
    await node.worker.stop();
    await node.records.update("job", id, (now) => now && { ...now, ...back });
    await crash();
    expect(await settled(id)).toMatchObject({ status: "RUNNING", artifact_status: "READY" });
  });
});
