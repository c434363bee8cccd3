/** Compat over real daemons and guests: rows 94, 95 and 97 to 102 of spec §11. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { TestCluster } from "../support/cluster.ts";
import { waitFor, type Row } from "../support/daemon.ts";
import { TestGuestDir, type GuestVersions } from "../support/guest-versions.ts";

const LONG_MS = 300_000;
const NAMES = ["node-0", "node-1", "node-2"];
let dir: string;
let image: string;
let guests: TestGuestDir[];
let installed: GuestVersions;
let cluster: TestCluster;

interface Cell extends Row {
  readonly node_id: string;
  readonly compat_status: string;
}
interface Line {
  readonly template_id: string;
  readonly overall: string;
  readonly nodes: readonly Cell[];
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-compat-"));
  image = (await assembleDemoImage(join(dir, "image"))).reference;
  guests = NAMES.map((name) => new TestGuestDir(join(dir, name)));
  installed = guest(0).versions;
  cluster = await TestCluster.make(3, (index) => [
    ...["--driver", "qemu", "--guest-dir", guest(index).dir, "--session-term", "3"],
  ]);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const guest = (index: number): TestGuestDir => guests[index] as TestGuestDir;
const versions = (): GuestVersions => ({
  guest_image_version: installed.guest_image_version,
  agent_version: installed.agent_version,
  kernel_version: installed.kernel_version,
});

async function make(name: string, status: string): Promise<string> {
  const { job_id } = await cluster.node(0).submit({
    source_image_ref: image,
    writable_layer_size: "64Mi",
    display_name: name,
    exposed_ports: [8080],
    container_overrides: {
      resources: { cpu: "1000m", mem: "128Mi" },
      probe: { port: 8080, path: "/health", timeout_ms: 120_000 },
    },
  });
  const job = await cluster.node(0).ended(job_id, LONG_MS);
  expect(job).toMatchObject({ status: "READY" });
  await waitFor(
    `${name} to be ${status} on every node`,
    async () => {
      const seen = await Promise.all(
        cluster.nodes.map((node) => node.ask("GET", `/v1/templates/${job.template_id}`)),
      );
      return seen.every(({ body }) => body["status"] === status);
    },
    LONG_MS,
  );
  return job.template_id;
}

async function rescan(body: Row = { all_nodes: true }): Promise<Row[]> {
  const answer = await cluster.node(0).ask("POST", "/v1/compat/rescan", body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body["nodes"] as Row[];
}
const line = async (index: number, template: string): Promise<Line | undefined> => {
  const matrix = await cluster.node(index).get("/v1/compat");
  return (matrix["templates"] as Line[]).find((one) => one.template_id === template);
};
/** What a node sees of a template, once it is so. */
const sees = (index: number, template: string, statuses: string) =>
  waitFor(
    `node ${index} to see ${statuses}`,
    async () => {
      const one = await line(index, template);
      const seen = one?.nodes.map((cell) => cell.compat_status).join(" ");
      return seen === statuses ? one : undefined;
    },
    60_000,
  );
const resolve = (index: number, body: Row) => cluster.node(index).ask("POST", "/v1/resolve", body);

describe("an upgrade", () => {
  let template: string;
  beforeAll(async () => {
    template = await make("web", "READY");
    for (const index of [0, 1, 2]) await sees(index, template, "OK OK OK");
  }, LONG_MS);
  beforeEach(async () => {
    guests.forEach((one) => one.set(versions()));
    await rescan();
    await sees(0, template, "OK OK OK");
  }, LONG_MS);

  it("is previewed: what a new guest image would break, and that a kernel breaks nothing", async () => {
    const asked = ["compat", "preview", "--guest-image", "9.0", "--json"];
    const { code, stdout } = await cluster.node(1).cli(asked);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      summary: { templates: 1, replicas: 3, nodes: 3, unusable_templates: 1 },
      templates: [{ template_id: template, nodes: NAMES, is_unusable: true }],
    });
    const kernel = await cluster.node(1).get("/v1/compat/preview?kernel=9.0");
    expect(kernel).toMatchObject({ summary: { replicas: 0 } });
    expect((await cluster.node(1).ask("GET", "/v1/compat/preview")).status).toBe(400);
  });

  it(
    "row 94: given a replica that is stale live, then nothing starts from it; the others serve",
    { timeout: LONG_MS },
    async () => {
      guest(1).set({ guest_image_version: "9.0" });
      expect(await rescan({ node_ids: ["node-1"] })).toMatchObject([{ changed: 1, stale: 1 }]);
      const seen = await sees(2, template, "OK STALE OK");
      expect(seen.overall).toBe("STALE");
      expect(seen.nodes[1]).toMatchObject({
        bound_guest_image_version: installed.guest_image_version,
        current_guest_image_version: "9.0",
        deltas: [{ component: "guest_image", is_stale: true }],
      });
      expect((await cluster.node(2).get("/v1/compat"))["summary"]).toEqual({
        stale_templates: 1,
        stale_replicas: 1,
        affected_nodes: 1,
        missing_replicas: 0,
        unknown_replicas: 0,
      });
      await sees(1, template, "OK STALE OK");
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
      guests.forEach((one) => one.set({ agent_version: "9.0" }));
      await rescan();
      await sees(2, template, "STALE STALE STALE");
      const refusal = await resolve(2, { template_id: template });
      expect(refusal).toMatchObject({
        status: 409,
        body: {
          code: "template_stale_needs_redo",
          detail: `template ${template} is stale on nodes [${NAMES.join(", ")}] and needs redo`,
        },
      });
      const run = await cluster.node(2).ask("POST", "/v1/sandboxes", { template_id: template });
      expect(run).toMatchObject({ status: 409, body: { code: "template_stale_needs_redo" } });
      expect((await cluster.node(2).cli(["compat", "matrix"])).stdout).toContain(
        "stale_replicas: 3\n",
      );
    },
  );

  it("row 97: given another kernel, then OK; it is shown", { timeout: LONG_MS }, async () => {
    guest(0).set({ kernel_version: "9.0" });
    await rescan();
    const seen = await waitFor("the kernel to be known", async () => {
      const one = await line(1, template);
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
      guest(2).set({ agent_version: "9.0" });
      await sees(0, template, "OK OK STALE");
      const stored = await waitFor("the scan", async () => {
        const replicas = await cluster.node(0).items(`/v1/templates/${template}/replicas`);
        const one = replicas.find((replica) => replica["node_id"] === "node-2");
        return one?.["compat_status"] === "STALE" ? one : undefined;
      });
      expect(Number(stored["compat_checked_unix"])).toBeGreaterThan(0);
      guest(0).set({ agent_version: "Unknown" });
      await rescan({ node_ids: ["node-0"] });
      const seen = await cluster.node(0).items(`/v1/templates/${template}/replicas`);
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
      guest(1).set({ guest_image_version: "9.0" });
      await rescan();
      await sees(0, template, "OK STALE OK");
      await cluster.node(1).kill();
      await cluster.node(2).kill();
      await sees(0, template, "OK STALE UNKNOWN");
      await cluster.node(1).start();
      await cluster.node(2).start();
      await cluster.inSync([0, 1, 2], 60_000);
      await sees(0, template, "OK STALE OK");
    },
  );

  it("row 102: given no ids and all_nodes=false, then invalid_request", async () => {
    const answer = await cluster.node(0).ask("POST", "/v1/compat/rescan", {});
    expect(answer).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    const unknown = await cluster.node(0).ask("POST", "/v1/compat/rescan", { node_ids: ["x"] });
    expect(unknown).toMatchObject({ status: 404, body: { code: "node_not_found" } });
  });
});

it(
  "rows 100 and 101: replicas of unknown versions adopt those of now, stale ones never; a node without one is MISSING",
  { timeout: LONG_MS },
  async () => {
    guests.forEach((one) => one.set({ ...versions(), agent_version: "unknown" }));
    await rescan();
    guest(2).hide();
    const template = await make("legacy", "PARTIALLY_READY");
    const before = await sees(1, template, "UNKNOWN UNKNOWN MISSING");
    expect(before.overall).toBe("UNKNOWN");
    guest(2).show();
    guest(0).set({ ...versions(), guest_image_version: "9.0" });
    guest(1).set(versions());
    await rescan({ node_ids: ["node-0", "node-1"] });
    await sees(0, template, "STALE UNKNOWN MISSING");
    const adopt = () => cluster.node(0).ask("POST", `/v1/templates/legacy/compat/adopt`);
    expect(await adopt()).toMatchObject({
      status: 200,
      body: { template_id: template, updated: 1, nodes: ["node-1"] },
    });
    await sees(2, template, "STALE OK MISSING");
    expect((await adopt()).body).toMatchObject({ updated: 0 });
    guest(0).set(versions());
    await rescan({ node_ids: ["node-0"] });
    expect((await adopt()).body).toMatchObject({ updated: 1, nodes: ["node-0"] });
    const after = await sees(2, template, "OK OK MISSING");
    expect(after.overall).toBe("MISSING");
    const gone = await cluster.node(0).ask("POST", "/v1/templates/none/compat/adopt");
    expect(gone).toMatchObject({ status: 404, body: { code: "template_not_found" } });
  },
);
