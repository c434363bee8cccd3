/** Five real daemons in namespaces of their own: the life of a cluster as its operator sees it. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { isActive, waitFor, type Job, type Row } from "../support/daemon.ts";

const NODES = 5;
const LONG_MS = 120_000;
let dir: string;
let cluster: TestCluster;
const image = (name: string) => `oci:${join(dir, name)}:demo`;
const request = (name: string, more: Row = {}) => ({
  source_image_ref: image(name),
  writable_layer_size: "64Mi",
  ...more,
});
const all = Array.from({ length: NODES }, (_, index) => index);

async function makeImage(name: string, bytes: number): Promise<void> {
  const file = { path: "data", type: "file" as const, content: randomBytes(bytes) };
  await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  await makeImage("small", 300_000);
  cluster = await TestCluster.make(NODES, ["--session-term", "3"]);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

/** Nodes that hold a READY replica, as node `index` knows. */
async function holders(index: number, templateId: string): Promise<string[]> {
  const template = await cluster.node(index).get(`/v1/templates/${templateId}`);
  return (template["replicas"] as Row[])
    .filter((replica) => replica["status"] === "READY")
    .map((replica) => String(replica["node_id"]))
    .sort();
}

const heldBy = (index: number, templateId: string, nodes: readonly number[]) =>
  waitFor(
    `${templateId} to be on ${nodes.join(", ")}`,
    async () => {
      const found = await holders(index, templateId).catch((): string[] => []);
      return nodes.every((node) => found.includes(TestCluster.nodeId(node)));
    },
    60_000,
  );

const indexOf = (nodeId: string): number => Number(nodeId.replace("node-", ""));

describe("a cluster of five", { timeout: LONG_MS }, () => {
  it("has five voters, and every node tells the same", async () => {
    await cluster.until(0, "five voters", (state) => state.quorum.voters.length === 5, 60_000);
    await cluster.inSync();
    const states = await Promise.all(all.map((index) => cluster.state(index)));
    for (const state of states) {
      expect(state.members.map((member) => member.node_id)).toEqual(
        all.map((index) => TestCluster.nodeId(index)),
      );
      expect(state.quorum).toMatchObject({ available: true, note: "" });
    }
  });

  it("builds a template asked for at any node, and makes it READY on all", async () => {
    const job = await cluster.node(3).submit(request("small", { display_name: "first" }));
    const ended = await cluster.node(3).ended(job.job_id);
    expect(ended).toMatchObject({ status: "READY", expected_node_count: 5, ready_node_count: 5 });
    for (const index of all) await heldBy(index, job.template_id, all);
    const log = await cluster.node(0).log(job.job_id);
    expect(log.join("\n")).toContain("READY");
    const infos = await Promise.all(all.map((i) => cluster.node(i).get("/v1/templates/first")));
    expect(new Set(infos.map((info) => info["artifact_digest"])).size).toBe(1);
  });

  it("builds what is asked for at two nodes at once only once", async () => {
    await makeImage("twice", 4_000_000);
    const [one, two] = await Promise.all([
      cluster.node(1).submit(request("twice")),
      cluster.node(4).submit(request("twice")),
    ]);
    const ended = await Promise.all([
      cluster.node(0).ended(one.job_id),
      cluster.node(0).ended(two.job_id),
    ]);
    expect(ended.map((job) => job.status)).toEqual(["READY", "READY"]);
    expect(ended[0]?.artifact_id).toBe(ended[1]?.artifact_id);
    const logs = await Promise.all(ended.map((job) => cluster.node(2).log(job.job_id)));
    const built = logs.flat().filter((line) => / built: /.test(line));
    expect(built).toHaveLength(1);
  });

  it("ends a job that is cancelled at another node than the one that works on it", async () => {
    await makeImage("cancelled", 60_000_000);
    const job = await cluster.node(0).submit(request("cancelled"));
    const working = await waitFor("someone to work on it", async () => {
      const found = await cluster.node(0).job(job.job_id);
      return typeof found["worked_by"] === "string" ? found : undefined;
    });
    const other = (indexOf(String(working["worked_by"])) + 1) % NODES;
    const answer = await cluster.node(other).ask("POST", `/v1/jobs/${job.job_id}/cancel`);
    const ended = await cluster.node(other).ended(job.job_id);
    // It may have been quicker.
    if (answer.status === 202) {
      expect(ended).toMatchObject({ status: "FAILED", error_code: "job_cancelled" });
    }
  });

  it("lets a node that was down catch up by itself", async () => {
    await cluster.node(2).stop();
    const seen = (state: { members: readonly Row[] }) =>
      state.members.some((m) => m["node_id"] === "node-2" && m["liveness"] === "dead");
    await cluster.until(0, "node-2 to be seen dead", seen);
    await makeImage("while-down", 2_000_000);
    const job = await cluster.node(0).submit(request("while-down"));
    expect(await cluster.node(1).ended(job.job_id)).toMatchObject({ status: "READY" });
    await cluster.node(2).start();
    await heldBy(2, job.template_id, all);
    await cluster.inSync();
  });

  it("goes on with three of five; the two resolve and refuse changes until it heals", async () => {
    const { template_id } = await cluster.node(0).get("/v1/templates/first");
    cluster.cut([0, 1, 2], [3, 4]);
    await cluster.until(4, "the minority to know", (state) => !state.quorum.available);
    const templates = async () =>
      (await cluster.node(4).items("/v1/templates")).map((one) => one["template_id"]);
    const before = await templates();
    const refused = await cluster.node(4).ask("POST", "/v1/templates/from-image", request("small"));
    expect(refused).toMatchObject({ status: 503, body: { code: "no_quorum" } });
    const resolved = await cluster.node(4).ask("POST", "/v1/resolve", { template_id });
    expect(resolved).toMatchObject({ status: 200, body: { node_id: "node-4" } });
    const sandbox = await cluster.node(4).ask("POST", "/v1/sandboxes", { template_id });
    expect(sandbox.status).toBe(201);

    await makeImage("majority", 1_000_000);
    const job = await cluster.node(0).submit(request("majority"));
    const ended = await cluster.node(1).ended(job.job_id);
    expect(["READY"]).toContain(ended.status);
    expect(await holders(0, job.template_id)).toEqual(["node-0", "node-1", "node-2"]);
    const { quorum } = await cluster.state(4);
    expect(quorum.note).toContain("no_quorum");

    cluster.heal([0, 1, 2], [3, 4]);
    await cluster.inSync();
    await heldBy(4, job.template_id, all);
    // What was refused is not done later.
    expect((await templates()).sort()).toEqual([...before, job.template_id].sort());
    const id = String(sandbox.body["sandbox_id"]);
    expect((await cluster.node(4).ask("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  });

  it("fills a sixth node before it counts as ready", async () => {
    const index = await cluster.add();
    const name = TestCluster.nodeId(index);
    const state = await cluster.until(
      0,
      "the sixth node to be filled",
      ({ members }) => members.some((member) => member.node_id === name && member.warm),
      60_000,
    );
    const member = state.members.find(({ node_id }) => node_id === name);
    expect(member?.coverage_pct).toBe(100);
    const { items } = await cluster.node(index).get("/v1/templates");
    for (const template of items as Row[]) {
      if (template["status"] !== "READY") continue;
      await heldBy(index, String(template["template_id"]), [index]);
    }
  });

  it("deletes a template everywhere, and refuses while a sandbox of it runs elsewhere", async () => {
    const { template_id: id, artifact_id } = await cluster.node(0).get("/v1/templates/first");
    const sandbox = await cluster.node(1).ask("POST", "/v1/sandboxes", { template_id: id });
    expect(sandbox.status).toBe(201);
    await waitFor("node 0 to know of it", async () => {
      const answer = await cluster.node(0).ask("DELETE", `/v1/templates/${String(id)}`);
      if (answer.status === 200) throw new Error("deleted while it was in use");
      return answer.body["code"] === "template_in_use";
    });
    await cluster.node(1).ask("DELETE", `/v1/sandboxes/${String(sandbox.body["sandbox_id"])}`);
    await waitFor("the delete to be allowed", async () => {
      const answer = await cluster.node(0).ask("DELETE", `/v1/templates/${String(id)}`);
      return answer.status === 200;
    });
    for (const index of all) {
      await waitFor(`node ${index} to have dropped the file`, async () => {
        const answer = await cluster.node(index).ask("GET", `/v1/artifacts/${String(artifact_id)}`);
        return answer.status === 404;
      });
    }
    await waitFor("all replicas to be gone", async () => {
      const names = await Promise.all(all.map((i) => cluster.node(i).names(`templates`)));
      return names.flat().every((name) => name !== id);
    });
  });

  it("moves leaderships away from a node that is drained, and gives it nothing new", async () => {
    await cluster.node(0).ask("POST", "/v1/nodes/node-1/drain", {});
    await cluster.until(3, "the drain to be known", ({ members }) =>
      members.some((member) => member.node_id === "node-1" && member["drained"] === true),
    );
    await makeImage("drained", 500_000);
    const job = await cluster.node(1).submit(request("drained"));
    const ended: Job = await cluster.node(1).ended(job.job_id);
    expect(isActive(ended)).toBe(false);
    expect(ended["worked_by"]).not.toBe("node-1");
    expect(await holders(0, job.template_id)).not.toContain("node-1");
    await cluster.node(0).ask("POST", "/v1/nodes/node-1/drain", { drained: false });
    await heldBy(0, job.template_id, [1]);
  });
});
