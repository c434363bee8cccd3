/** Garbage collection over real daemons: spec §8, rows 85 to 89 of §11, as far as they are ours. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Job, type Row } from "../support/daemon.ts";

const LONG_MS = 180_000;
const ALL = [0, 1, 2];
let dir: string;
let cluster: TestCluster;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  for (const name of ["shared", "other"]) {
    const file = { path: "data", type: "file" as const, content: randomBytes(100_000) };
    await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
  }
  cluster = await TestCluster.make(3, ["--session-term", "3", "--artifact-grace", "1s"]);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const make = async (name: string, request: Row = {}): Promise<Job> => {
  const source_image_ref = `oci:${join(dir, name)}:demo`;
  const asked = { source_image_ref, writable_layer_size: "64Mi", ...request };
  const { job_id } = await cluster.node(0).submit(asked);
  const job = await cluster.node(0).ended(job_id);
  expect(job).toMatchObject({ status: "READY" });
  await everyHolder(ALL, 1);
  return job;
};
const everyHolder = (indexes: readonly number[], count: number) =>
  waitFor(
    `${count} artifacts on the disks of ${indexes.join(", ")}`,
    async () => {
      const held = await Promise.all(
        indexes.map((index) => cluster.node(index).names("artifacts/sha256")),
      );
      return held.every((names) => names.length === count);
    },
    60_000,
  );
const remove = async (job: Job) => {
  const answer = await cluster.node(1).ask("DELETE", `/v1/templates/${job.template_id}`);
  expect(answer.status, JSON.stringify(answer.body)).toBeLessThan(300);
};
const record = async (index: number, job: Job) => {
  const path = `/v1/artifacts/${String(job.artifact_id)}`;
  const { status, body } = await cluster.node(index).ask("GET", path);
  return status === 404 ? "gone" : String(body["status"]);
};

it(
  "row 86: given a shared artifact, when one template is deleted, then it is kept; with the last one its files go on all nodes, then its record",
  { timeout: LONG_MS },
  async () => {
    const [first, second] = [await make("shared"), await make("shared")];
    expect(second.artifact_id).toBe(first.artifact_id);
    await cluster.inSync();
    await remove(first);
    await waitFor("the first to go", async () => {
      const { status } = await cluster
        .node(2)
        .ask("GET", `/v1/templates/${first.template_id}/replicas`);
      return status === 404;
    });
    expect(await record(0, second)).toBe("READY");
    for (const index of ALL) {
      expect(await cluster.node(index).names("artifacts/sha256")).toHaveLength(1);
    }
    await remove(second);
    await everyHolder(ALL, 0);
    for (const index of ALL) {
      await waitFor("the record to go", async () => (await record(index, second)) === "gone");
    }
  },
);

it(
  "a node that was down removes its copy when it returns; the record waits for that",
  { timeout: LONG_MS },
  async () => {
    const job = await make("other");
    await cluster.inSync();
    await cluster.node(2).kill();
    await waitFor(
      "the template to be deleted",
      async () =>
        (await cluster.node(1).ask("DELETE", `/v1/templates/${job.template_id}`)).status < 300,
      60_000,
    );
    await everyHolder([0, 1], 0);
    expect(await record(0, job)).toBe("CLEANUP_PENDING");
    const why = await waitFor("only one copy to be left", async () => {
      const answer = await cluster.node(1).get(`/v1/artifacts/${String(job.artifact_id)}/why`);
      return (answer["nodes"] as Row[]).length === 1 ? answer : undefined;
    });
    expect(why).toMatchObject({
      why: "waits for node-2 to remove its copy",
      references: [],
      nodes: [{ node_id: "node-2", holding: "complete", replicas: [job.template_id] }],
    });
    expect(await cluster.node(2).names("artifacts/sha256")).toHaveLength(1);
    await cluster.node(2).start();
    await everyHolder([2], 0);
    for (const index of ALL) {
      await waitFor("the record to go", async () => (await record(index, job)) === "gone", 60_000);
    }
  },
);
