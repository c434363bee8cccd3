/** Runtime refs over real daemons: each node keeps its own, and any node answers for all. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Row } from "../support/daemon.ts";

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
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const refs = async (index: number): Promise<Row> =>
  cluster.node(index).get(`/v1/snapshots/${templateId}/runtime-refs`);
const usersSeenBy = async (index: number) =>
  ((await refs(index))["items"] as Row[]).map(
    (ref) => `${String(ref["sandbox_id"])}@${String(ref["node_id"])}`,
  );

it(
  "any node knows who runs on a template, and it can't be deleted",
  { timeout: LONG_MS },
  async () => {
    const body = { template_id: templateId, sandbox_id: "sb-driven" };
    expect((await cluster.node(1).ask("POST", "/v1/sandboxes", body)).status).toBe(201);
    const outside = { snapshot_id: templateId, sandbox_id: "sb-outside", node_id: "node-2" };
    expect((await cluster.node(0).ask("POST", "/v1/runtime-refs", outside)).status).toBe(201);
    for (const index of [0, 1, 2]) {
      const users = await usersSeenBy(index);
      expect(users.sort()).toEqual(["sb-driven@node-1", "sb-outside@node-2"]);
    }
    const one = await cluster.node(0).get("/v1/runtime-refs?sandbox_id=sb-outside");
    expect(one).toMatchObject({ node_id: "node-2", source: "runtime", status: "ACTIVE" });
    await cluster.inSync();
    const refused = await cluster.node(0).ask("DELETE", `/v1/templates/${templateId}`);
    expect(refused.body).toMatchObject({ code: "template_in_use" });
  },
);

it(
  "refs of both kinds are over a restart, and another runtime's list frees only its own",
  {
    timeout: LONG_MS,
  },
  async () => {
    await cluster.node(2).kill();
    await cluster.node(2).start();
    await cluster.until(2, "its cluster", (state) => state.clustered && state.quorum.available);
    expect(await usersSeenBy(2)).toContain("sb-outside@node-2");
    const observed = { observed: [] };
    for (const index of [1, 2]) {
      const path = "/v1/nodes/self/runtime-refs";
      expect((await cluster.node(index).ask("PUT", path, observed)).status).toBe(204);
    }
    expect(await usersSeenBy(0)).toEqual(["sb-driven@node-1"]);
  },
);

it(
  "names the node that does not answer, whose refs go when it is removed",
  {
    timeout: LONG_MS,
  },
  async () => {
    await cluster.node(1).kill();
    const found = await refs(0);
    expect(found["unanswered"]).toMatchObject([{ node_id: "node-1" }]);
    const inUse = await cluster.node(0).ask("DELETE", `/v1/templates/${templateId}`);
    expect(inUse.body).toMatchObject({ code: "template_in_use" });
    const removed = await cluster.node(0).ask("DELETE", "/v1/nodes/node-1");
    expect(removed.status).toBeLessThan(300);
    await waitFor(
      "the template to be deleted",
      async () => (await cluster.node(0).ask("DELETE", `/v1/templates/${templateId}`)).status < 300,
      60_000,
    );
    expect(await refs(2).catch((error: unknown) => String(error))).toContain("template_not_found");
  },
);
