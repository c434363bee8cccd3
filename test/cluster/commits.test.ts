/** A sandbox becomes a template of the whole cluster, and stays one whoever dies. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Job, type Row } from "../support/daemon.ts";
import { endlessDriver } from "../support/exec-driver.ts";

const LONG_MS = 240_000;
let dir: string;
let cluster: TestCluster;
let parent: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(200_000) };
  await assembleOciLayout(join(dir, "small"), { layers: [{ entries: [file] }], tag: "demo" });
  cluster = await TestCluster.make(3, ["--session-term", "3", "--artifact-grace", "1s"]);
  const source_image_ref = `oci:${join(dir, "small")}:demo`;
  const made = await cluster.node(0).submit({ source_image_ref, writable_layer_size: "64Mi" });
  expect(await cluster.node(0).ended(made.job_id)).toMatchObject({ status: "READY" });
  parent = made.template_id;
  await cluster.inSync();
  const body = { template_id: parent, sandbox_id: "sb-1" };
  expect((await cluster.node(1).ask("POST", "/v1/sandboxes", body)).status).toBe(201);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const commit = async (index: number, body: Row): Promise<Job> => {
  const answer = await cluster.node(index).ask("POST", "/v1/templates/commit", {
    sandbox_id: "sb-1",
    ...body,
  });
  expect(answer.status, JSON.stringify(answer.body)).toBe(202);
  return answer.body as Job;
};
const start = (index: number, template_id: string, sandbox_id: string) =>
  cluster.node(index).ask("POST", "/v1/sandboxes", { template_id, sandbox_id });

it(
  "asked for at any node it is READY on all, outlives sandbox and parent, and can be redone",
  { timeout: LONG_MS },
  async () => {
    const body = { request_id: "one", display_name: "mine" };
    const asked = await Promise.all([0, 1, 2].map((index) => commit(index, body)));
    expect(new Set(asked.map(({ job_id }) => job_id)).size).toBe(1);
    const job = await cluster.node(2).ended(String(asked[0]?.job_id), 120_000);
    expect(job).toMatchObject({
      ...{ status: "READY", operation: "COMMIT", node_id: "node-1", template_status: "READY" },
      ...{ expected_node_count: 3, ready_node_count: 3, failed_node_count: 0, progress: 100 },
    });
    const id = job.template_id;
    await cluster.inSync();
    expect(await cluster.node(0).get("/v1/templates/mine")).toMatchObject({
      ...{ template_id: id, kind: "template", status: "READY" },
      ...{ parent_id: parent, origin_sandbox_id: "sb-1" },
    });
    const tree = await cluster.node(2).items(`/v1/lineage?id=${id}`);
    expect(tree.map((one) => [one["id"], one["depth"]])).toEqual([
      [parent, 0],
      [id, 1],
    ]);
    // From here on nothing of it is anywhere but in the template.
    await cluster.node(1).ask("DELETE", "/v1/sandboxes/sb-1");
    expect((await cluster.node(0).ask("DELETE", `/v1/templates/${parent}`)).status).toBe(200);
    expect((await start(2, id, "sb-2")).body).toMatchObject({ template_id: id, generation: 1 });
    const redo = await cluster.node(0).ask("POST", `/v1/templates/${id}/redo`, {
      memory_only: true,
    });
    const redone = await cluster.node(0).ended(String(redo.body["job_id"]), 120_000);
    expect(redone).toMatchObject({ status: "READY", memory_only: true, ready_node_count: 3 });
    expect((await start(0, id, "sb-1")).body).toMatchObject({ template_id: id, generation: 2 });
    // Of what was frozen nothing is needed any more.
    await waitFor("what was frozen to go", async () => {
      await cluster.node(1).ask("POST", "/v1/gc");
      const all = await cluster.node(1).items("/v1/artifacts");
      return !all.some((one) => String(one["artifact_id"]).startsWith(id));
    });
    parent = id;
  },
);

it(
  "goes on when the sandbox's node is killed at it, and when its leader is",
  { timeout: LONG_MS },
  async () => {
    expect((await start(1, parent, "sb-3")).status).toBe(201);
    const { job_id } = await commit(2, { sandbox_id: "sb-3", request_id: "two" });
    await cluster.node(1).kill();
    await cluster.node(1).start();
    const first = await cluster.node(0).ended(job_id, 120_000);
    // Cut off before anything was written, or after: never hanging, never half.
    if (first.status === "FAILED") expect(first["error_code"]).toBe("job_interrupted");
    await cluster.inSync();
    const again = await commit(0, { sandbox_id: "sb-3", request_id: "three" });
    // Whoever holds what was frozen may be the one that leads.
    const led = await waitFor("it to be led", async () => {
      const { body: job } = await cluster.node(1).ask("GET", `/v1/jobs/${again.job_id}`);
      return job["artifact_status"] === "READY" && job["epoch"] !== undefined ? job : undefined;
    });
    const leader = Number(String(led["worked_by"]).replace("node-", ""));
    await cluster.node(leader).kill();
    const other = (leader + 1) % 3;
    const done = await cluster.node(other).ended(again.job_id, 120_000);
    expect(done).toMatchObject({ status: "READY" });
    await cluster.node(leader).start();
    await cluster.inSync();
    await cluster.until(leader, "it to be filled", ({ members }) =>
      members.every(({ coverage_pct }) => coverage_pct === 100),
    );
  },
);

it(
  "ends FAILED, as a snapshot does, when the sandbox's node is removed in mid-freeze",
  { timeout: LONG_MS },
  async () => {
    const driver = ["--driver", "exec", "--exec-driver", await endlessDriver(dir)];
    const index = await cluster.addAlone(driver);
    await cluster.join(index);
    const gone = TestCluster.nodeId(index);
    await waitFor("a replica there", async () => {
      const { replicas } = await cluster.node(0).get(`/v1/templates/${parent}`);
      return (replicas as Row[]).some(
        (one) => one["node_id"] === gone && one["status"] === "READY",
      );
    });
    for (const id of ["sb-4", "sb-5"]) expect((await start(index, parent, id)).status).toBe(201);
    const { job_id } = await commit(index, { sandbox_id: "sb-4", request_id: "four" });
    const path = "/v1/sandboxes/sb-5/snapshots";
    const snapshot = cluster.node(0).ask("POST", path, { request_id: "five" });
    const jobs = () => cluster.node(0).items("/v1/jobs");
    const areFrozen = async () => {
      const running = (await jobs()).filter((job) => job["status"] === "RUNNING");
      return running.length === 2 ? running : undefined;
    };
    const frozen = await waitFor("both to be frozen", areFrozen, 120_000);
    expect(frozen.map((job) => job["phase"])).toEqual(["SNAPSHOTTING", "SNAPSHOTTING"]);
    await cluster.node(index).kill();
    const removed = await cluster.node(0).ask("DELETE", `/v1/nodes/${gone}`);
    expect(removed.status, JSON.stringify(removed.body)).toBeLessThan(300);
    const reason = `${gone}, which was to carry it out, was removed from the cluster`;
    expect(await cluster.node(1).ended(job_id, 120_000)).toMatchObject({
      ...{ status: "FAILED", error_code: "job_interrupted", error_message: reason },
    });
    expect((await snapshot).body).toMatchObject({ code: "job_interrupted", detail: reason });
    const [record] = await cluster.node(0).items("/v1/snapshots");
    expect(record).toMatchObject({ status: "FAILED", last_error: reason });
  },
);
