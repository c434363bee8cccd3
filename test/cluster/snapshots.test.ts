/** Snapshots in a cluster: asked for at any node, done at the sandbox's, known at all. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Answer, type Row } from "../support/daemon.ts";

const LONG_MS = 120_000;
let dir: string;
let cluster: TestCluster;
let templateId: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(100_000) };
  await assembleOciLayout(join(dir, "small"), { layers: [{ entries: [file] }], tag: "demo" });
  cluster = await TestCluster.make(3, ["--session-term", "3"]);
  const job = await cluster.node(0).submit({
    source_image_ref: `oci:${join(dir, "small")}:demo`,
    writable_layer_size: "64Mi",
  });
  templateId = job.template_id;
  expect(await cluster.node(0).ended(job.job_id)).toMatchObject({ status: "READY" });
  await cluster.inSync();
  const body = { template_id: templateId, sandbox_id: "sb-1" };
  expect((await cluster.node(1).ask("POST", "/v1/sandboxes", body)).status).toBe(201);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const create = (index: number, body: Row = {}): Promise<Answer> =>
  cluster.node(index).ask("POST", "/v1/sandboxes/sb-1/snapshots", body);
const idOf = ({ body }: Answer) => String(body["snapshot_id"]);

it(
  "any node takes a snapshot of a sandbox of any other, and shows it",
  async () => {
    const made = await create(0, { display_name: "far" });
    expect(made).toMatchObject({ status: 201, body: { status: "READY", sandbox_id: "sb-1" } });
    await cluster.inSync();
    for (const index of [0, 1, 2]) {
      const [found] = await cluster.node(index).items("/v1/snapshots?sandbox_id=sb-1&name=FAR");
      expect(found).toMatchObject({ snapshot_id: idOf(made), origin_node_id: "node-1" });
      const nodes = await cluster.node(index).items(`/v1/snapshots/${idOf(made)}/nodes`);
      expect(nodes).toEqual(["node-1"]);
    }
    const elsewhere = { template_id: idOf(made), sandbox_id: "sb-far" };
    const refused = await cluster.node(2).ask("POST", "/v1/sandboxes", elsewhere);
    expect(refused.body).toMatchObject({ code: "template_has_no_ready_replica" });
  },
  LONG_MS,
);

it(
  "row 26: the same request at all nodes at once makes one snapshot",
  async () => {
    const all = await Promise.all([0, 1, 2].map((index) => create(index, { request_id: "same" })));
    expect(new Set(all.map(idOf)).size).toBe(1);
    expect(all.map(({ status }) => status)).toEqual([201, 201, 201]);
    const other = await cluster.node(2).ask("POST", "/v1/sandboxes/sb-1/rollback", {
      snapshot_id: idOf(all[0] as Answer),
      request_id: "same",
    });
    expect(other).toMatchObject({ status: 409, body: { code: "request_id_conflict" } });
  },
  LONG_MS,
);

it(
  "rolls back at any node, and no node deletes what a sandbox runs on",
  async () => {
    const id = idOf(await create(2));
    const rollback = { snapshot_id: id };
    const rolled = await cluster.node(0).ask("POST", "/v1/sandboxes/sb-1/rollback", rollback);
    expect(rolled).toMatchObject({ status: 200, body: { operation: "ROLLBACK", status: "READY" } });
    expect((await cluster.node(1).get("/v1/sandboxes/sb-1"))["snapshot_id"]).toBe(id);
    const refused = await cluster.node(2).ask("DELETE", `/v1/snapshots/${id}`);
    expect(refused).toMatchObject({ status: 409, body: { code: "snapshot_in_use" } });
    expect(String(refused.body["detail"])).toContain("active runtime ref of sb-1@node-1");
    // A template that is still needed by its snapshots' files may go: its artifact stays.
    expect((await cluster.node(0).get(`/v1/snapshots/${id}`))["status"]).toBe("READY");
  },
  LONG_MS,
);

it(
  "of two that delete it at once one wins, and its files go from the node",
  async () => {
    const id = idOf(await create(0));
    const path = `/v1/snapshots/${id}`;
    const answers = await Promise.all(
      [0, 2].map((index) => cluster.node(index).ask("DELETE", path)),
    );
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses[0]).toBe(200);
    expect([200, 404, 409]).toContain(statuses[1]);
    await cluster.inSync();
    for (const index of [0, 1, 2]) {
      expect((await cluster.node(index).ask("GET", path)).status).toBe(404);
    }
    await waitFor("its files to go", async () => {
      return !(await cluster.node(1).names("templates")).includes(id);
    });
  },
  LONG_MS,
);

it(
  "says that nobody has a sandbox, or who did not answer",
  async () => {
    const missing = await cluster.node(0).ask("POST", "/v1/sandboxes/sb-none/snapshots", {});
    expect(missing).toMatchObject({ status: 404, body: { code: "sandbox_not_found" } });
  },
  LONG_MS,
);
