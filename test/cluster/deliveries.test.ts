/** A snapshot goes to other nodes on demand, whoever dies meanwhile. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Answer, type Row } from "../support/daemon.ts";

const LONG_MS = 240_000;
let dir: string;
let cluster: TestCluster;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(100_000) };
  await assembleOciLayout(join(dir, "small"), { layers: [{ entries: [file] }], tag: "demo" });
  cluster = await TestCluster.make(3, ["--session-term", "3"]);
  const job = await cluster.node(0).submit({
    source_image_ref: `oci:${join(dir, "small")}:demo`,
    writable_layer_size: "64Mi",
  });
  expect(await cluster.node(0).ended(job.job_id)).toMatchObject({ status: "READY" });
  await cluster.inSync();
  expect((await start(1, job.template_id, "sb-1")).status).toBe(201);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const start = (index: number, template_id: string, sandbox_id: string): Promise<Answer> =>
  cluster.node(index).ask("POST", "/v1/sandboxes", { template_id, sandbox_id });
const stop = (index: number, id: string) =>
  cluster.node(index).ask("DELETE", `/v1/sandboxes/${id}`);
async function freeze(): Promise<string> {
  const made = await cluster.node(1).ask("POST", "/v1/sandboxes/sb-1/snapshots", {});
  expect(made).toMatchObject({ status: 201, body: { status: "READY" } });
  await cluster.inSync();
  return String(made.body["snapshot_id"]);
}
const deliver = (index: number, id: string, body: Row): Promise<Answer> =>
  cluster.node(index).ask("POST", `/v1/snapshots/${id}/nodes`, body);
const nodesOf = (index: number, id: string) =>
  cluster.node(index).items(`/v1/snapshots/${id}/nodes`);
/** The job of a delivery, as soon as it is known there. */
const jobOf = (index: number, id: string): Promise<string> =>
  waitFor("the delivery's job", async () => {
    const jobs = await cluster.node(index).items(`/v1/jobs?template_id=${id}`);
    const job = jobs.find((one) => one["operation"] === "SNAPSHOT_DELIVER");
    return job === undefined ? undefined : String(job["job_id"]);
  });
/** It is on its way to node-2, which cannot reach node-1, the only one that has it. */
async function beginCutOff(id: string, request_id: string): Promise<{ ended: Promise<unknown> }> {
  cluster.cut([1], [2]);
  const ended = deliver(0, id, { nodes: ["node-2"], request_id }).catch(() => undefined);
  await waitFor("the copy to begin", async () => {
    const replicas = await cluster.node(2).items(`/v1/templates/${id}/replicas`);
    return replicas.some((one) => one["node_id"] === "node-2");
  });
  return { ended };
}
/** It has it, and says so. */
const arrived = (index: number, id: string) =>
  waitFor(
    `node-${index} to have it`,
    async () => {
      const { body } = await cluster.node(index).ask("GET", `/v1/snapshots/${id}/nodes`);
      return (body["items"] as string[] | undefined)?.includes(`node-${index}`);
    },
    60_000,
  );

it(
  "comes to another node, where a sandbox starts from it, and goes from all when it is deleted",
  { timeout: LONG_MS },
  async () => {
    const id = await freeze();
    const body = { nodes: ["node-2"], request_id: "one" };
    const all = await Promise.all([0, 1, 2].map((index) => deliver(index, id, body)));
    for (const answer of all) {
      expect(answer).toMatchObject({
        status: 200,
        body: { operation: "DELIVER", status: "READY", nodes: ["node-2"], snapshot_id: id },
      });
    }
    expect(new Set(all.map((answer) => answer.body["operation_id"])).size).toBe(1);
    await cluster.inSync();
    expect(await nodesOf(0, id)).toEqual(["node-1", "node-2"]);
    const { status, replicas } = await cluster.node(0).get(`/v1/snapshots/${id}`);
    expect(status).toBe("READY");
    expect(replicas).toMatchObject([
      { node_id: "node-1", status: "READY" },
      { node_id: "node-2", status: "READY", last_job_id: all[0]?.body["operation_id"] },
    ]);
    const wanted = { template_id: id, preferred_node_id: "node-2" };
    const resolved = await cluster.node(0).ask("POST", "/v1/resolve", wanted);
    expect(resolved.body).toMatchObject({ kind: "snapshot", node_id: "node-2" });
    expect((await start(2, id, "sb-far")).body).toMatchObject({ snapshot_id: id });
    expect((await start(0, id, "sb-none")).body["code"]).toBe("template_has_no_ready_replica");
    // Its node is where the sandbox goes back, and only to its own.
    const back = await cluster.node(0).ask("POST", "/v1/sandboxes/sb-far/rollback", {
      snapshot_id: id,
    });
    expect(back.body["code"]).toBe("snapshot_foreign");
    const path = `/v1/snapshots/${id}`;
    expect((await cluster.node(1).ask("DELETE", path)).body["code"]).toBe("snapshot_in_use");
    await stop(2, "sb-far");
    expect((await cluster.node(0).ask("DELETE", path)).status).toBe(200);
    await waitFor("its files to go from both", async () => {
      const left = await Promise.all([1, 2].map((index) => cluster.node(index).names("templates")));
      return !left.flat().some((name) => name.startsWith(id));
    });
    await waitFor("its artifacts to go", async () => {
      const artifacts = await cluster.node(0).items("/v1/artifacts");
      return !artifacts.some((one) => String(one["artifact_id"]).startsWith(id));
    });
    await waitFor("their bytes to go", async () => {
      const held = [0, 1, 2].map((index) => cluster.node(index).names("artifacts/sha256"));
      return (await Promise.all(held)).every(({ length }) => length === 1);
    });
  },
);

it(
  "is refused with the reason, and is delivered to every node from the command line",
  { timeout: LONG_MS },
  async () => {
    const id = await freeze();
    const refused = async (of: string, nodes: unknown) =>
      (await deliver(2, of, { nodes, request_id: "refused" })).body;
    expect(await refused("snap-none", ["node-2"])).toMatchObject({ code: "snapshot_not_found" });
    expect(await refused(id, ["node-2", "node-9"])).toMatchObject({
      code: "node_not_found",
      detail: expect.stringContaining("node-9") as string,
    });
    expect(await refused(id, [])).toMatchObject({ code: "invalid_request" });
    const cli = await cluster.node(0).cli(["snapshot", "deliver", id, "--node", "node-9"]);
    expect(cli).toMatchObject({ code: 3, stderr: expect.stringContaining("node-9") as string });
    expect((await cluster.node(0).cli(["snapshot", "deliver", id])).code).toBe(2);
    const all = await cluster.node(0).cli(["snapshot", "deliver", id, "--all"]);
    expect(all).toMatchObject({ code: 0, stderr: "" });
    expect(all.stdout).toMatch(/status: READY\n.*\nnodes: node-0, node-1, node-2\n/);
    await cluster.inSync();
    expect(await nodesOf(2, id)).toEqual(["node-0", "node-1", "node-2"]);
    expect((await cluster.node(2).ask("DELETE", `/v1/snapshots/${id}`)).status).toBe(200);
  },
);

it(
  "is settled when a node is killed that it goes to: it fails clearly, and goes on by itself",
  { timeout: LONG_MS },
  async () => {
    const id = await freeze();
    const { ended } = await beginCutOff(id, "cut-off");
    // It cannot be deleted from under those that copy it.
    const early = await cluster.node(0).ask("DELETE", `/v1/snapshots/${id}`);
    expect(early.body).toMatchObject({ code: "template_attempt_in_progress" });
    await cluster.node(2).kill();
    const job = await cluster.node(0).ended(await jobOf(0, id), 120_000);
    expect(job).toMatchObject({ status: "FAILED", error_code: "snapshot_not_delivered" });
    expect(job.error_message).toContain("node-2: it went down");
    await ended;
    // What is there serves on.
    expect((await cluster.node(0).get(`/v1/snapshots/${id}`))["status"]).toBe("READY");
    cluster.heal([1], [2]);
    await cluster.node(2).start();
    await arrived(2, id);
    await cluster.inSync();
    const again = await deliver(2, id, { nodes: ["node-2"], request_id: "again" });
    expect(again).toMatchObject({ status: 200, body: { status: "READY" } });
    expect((await start(2, id, "sb-after")).status).toBe(201);
    await stop(2, "sb-after");

    // Files that were lost there are fetched again.
    await cluster.node(2).stop();
    for (const folder of ["templates", "artifacts/sha256"]) {
      for (const name of await cluster.node(2).names(folder)) {
        const path = join(cluster.node(2).dataDir, folder, name);
        await rm(path, { recursive: true, force: true });
      }
    }
    await cluster.node(2).start();
    await arrived(2, id);
    expect((await start(2, id, "sb-anew")).status).toBe(201);
    await stop(2, "sb-anew");
  },
);

it("goes on when the node is killed that carries it out", { timeout: LONG_MS }, async () => {
  const id = await freeze();
  const { ended } = await beginCutOff(id, "carried");
  await cluster.node(1).kill();
  cluster.heal([1], [2]);
  await cluster.node(1).start();
  const job = await cluster.node(0).ended(await jobOf(0, id), 60_000);
  expect(job).toMatchObject({ status: "READY", ready_node_count: 1, node_id: "node-1" });
  await ended;
  await arrived(2, id);
  const same = await deliver(2, id, { nodes: ["node-2"], request_id: "carried" });
  expect(same).toMatchObject({ status: 200, body: { operation_id: job.job_id } });
});
