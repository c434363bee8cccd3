/** Names that move from template to template, over three real daemons. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import type { Row } from "../support/daemon.ts";

const LONG_MS = 300_000;
let dir: string;
let cluster: TestCluster;
/** In the order of their making. */
const templates: string[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cluster-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(50_000) };
  await assembleOciLayout(join(dir, "image"), { layers: [{ entries: [file] }], tag: "demo" });
  cluster = await TestCluster.make(3, ["--session-term", "3"]);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

async function build(index: number, more: Row): Promise<string> {
  const source_image_ref = `oci:${join(dir, "image")}:demo`;
  const request = { source_image_ref, writable_layer_size: "64Mi", ...more };
  const { job_id } = await cluster.node(index).submit(request);
  const job = await cluster.node(index).ended(job_id);
  expect(job).toMatchObject({ status: "READY" });
  return job.template_id;
}
const resolved = async (index: number, name: string) => {
  const body = { template_id: name };
  return (await cluster.node(index).ask("POST", "/v1/resolve", body)).body["template_id"];
};
const promote = (index: number, template_id: string, expected_template_id: string) =>
  cluster.node(index).ask("PUT", "/v1/tags/prod", { template_id, expected_template_id });

it(
  "a display name moves to the newest build, and goes back with one step",
  { timeout: LONG_MS },
  async () => {
    for (const index of [0, 1]) {
      templates.push(await build(index, { display_name: "web" }));
      await cluster.inSync();
      expect(await resolved(2 - index, "web")).toBe(templates[index]);
    }
    const list = (await cluster.node(0).get("/v1/templates"))["items"] as Row[];
    expect(list.map((one) => one["display_name"])).toEqual(["web", ""]);
    const back = await cluster.node(1).cli(["tag", "rollback", "web", "--json"]);
    expect(JSON.parse(back.stdout)).toMatchObject({ template_id: templates[0] });
    await cluster.inSync();
    expect(await resolved(0, "web")).toBe(templates[0]);
  },
);

it(
  "of two promotes at once at two nodes, one wins by compare-and-set",
  { timeout: LONG_MS },
  async () => {
    const [first = "", second = ""] = templates;
    const third = await build(2, {});
    templates.push(third);
    const made = await cluster.node(0).ask("PUT", "/v1/tags/prod", { template_id: first });
    expect(made.body).toMatchObject({ name: "prod", template_id: first });
    await cluster.inSync();
    const both = await Promise.all([promote(1, second, first), promote(2, third, first)]);
    expect(both.map(({ status }) => status).sort()).toEqual([200, 409]);
    const winner = both.findIndex(({ status }) => status === 200) === 0 ? second : third;
    expect(both.find(({ status }) => status === 409)?.body).toMatchObject({
      code: "tag_moved",
      template_id: winner,
    });
    await cluster.inSync();
    for (const index of [0, 1, 2]) {
      expect(await resolved(index, "prod")).toBe(winner);
      const { history } = await cluster.node(index).get("/v1/tags/prod");
      expect((history as Row[]).map((step) => step["template_id"])).toEqual([first, winner]);
    }
  },
);

it(
  "what is protected at one node is not deleted at another, by force either",
  { timeout: LONG_MS },
  async () => {
    const [first = ""] = templates;
    const path = `/v1/templates/${first}`;
    await cluster.node(0).ask("PUT", `${path}/protection`, { protected: true });
    // Without waiting for the others to hear of it: it is looked at where a majority has it.
    const refused = await cluster.node(2).ask("DELETE", `${path}?force=true`);
    expect([refused.status, refused.body["code"]]).toEqual([409, "template_protected"]);
    const open = await cluster.node(1).cli(["tpl", "unprotect", first]);
    expect(open.stdout).toBe(`template ${first} is not protected any more\n`);
    expect((await cluster.node(2).ask("DELETE", path)).status).toBe(200);
    await cluster.inSync();
    // Its name has pointed at another one, too.
    const { body } = await cluster.node(0).ask("POST", "/v1/resolve", { template_id: "web" });
    expect(body).toMatchObject({ code: "template_not_found", tag: "web", template_id: first });
  },
);

it(
  "retention deletes what nobody uses on all nodes, and nothing that a tag points at",
  { timeout: LONG_MS },
  async () => {
    // What is configured on no node is only done when it is asked for.
    const off = await cluster.node(0).cli(["retention"]);
    expect(off.stdout).toContain("no policy holds");
    await cluster.node(1).cli(["tag", "delete", "web"]);
    await cluster.inSync();
    const { template_id: kept } = await cluster.node(0).get("/v1/tags/prod");
    const [gone] = templates.slice(1).filter((id) => id !== kept);
    const ask = ["retention", "--unused-ttl", "1ms", "--json"];
    const dry = JSON.parse((await cluster.node(2).cli([...ask, "--dry-run"])).stdout) as Row;
    const items = (dry["items"] as Row[]).map((one) => [one["template_id"], one["kept_by"]]);
    expect(new Map(items as [string, string][])).toEqual(
      new Map([
        [String(gone), ""],
        [String(kept), "tag prod"],
      ]),
    );
    const done = JSON.parse((await cluster.node(2).cli(ask)).stdout) as Row;
    expect(done["items"]).toContainEqual(
      expect.objectContaining({ template_id: gone, deleted: true, reason: "unused" }),
    );
    await cluster.inSync();
    for (const index of [0, 1, 2]) {
      const list = (await cluster.node(index).get("/v1/templates"))["items"] as Row[];
      expect(list.map((one) => one["template_id"])).toEqual([kept]);
    }
  },
);

it(
  "a prepared request becomes a template on all nodes, once, and another one is refused",
  { timeout: LONG_MS },
  async () => {
    const request = await cluster.node(0).get("/v1/templates/prod/request");
    const { annotations } = request as { annotations: Row };
    const key = "cube.master.appsnapshot.template.id";
    const body = {
      ...{ ...request, display_name: "prepared" },
      annotations: { ...annotations, [key]: " tpl-prepared " },
    };
    const both = await Promise.all(
      [1, 2].map((index) => cluster.node(index).ask("POST", "/v1/templates", body)),
    );
    expect(both.map(({ status }) => status).sort()).toEqual([201, 409]);
    expect(both.find(({ status }) => status === 409)?.body).toMatchObject({
      code: "template_already_exists",
    });
    expect(both.find(({ status }) => status === 201)?.body).toMatchObject({
      template_id: "tpl-prepared",
      display_name: "prepared",
      status: "READY",
      replicas: [{ status: "READY" }, { status: "READY" }, { status: "READY" }],
    });
    await cluster.inSync();
    expect(await resolved(0, "prepared")).toBe("tpl-prepared");
    const scope = { ...body, distribution_scope: ["zz"] };
    const nowhere = { ...scope, annotations: { ...annotations, [key]: "" }, template_id: "" };
    const refused = await cluster.node(0).ask("POST", "/v1/templates", nowhere);
    expect(refused.body["detail"]).toBe("target nodes are not healthy or not found: zz");
  },
);
