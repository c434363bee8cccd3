/** Compat over real daemons and guests: rows 94, 95 and 97 to 102 of spec §11. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CompatCluster, LONG_MS } from "../support/compat-cluster.ts";
import { waitFor, type Row } from "../support/daemon.ts";
import type { GuestVersions } from "../support/guest-versions.ts";

const NAMES = ["node-0", "node-1", "node-2"];
let compat: CompatCluster;

beforeAll(async () => {
  compat = await CompatCluster.make(3);
}, LONG_MS);
afterAll(() => compat.remove(), LONG_MS);

const node = (index: number) => compat.cluster.node(index);
const resolve = (index: number, body: Row) => node(index).ask("POST", "/v1/resolve", body);
const versions = (): GuestVersions => ({
  guest_image_version: compat.installed.guest_image_version,
  agent_version: compat.installed.agent_version,
  kernel_version: compat.installed.kernel_version,
});

describe("an upgrade", () => {
  let template: string;
  beforeAll(async () => {
    template = await compat.template("web", "READY");
    for (const index of [0, 1, 2]) await compat.sees(index, template, "OK OK OK");
  }, LONG_MS);
  beforeEach(async () => {
    compat.guests.forEach((one) => one.set(versions()));
    await compat.rescan();
    await compat.sees(0, template, "OK OK OK");
  }, LONG_MS);

  it("is previewed: what a new guest image would break, and that a kernel breaks nothing", async () => {
    const asked = ["compat", "preview", "--guest-image", "9.0", "--json"];
    const { code, stdout } = await node(1).cli(asked);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      summary: { templates: 1, replicas: 3, nodes: 3, unusable_templates: 1 },
      templates: [{ template_id: template, nodes: NAMES, is_unusable: true }],
    });
    const kernel = await node(1).get("/v1/compat/preview?kernel=9.0");
    expect(kernel).toMatchObject({ summary: { replicas: 0 } });
    expect((await node(1).ask("GET", "/v1/compat/preview")).status).toBe(400);
  });

  it(
    "row 94: given a replica that is stale live, then nothing starts from it; the others serve",
    { timeout: LONG_MS },
    async () => {
      compat.guest(1).set({ guest_image_version: "9.0" });
      expect(await compat.rescan({ node_ids: ["node-1"] })).toMatchObject([
        { changed: 1, stale: 1 },
      ]);
      const seen = await compat.sees(2, template, "OK STALE OK");
      expect(seen.overall).toBe("STALE");
      expect(seen.nodes[1]).toMatchObject({
        bound_guest_image_version: compat.installed.guest_image_version,
        current_guest_image_version: "9.0",
        deltas: [{ component: "guest_image", is_stale: true }],
      });
      expect((await node(2).get("/v1/compat"))["summary"]).toEqual({
        stale_templates: 1,
        stale_replicas: 1,
        affected_nodes: 1,
        missing_replicas: 0,
        unknown_replicas: 0,
      });
      await compat.sees(1, template, "OK STALE OK");
      const elsewhere = await resolve(1, { template_id: template });
      expect(elsewhere.body["node_id"]).toMatch(/node-[02]/);
      const here = await resolve(1, { template_id: template, preferred_node_id: "node-1" });
      expect(here.body["code"]).toBe("template_has_no_ready_replica");
    },
  );

  it(
    "row 95: given all replicas stale, then it is refused with the nodes sorted",
    { timeout: LONG_MS },
    async () => {
      compat.guests.forEach((one) => one.set({ agent_version: "9.0" }));
      await compat.rescan();
      await compat.sees(2, template, "STALE STALE STALE");
      const refusal = await resolve(2, { template_id: template });
      expect(refusal).toMatchObject({
        status: 409,
        body: {
          code: "template_stale_needs_redo",
          detail: `template ${template} is stale on nodes [${NAMES.join(", ")}] and needs redo`,
        },
      });
      const run = await node(2).ask("POST", "/v1/sandboxes", { template_id: template });
      expect(run).toMatchObject({ status: 409, body: { code: "template_stale_needs_redo" } });
      expect((await node(2).cli(["compat", "matrix"])).stdout).toContain("stale_replicas: 3\n");
    },
  );

  it(
    "row 97: given a missing agent, then UNKNOWN; given another guest image besides, then STALE",
    { timeout: LONG_MS },
    async () => {
      compat.guest(1).set({ agent_version: "unknown" });
      await compat.rescan({ node_ids: ["node-1"] });
      await compat.sees(0, template, "OK UNKNOWN OK");
      compat.guest(1).set({ guest_image_version: "9.0" });
      await compat.rescan({ node_ids: ["node-1"] });
      await compat.sees(0, template, "OK STALE OK");
    },
  );

  it("row 97: given another kernel, then OK; it is shown", { timeout: LONG_MS }, async () => {
    compat.guest(0).set({ kernel_version: "9.0" });
    await compat.rescan();
    const seen = await waitFor("the kernel to be known", async () => {
      const one = await compat.line(1, template);
      return one?.nodes[0]?.["current_kernel_version"] === "9.0" ? one : undefined;
    });
    expect(seen.nodes[0]).toMatchObject({
      compat_status: "OK",
      deltas: [{ component: "kernel", current: "9.0", is_stale: false }],
    });
  });

  it(
    "is noticed without being asked; row 98: given the version Unknown, then it is as missing",
    { timeout: LONG_MS },
    async () => {
      compat.guest(2).set({ agent_version: "9.0" });
      await compat.sees(0, template, "OK OK STALE");
      const stored = await waitFor("the scan", async () => {
        const replicas = await node(0).items(`/v1/templates/${template}/replicas`);
        const one = replicas.find((replica) => replica["node_id"] === "node-2");
        return one?.["compat_status"] === "STALE" ? one : undefined;
      });
      expect(Number(stored["compat_checked_unix"])).toBeGreaterThan(0);
      compat.guest(0).set({ agent_version: "Unknown" });
      await compat.rescan({ node_ids: ["node-0"] });
      const seen = await node(0).items(`/v1/templates/${template}/replicas`);
      const own = seen.find((replica) => replica["node_id"] === "node-0");
      expect(own?.["compat_status"]).toBe("UNKNOWN");
      const started = await resolve(0, { template_id: template, preferred_node_id: "node-0" });
      expect(started).toMatchObject({ status: 200, body: { node_id: "node-0" } });
    },
  );

  it(
    "row 99: given a node that is down, then OK becomes UNKNOWN and STALE stays",
    { timeout: LONG_MS },
    async () => {
      compat.guest(1).set({ guest_image_version: "9.0" });
      await compat.rescan();
      await compat.sees(0, template, "OK STALE OK");
      await node(1).kill();
      await node(2).kill();
      await compat.sees(0, template, "OK STALE UNKNOWN");
      await node(1).start();
      await node(2).start();
      await compat.cluster.inSync([0, 1, 2], 60_000);
      await compat.sees(0, template, "OK STALE OK");
    },
  );

  it("row 102: given no ids and all_nodes=false, then invalid_request", async () => {
    const answer = await node(0).ask("POST", "/v1/compat/rescan", {});
    expect(answer).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    const unknown = await node(0).ask("POST", "/v1/compat/rescan", { node_ids: ["x"] });
    expect(unknown).toMatchObject({ status: 404, body: { code: "node_not_found" } });
  });
});

it(
  "rows 100 and 101: replicas of unknown versions adopt those of now, stale ones never; a node without one is MISSING",
  { timeout: LONG_MS },
  async () => {
    compat.guests.forEach((one) => one.set({ ...versions(), agent_version: "unknown" }));
    await compat.rescan();
    compat.guest(2).hide();
    const template = await compat.template("legacy", "PARTIALLY_READY");
    const before = await compat.sees(1, template, "UNKNOWN UNKNOWN MISSING");
    expect(before.overall).toBe("UNKNOWN");
    compat.guest(2).show();
    compat.guest(0).set({ ...versions(), guest_image_version: "9.0" });
    compat.guest(1).set(versions());
    await compat.rescan({ node_ids: ["node-0", "node-1"] });
    await compat.sees(0, template, "STALE UNKNOWN MISSING");
    const adopt = () => node(0).ask("POST", `/v1/templates/legacy/compat/adopt`);
    expect(await adopt()).toMatchObject({
      status: 200,
      body: { template_id: template, updated: 1, nodes: ["node-1"] },
    });
    await compat.sees(2, template, "STALE OK MISSING");
    expect((await adopt()).body).toMatchObject({ updated: 0 });
    compat.guest(0).set(versions());
    await compat.rescan({ node_ids: ["node-0"] });
    expect((await adopt()).body).toMatchObject({ updated: 1, nodes: ["node-0"] });
    const after = await compat.sees(2, template, "OK OK MISSING");
    expect(after.overall).toBe("MISSING");
    const gone = await node(0).ask("POST", "/v1/templates/none/compat/adopt");
    expect(gone).toMatchObject({ status: 404, body: { code: "template_not_found" } });
  },
);
