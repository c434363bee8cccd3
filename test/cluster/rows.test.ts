/** Rows of the specification that need several nodes, one of which takes no new bytes. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Job, type Row } from "../support/daemon.ts";

const LONG_MS = 300_000;
const FULL = "node-2";
let dir: string;
let cluster: TestCluster;
let images = 0;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  cluster = await TestCluster.make(2, ["--session-term", "3"]);
  // Every disk is fuller than that.
  await cluster.join(await cluster.addAlone(["--storage-thresholds", "1,1,1"]));
  await cluster.inSync();
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

/** The ended job of an image, by default of its own, worked on by a node with room to build. */
async function made(more: Row = {}, image?: number): Promise<Job> {
  for (;;) {
    const name = `image-${image ?? ++images}`;
    const file = { path: "data", type: "file" as const, content: randomBytes(100_000) };
    if (image === undefined) {
      await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
    }
    const source_image_ref = `oci:${join(dir, name)}:demo`;
    const request = { source_image_ref, writable_layer_size: "64Mi", ...more };
    const job = await cluster.node(0).ended((await cluster.node(0).submit(request)).job_id);
    if (job["worked_by"] !== FULL) return job;
  }
}

const replicasOf = async (job: Job): Promise<Row[]> =>
  cluster.node(0).items(`/v1/templates/${job.template_id}/replicas`);

it(
  "row 65: given three nodes and one that fails, then two are ready and its replica says where",
  { timeout: LONG_MS },
  async () => {
    const job = await made();
    expect(job).toMatchObject({
      ...{ status: "READY", template_status: "PARTIALLY_READY" },
      ...{ expected_node_count: 3, ready_node_count: 2, failed_node_count: 1 },
    });
    const failed = (await replicasOf(job)).filter(({ status }) => status !== "READY");
    expect(failed).toMatchObject([
      {
        ...{ node_id: FULL, status: "FAILED", phase: "FAILED" },
        ...{ last_error_phase: "DISTRIBUTING", cleanup_required: true },
      },
    ]);
    expect(failed[0]?.["error_message"]).toContain(FULL);
    // Row 93: it is never resolved to.
    const asked = { template_id: job.template_id, preferred_node_id: FULL };
    const { body } = await cluster.node(1).ask("POST", "/v1/resolve", asked);
    expect(body["code"]).toBe("template_has_no_ready_replica");
  },
);

it(
  "row 66: given no node that gets it, then the job fails at DISTRIBUTING; a fresh artifact goes, a used one stays",
  { timeout: LONG_MS },
  async () => {
    const lost = { status: "FAILED", phase: "DISTRIBUTING", ready_node_count: 0 };
    const fresh = await made({ distribution_scope: [FULL] });
    expect(fresh).toMatchObject(lost);
    expect(fresh.error_message).toContain(FULL);
    await waitFor("the artifact to go", async () => {
      const found = await cluster.node(0).ask("GET", `/v1/artifacts/${String(fresh.artifact_id)}`);
      return found.status === 404;
    });
    const used = await made({ distribution_scope: ["node-0"] });
    expect(used.status).toBe("READY");
    const again = await made({ distribution_scope: [FULL] }, images);
    expect(again).toMatchObject({ ...lost, artifact_id: used.artifact_id });
    await cluster.node(0).ask("POST", "/v1/gc");
    const kept = await cluster.node(0).get(`/v1/artifacts/${String(used.artifact_id)}`);
    expect(kept["status"]).toBe("READY");
  },
);

it(
  "row 101: given a node that shall have a replica and has none, then its cell is MISSING, and so it is",
  { timeout: LONG_MS },
  async () => {
    const job = await made();
    const elsewhere = await made({ distribution_scope: ["node-0"] });
    await cluster.inSync();
    const matrix = await cluster.node(1).get("/v1/compat");
    const cellsOf = ({ template_id }: Job) => {
      const row = (matrix["templates"] as Row[]).find((one) => one["template_id"] === template_id);
      const cells = (row?.["nodes"] as Row[]).map((one) => [one["node_id"], one["compat_status"]]);
      return { overall: row?.["overall"], ...Object.fromEntries(cells) } as Row;
    };
    const ok = { "node-0": "OK", "node-1": "OK" };
    expect(cellsOf(job)).toEqual({ overall: "MISSING", ...ok, [FULL]: "MISSING" });
    // What it was never meant for it does not miss.
    expect(cellsOf(elsewhere)).toEqual({ overall: "OK", "node-0": "OK" });
  },
);

it("row 115: given a scope, then no other node is resolved to", { timeout: LONG_MS }, async () => {
  const { template_id } = await made();
  for (const node_id of ["node-0", "node-1"]) {
    const asked = { template_id, distribution_scope: [node_id, FULL] };
    const { body } = await cluster.node(0).ask("POST", "/v1/resolve", asked);
    expect(body).toMatchObject({ node_id });
  }
  const asked = { template_id, distribution_scope: [FULL] };
  const { body } = await cluster.node(0).ask("POST", "/v1/resolve", asked);
  expect(body["code"]).toBe("template_has_no_ready_replica");
});
