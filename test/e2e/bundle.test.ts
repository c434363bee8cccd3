/** A template goes from one cluster to another as one file, and nothing of a bad one stays. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 120_000;
let dir: string;
let from: TestDaemon;
let to: TestDaemon;
let templateId: string;
let bundle: string;
let key: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-bundle-"));
  bundle = join(dir, "web.bundle");
  await assembleDemoImage(join(dir, "image"));
  from = await TestDaemon.make("rootfs", ["--node-id", "from"]);
  to = await TestDaemon.make("rootfs", ["--node-id", "to"]);
  await Promise.all([from.start(), to.start()]);
  const job = await from.submit({
    source_image_ref: `oci:${join(dir, "image")}:demo`,
    writable_layer_size: "64Mi",
    display_name: "web",
    labels: { team: "blue" },
    exposed_ports: [8080],
  });
  expect(await from.ended(job.job_id)).toMatchObject({ status: "READY" });
  templateId = job.template_id;
  const written = await from.cli(["tpl", "export", "web", "-o", bundle]);
  expect(written).toEqual({ code: 0, stdout: `${bundle}\n`, stderr: "" });
}, LONG_MS);

afterAll(async () => {
  await Promise.all([from.remove(), to.remove()]);
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

/** Whatever an import may leave, on the disk and in the catalog. */
async function expectNothing(daemon: TestDaemon): Promise<void> {
  for (const list of ["templates", "artifacts", "snapshots"]) {
    expect(await daemon.items(`/v1/${list}`), list).toEqual([]);
  }
  expect((await daemon.items("/v1/jobs")).filter((job) => job["operation"] === "IMPORT")).toEqual(
    [],
  );
  for (const folder of ["work/artifacts", "artifacts/sha256", "artifacts/partial", "templates"]) {
    expect(await daemon.names(folder), folder).toEqual([]);
  }
}

const upload = async (daemon: TestDaemon, bytes: Uint8Array, query = "") => {
  const headers = { "content-type": "application/x-tar" };
  const options = { method: "POST", body: bytes, headers };
  const response = await daemon.fetch(daemon.url, `/v1/import${query}`, options);
  return { status: response.status, body: (await response.json()) as Row };
};

describe("a bundle", { timeout: LONG_MS }, () => {
  it("is refused by a cluster that does not know its signer, who is named", async () => {
    const refused = await to.cli(["import", bundle]);
    expect(refused.code).toBe(8);
    key = /--trust (12D3KooW\w+)/.exec(refused.stderr)?.[1] ?? "";
    expect(refused.stderr).toMatch(/it says: node from of a node that was alone/);
    expect(key).not.toBe("");
    const other = `12D3KooWSPxQHe7ExzqzNNaaFBeRAPdCPADExbWjC3ZaYdwHMd1z`;
    expect((await to.cli(["import", bundle, "--trust", other])).code).toBe(8);
    await expectNothing(to);
  });

  it("leaves nothing when it is damaged, cut off or of another type", async () => {
    const whole = await readFile(bundle);
    const damage = (at: number) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      return bytes;
    };
    const bad = [
      ...[100, 700, 20_000, whole.length >> 1, whole.length - 1_500, whole.length - 1].map(damage),
      whole.subarray(0, whole.length - 2_000),
      Buffer.concat([whole, Buffer.from("more")]),
    ];
    for (const [index, bytes] of bad.entries()) {
      const { status, body } = await upload(to, bytes, `?trust=${key}`);
      expect([403, 422], `${index}: ${JSON.stringify(body)}`).toContain(status);
      await expectNothing(to);
    }
    const json = await to.ask("POST", "/v1/import", {});
    expect(json).toMatchObject({ status: 415, body: { code: "unsupported_media_type" } });
  });

  it("leaves nothing when the daemon is killed in the middle of it", async () => {
    const whole = await readFile(bundle);
    const options = { method: "POST", headers: { "content-type": "application/x-tar" } };
    const sending = request(`${to.url}/v1/import?trust=${key}`, options);
    const cut = new Promise((resolve) => sending.once("error", resolve));
    sending.write(whole.subarray(0, whole.length >> 1));
    await waitFor("scratch files", async () => (await to.names("work/artifacts")).length > 0);
    expect(await to.items("/v1/artifacts")).toEqual([]);
    await to.kill();
    await cut;
    await to.start();
    await expectNothing(to);
  });

  it("leaves nothing when its sender goes away", async () => {
    const whole = await readFile(bundle);
    const options = { method: "POST", headers: { "content-type": "application/x-tar" } };
    const sending = request(`${to.url}/v1/import?trust=${key}`, options);
    sending.on("error", () => undefined);
    sending.write(whole.subarray(0, whole.length >> 1));
    await waitFor("scratch files", async () => (await to.names("work/artifacts")).length > 0);
    sending.destroy();
    await waitFor("them to go", async () => (await to.names("work/artifacts")).length === 0);
    await expectNothing(to);
  });

  it("becomes a READY template with the same bytes", async () => {
    const imported = await to.cli(["import", bundle, "--trust", key, "--wait", "--json"]);
    expect(imported).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(imported.stdout)).toMatchObject({
      template_id: templateId,
      outcome: "accepted",
      signed_by: { key, node_id: "from", cluster_id: "" },
    });
    const [there, here] = await Promise.all(
      [from, to].map((daemon) => daemon.get(`/v1/templates/${templateId}`)),
    );
    for (const name of ["artifact_digest", "artifact_id", "image_info", "labels", "created_at"]) {
      expect(here?.[name], name).toEqual(there?.[name]);
    }
    expect(here).toMatchObject({ status: "READY", display_name: "web", desired_nodes: ["to"] });
    const verified = await to.cli(["resolve", "web", "--json"]);
    expect(verified.code).toBe(0);
    expect(await to.names("work/artifacts")).toEqual([]);
    const content = (daemon: TestDaemon) => join(daemon.dataDir, "artifacts/sha256");
    const [hex = ""] = await to.names("artifacts/sha256");
    const files = [from, to].map((daemon) => readFile(join(content(daemon), hex, "rootfs.ext4")));
    const [a, b] = await Promise.all(files);
    expect(b?.equals(a ?? Buffer.alloc(0))).toBe(true);
  });

  it("does nothing when the template is there, and is taken in under a new id when asked", async () => {
    const again = await upload(to, await readFile(bundle), `?trust=${key}`);
    expect(again).toMatchObject({ status: 200, body: { outcome: "present", job_id: "" } });
    const bytes = await readFile(bundle);
    const second = await upload(to, bytes, `?trust=${key}&new_id=true&display_name=second`);
    expect(second).toMatchObject({ status: 202, body: { outcome: "accepted" } });
    const job = await to.ended(String(second.body["job_id"]));
    expect(job).toMatchObject({ status: "READY", operation: "IMPORT" });
    expect(job.template_id).not.toBe(templateId);
    const request = await to.get(`/v1/templates/${job.template_id}/request`);
    expect(JSON.stringify(request)).not.toContain(templateId);
    expect(await to.get("/v1/templates/second")).toMatchObject({ template_id: job.template_id });
    // What it has imported it may pass on, signed by itself.
    const own = join(dir, "own.bundle");
    expect((await to.cli(["tpl", "export", "second", "-o", own])).code).toBe(0);
    const back = await upload(to, await readFile(own));
    expect(back).toMatchObject({ status: 200, body: { outcome: "present" } });
  });

  it("is refused where another template has its id", async () => {
    const other = await from.submit({
      source_image_ref: `oci:${join(dir, "image")}:demo`,
      writable_layer_size: "64Mi",
      exposed_ports: [9090],
    });
    expect(await from.ended(other.job_id)).toMatchObject({ status: "READY" });
    const query = `?trust=${key}&template_id=${other.template_id}`;
    const refused = await upload(from, await readFile(bundle), query);
    expect(refused).toMatchObject({ status: 409, body: { code: "template_already_exists" } });
    await writeFile(join(dir, "none"), "");
    const none = await from.cli(["import", join(dir, "none")]);
    expect(none.stderr).toMatch(/the bundle is damaged or none: it is cut off/);
  });
});
