/** The leader of a job is killed, stopped or cut off in each phase; another ends the same job. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { isActive, waitFor, type Job } from "../support/daemon.ts";

const LONG_MS = 180_000;
let dir: string;
let cluster: TestCluster;
let images = 0;

/** An image that nobody has built yet: a build of a second or so. */
async function freshImage(): Promise<string> {
  const name = `image-${++images}`;
  const content = randomBytes(24_000_000);
  const file = { path: "data", type: "file" as const, content };
  await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
  return `oci:${join(dir, name)}:demo`;
}

const submit = async (index: number): Promise<Job> =>
  cluster.node(index).submit({
    source_image_ref: await freshImage(),
    writable_layer_size: "64Mi",
  });

const workerOf = (job: Job): number => Number(String(job["worked_by"]).replace("node-", ""));

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-takeover-"));
  cluster = await TestCluster.make(3, ["--session-term", "1.5"]);
  await cluster.until(0, "three voters", (state) => state.quorum.voters.length === 3, 60_000);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

/**
 * The job when its leader is in `phase` or past it, and it is still active; or when it has ended.
 */
const reaches = (job: Job, phase: string) =>
  waitFor(`the leader to reach ${phase}`, async () => {
    for (const node of cluster.nodes) {
      const found = await node.job(job.job_id).catch(() => undefined);
      if (found === undefined || found["worked_by"] === undefined) continue;
      const phases = found["phases"] as { phase: string }[];
      if (!isActive(found) || phases.some((entered) => entered.phase === phase)) return found;
    }
    return undefined;
  });

/** True when another node ended the job; false when the leader had done so before it was killed. */
async function killLeaderIn(phase: string): Promise<boolean> {
  const job = await submit(0);
  const found = await reaches(job, phase);
  const leader = workerOf(found);
  await cluster.node(leader).kill();
  const witness = (leader + 1) % 3;
  const ended = await cluster.node(witness).ended(job.job_id, 60_000);
  expect(ended, ended.error_message).toMatchObject({ status: "READY" });
  await cluster.node(leader).start();
  await cluster.inSync();
  await waitFor("the one that was killed to hold it too", async () => {
    const replicas = await cluster.node(witness).items(`/v1/templates/${job.template_id}/replicas`);
    return replicas.filter((replica) => replica["status"] === "READY").length === 3;
  });
  return ended["worked_by"] !== found["worked_by"];
}

const PHASES = ["PULLING", "UNPACKING", "BUILDING_EXT4", "DISTRIBUTING", "SNAPSHOTTING"] as const;

describe("a job whose leader goes in the middle", { timeout: LONG_MS }, () => {
  it.each(PHASES)("is ended by another when the leader is killed in %s", async (phase) => {
    // The leader may end the job between being seen in a short phase and being killed: another job.
    let taken = false;
    for (let turn = 0; turn < 4 && !taken; turn++) taken = await killLeaderIn(phase);
    // The last one is over in milliseconds on a fast machine; that the job ended well is checked.
    expect(taken || phase === "SNAPSHOTTING").toBe(true);
  });

  it("is ended by another when the leader is stopped, and not again when that wakes", async () => {
    const job = await submit(1);
    const found = await reaches(job, "UNPACKING");
    const leader = workerOf(found);
    cluster.node(leader).signal("SIGSTOP");
    const witness = (leader + 1) % 3;
    const ended = await cluster.node(witness).ended(job.job_id, 60_000);
    expect(ended, ended.error_message).toMatchObject({ status: "READY" });
    const { epoch, updated_at } = ended;
    cluster.node(leader).signal("SIGCONT");
    await cluster.inSync();
    const after = await cluster.node(leader).job(job.job_id);
    expect(after).toMatchObject({ status: "READY", epoch, updated_at });
  });

  it("is ended by another when the leader is cut off, which then finds it ended", async () => {
    const job = await submit(2);
    const found = await reaches(job, "UNPACKING");
    const leader = workerOf(found);
    const others = [0, 1, 2].filter((index) => index !== leader);
    cluster.cut([leader], others);
    const [witness = 0] = others;
    const ended = await cluster.node(witness).ended(job.job_id, 60_000);
    expect(ended, ended.error_message).toMatchObject({ status: "READY" });
    cluster.heal([leader], others);
    await cluster.inSync();
    expect(await cluster.node(leader).job(job.job_id)).toMatchObject({ status: "READY" });
  });
});
