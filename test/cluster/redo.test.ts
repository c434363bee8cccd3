/** Redo over three real daemons (spec §4.1 to §4.3). */
import { randomBytes } from "node:crypto";
import { mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Job, type Row } from "../support/daemon.ts";

const LONG_MS = 240_000;
let dir: string;
let cluster: TestCluster;
let template: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(200_000) };
  await assembleOciLayout(join(dir, "small"), { layers: [{ entries: [file] }], tag: "demo" });
  cluster = await TestCluster.make(3, ["--session-term", "3"]);
  const source_image_ref = `oci:${join(dir, "small")}:demo`;
  const made = await cluster.node(0).submit({ source_image_ref, writable_layer_size: "64Mi" });
  expect(await cluster.node(0).ended(made.job_id)).toMatchObject({ status: "READY" });
  template = made.template_id;
  // From here on nothing can be built: a redo that succeeds has kept the root filesystem.
  await rm(join(dir, "small"), { recursive: true, force: true });
  await cluster.inSync();
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const redo = (index: number, body: Row = {}) =>
  cluster.node(index).ask("POST", `/v1/templates/${template}/redo`, body);
const redone = async (index: number, body: Row = {}): Promise<Job> => {
  const { status, body: job } = await redo(index, body);
  expect(status, JSON.stringify(job)).toBe(202);
  return cluster.node(index).ended(String(job["job_id"]), 120_000);
};
const replicas = async (index = 0) => {
  const items = await cluster.node(index).items(`/v1/templates/${template}/replicas`);
  return new Map(items.map((one) => [String(one["node_id"]), one]));
};
const generations = async () =>
  [...(await replicas()).values()].map((one) => Number(one["generation"]));
const folders = (index: number) => cluster.node(index).names("templates");

it(
  "NODES makes the replica of that node anew from the root filesystem that it has, and no other",
  { timeout: LONG_MS },
  async () => {
    const job = await redone(1, { distribution_scope: ["node-2"] });
    expect(job).toMatchObject({
      status: "READY",
      operation: "REDO",
      redo_mode: "NODES",
      redo_scope: ["node-2"],
      resume_phase: "SNAPSHOTTING",
      attempt_no: 2,
      expected_node_count: 1,
      ready_node_count: 1,
      template_status: "READY",
    });
    const phases = (job["phases"] as Row[]).map((one) => one["phase"]);
    expect(phases).toEqual(["SNAPSHOTTING", "REGISTERING", "READY"]);
    await cluster.inSync();
    expect(await generations()).toEqual([1, 1, 2]);
    expect(await folders(2)).toEqual([`${template}.g2`]);
    expect(await folders(1)).toEqual([`${template}.g1`]);
  },
);

it(
  "ALL leaves running sandboxes what they run on, until they are gone",
  { timeout: LONG_MS },
  async () => {
    const body = { template_id: template, sandbox_id: "sb-old" };
    expect((await cluster.node(0).ask("POST", "/v1/sandboxes", body)).body).toMatchObject({
      generation: 1,
    });
    expect(await redone(0, { memory_only: true })).toMatchObject({
      status: "READY",
      redo_mode: "ALL",
      ready_node_count: 3,
    });
    await cluster.inSync();
    expect(await generations()).toEqual([3, 3, 3]);
    expect(await folders(0)).toEqual([`${template}.g1`, `${template}.g3`]);
    // Also over a restart.
    await cluster.node(0).kill();
    await cluster.node(0).start();
    await cluster.inSync();
    expect(await folders(0)).toEqual([`${template}.g1`, `${template}.g3`]);
    const young = { template_id: template, sandbox_id: "sb-new" };
    expect((await cluster.node(0).ask("POST", "/v1/sandboxes", young)).body).toMatchObject({
      generation: 3,
    });
    for (const id of ["sb-old", "sb-new"])
      await cluster.node(0).ask("DELETE", `/v1/sandboxes/${id}`);
    await waitFor("the old one to go", async () => (await folders(0)).length === 1, 60_000);
    expect(await folders(0)).toEqual([`${template}.g3`]);
  },
);

it(
  "what is asked wrongly, or for nothing, is refused before anything is done",
  { timeout: LONG_MS },
  async () => {
    expect((await redo(0, { failed_only: true })).body).toMatchObject({
      code: "no_failed_template_replicas",
    });
    const unknown = await redo(0, { distribution_scope: ["zz", "node-1", "aa"] });
    expect(unknown.body).toMatchObject({
      code: "invalid_request",
      detail: "target nodes are not healthy or not found: aa,zz",
    });
    expect((await redo(0, { redo_mode: "NODES" })).status).toBe(400);
    const none = await cluster.node(0).ask("POST", "/v1/templates/tpl-none/redo", {});
    expect(none.body).toMatchObject({ code: "template_not_found" });
    expect(await generations()).toEqual([3, 3, 3]);
    const { code, stdout } = await cluster
      .node(0)
      .cli(["tpl", "redo", template, "--node", "node-1", "--wait", "--json"]);
    expect(code, stdout).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ status: "READY", redo_mode: "NODES" });
  },
);

it(
  "a redo that fails leaves what was there: it serves on, and is redone when the cause is mended",
  { timeout: LONG_MS },
  async () => {
    await cluster.inSync();
    const before = await generations();
    // The root filesystem is damaged on every disk: nobody can give it.
    const good = await superblock(0, randomBytes(1_024));
    for (const index of [1, 2]) await superblock(index, randomBytes(1_024));
    const job = await redone(0, { memory_only: true });
    expect(job).toMatchObject({
      status: "FAILED",
      phase: "SNAPSHOTTING",
      error_code: "redo_not_allowed",
      template_status: "READY",
    });
    expect(job.error_message).toContain("only its memory was to be made anew");
    await waitFor("every node to say so", async () =>
      [...(await replicas()).values()].every((one) => (one["redo"] as Row)["phase"] === "FAILED"),
    );
    expect(await generations()).toEqual(before);
    const resolved = await cluster.node(1).ask("POST", "/v1/resolve", { template_id: template });
    expect(resolved.status, JSON.stringify(resolved.body)).toBe(200);
    // One copy comes back: the others are mended from it.
    await cluster.node(0).stop();
    await superblock(0, good);
    await cluster.node(0).start();
    await cluster.inSync();
    expect(await redone(2, { failed_only: true })).toMatchObject({
      status: "READY",
      redo_mode: "FAILED_ONLY",
      ready_node_count: 3,
      template_status: "READY",
    });
    for (const index of [1, 2]) expect(await superblock(index)).toEqual(good);
  },
);

async function rootfsOf(index: number): Promise<string> {
  const root = join(cluster.node(index).dataDir, "artifacts/sha256");
  const [name = ""] = await readdir(root);
  return join(root, name, "rootfs.ext4");
}

/** Some bytes of its first chunk; `change` puts others in their place. */
async function superblock(index: number, change?: Buffer): Promise<Buffer> {
  const file = await open(await rootfsOf(index), "r+");
  try {
    const bytes = Buffer.alloc(1_024);
    await file.read(bytes, 0, bytes.length, 1_024);
    if (change !== undefined) await file.write(change, 0, change.length, 1_024);
    return bytes;
  } finally {
    await file.close();
  }
}

it("delete against redo: one of them wins as a whole", { timeout: LONG_MS }, async () => {
  await cluster.inSync();
  const asked = [redo(1), cluster.node(2).ask("DELETE", `/v1/templates/${template}`)];
  const [again, removal] = await Promise.all(asked);
  if (removal?.status === 200) {
    expect(again?.status).not.toBe(202);
    expect((await cluster.node(2).ask("GET", `/v1/templates/${template}`)).status).toBe(404);
  } else {
    expect(removal?.body).toMatchObject({ code: "template_attempt_in_progress" });
    expect(await cluster.node(1).ended(String(again?.body["job_id"]))).toMatchObject({
      status: "READY",
    });
  }
});
