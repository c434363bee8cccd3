/** Stale replicas made again by themselves, over real daemons and guests. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { CompatCluster, LONG_MS } from "../support/compat-cluster.ts";
import { waitFor, type Job, type Row } from "../support/daemon.ts";

const PAUSE_MS = 1_000;
let compat: CompatCluster;
let template: string;

beforeAll(async () => {
  compat = await CompatCluster.make(3, ["--resnapshot-interval", `${PAUSE_MS}ms`]);
  template = await compat.template("web", "READY");
}, LONG_MS);
afterAll(() => compat.remove(), LONG_MS);

const state = () => compat.cluster.node(0).get("/v1/compat/resnapshot");
const until = (what: string, holds: (view: Row) => boolean) =>
  waitFor(
    what,
    async () => {
      const view = await state();
      return holds(view) ? view : undefined;
    },
    LONG_MS,
  );
/** Redo jobs, oldest first. */
const redos = async (): Promise<Job[]> =>
  ((await compat.cluster.node(0).items("/v1/jobs?limit=100")) as Job[])
    .filter((job) => job["operation"] === "REDO")
    .sort((a, b) => (String(a["created_at"]) < String(b["created_at"]) ? -1 : 1));
const drain = async (index: number, drained: boolean) => {
  const answer = await compat.cluster
    .node(0)
    .ask("POST", `/v1/nodes/node-${index}/drain`, { drained });
  expect(answer.status).toBe(204);
};

it(
  "one node at a time with a pause between two, stops at the first failure, and goes on when it is resumed",
  { timeout: LONG_MS },
  async () => {
    expect(await state()).toMatchObject({ state: "idle", pending: 0 });
    await drain(1, true);
    await drain(2, true);
    compat.guests.forEach((guest) => guest.set({ guest_image_version: "9.0" }));
    await compat.rescan();
    await until("the node that is not drained", (view) => view["done"] === 1);
    const first = await compat.sees(0, template, "OK STALE STALE");
    expect(first.nodes[0]).toMatchObject({ bound_guest_image_version: "9.0" });

    compat.guest(1).hide();
    await drain(1, false);
    const stopped = await until("it to stop", (view) => view["state"] === "stopped");
    expect(stopped).toMatchObject({
      failure: { template_id: template, node_id: "node-1" },
      done: 1,
      failed: 1,
    });
    expect(String((stopped["failure"] as Row)["error"])).toContain("guest");
    // What was tried and failed changes nothing of what serves.
    const kept = await compat.sees(0, template, "OK STALE STALE");
    const { guest_image_version } = compat.installed;
    expect(kept.nodes[1]).toMatchObject({ bound_guest_image_version: guest_image_version });

    await drain(2, false);
    await until("the last node to wait", (view) => view["pending"] === 2);
    expect(await state()).toMatchObject({ state: "stopped" });
    compat.guest(1).show();
    const resumedAt = Date.now();
    const { code, stdout } = await compat.cluster
      .node(2)
      .cli(["compat", "resnapshot", "--resume", "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ failed: 1 });
    await until("the rest to be made again", (view) => view["done"] === 3);
    for (const index of [0, 1, 2]) await compat.sees(index, template, "OK OK OK");

    const jobs = await redos();
    // What failed comes after what has not been tried, and nothing began before it was resumed.
    const scopes = [["node-0"], ["node-1"], ["node-2"], ["node-1"]];
    expect(jobs.map((job) => job["redo_scope"])).toEqual(scopes);
    const [done, failed, ...rest] = jobs.map((job) => ({
      status: job.status,
      memory_only: job["memory_only"],
      begun: Date.parse(String(job["created_at"])),
      ended: Date.parse(String(job["ended_at"])),
    }));
    expect([done, failed, ...rest]).toMatchObject(
      ["READY", "FAILED", "READY", "READY"].map((status) => ({ status, memory_only: true })),
    );
    expect(failed!.begun - done!.ended).toBeGreaterThanOrEqual(PAUSE_MS);
    expect(rest[0]!.begun).toBeGreaterThanOrEqual(resumedAt);
    expect(rest[1]!.begun - rest[0]!.ended).toBeGreaterThanOrEqual(PAUSE_MS);
    await until("nothing to be left", (view) => view["state"] === "idle" && view["pending"] === 0);
  },
);
