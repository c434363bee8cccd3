/** A daemon whose sandboxes are run by an operator's executable. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { askSandbox } from "../support/ask-sandbox.ts";
import { TestDaemon, processesBelow, waitFor, type Row } from "../support/daemon.ts";
import { referenceDriver } from "../support/exec-driver.ts";

const LONG_MS = 180_000;
let dir: string;
let daemon: TestDaemon;
let templateId: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-exec-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(10_000) };
  await assembleOciLayout(join(dir, "image"), { layers: [{ entries: [file] }], tag: "demo" });
  daemon = await TestDaemon.make("exec", ["--exec-driver", await referenceDriver(dir)]);
  await daemon.start();
  const job = await daemon.submit({
    source_image_ref: `oci:${join(dir, "image")}:demo`,
    writable_layer_size: "64Mi",
    exposed_ports: [8080],
    container_overrides: { probe: { port: 8080, path: "/" } },
  });
  const ended = await daemon.ended(job.job_id, LONG_MS);
  expect([ended.status, ended.error_message]).toEqual(["READY", ""]);
  expect((await daemon.log(job.job_id)).join("\n")).toMatch(/booting boot-tpl-.*\n.*ready \d+ ms/s);
  templateId = job.template_id;
}, LONG_MS);

afterAll(async () => {
  await daemon.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

async function start(template_id: string, sandbox_id: string): Promise<Row> {
  const { status, body } = await daemon.ask("POST", "/v1/sandboxes", { template_id, sandbox_id });
  expect({ status, body }).toMatchObject({ status: 201, body: { status: "RUNNING" } });
  return body;
}
const note = (sandbox: Row, word = "") => askSandbox(sandbox, `/note?${word}`);
const sandbox = (id: string) => daemon.get(`/v1/sandboxes/${id}`);

async function snapshot(sandboxId: string): Promise<string> {
  const answer = await daemon.ask("POST", `/v1/sandboxes/${sandboxId}/snapshots`, {});
  expect(answer).toMatchObject({ status: 201, body: { status: "READY" } });
  return String(answer.body["snapshot_id"]);
}

describe("a daemon with an exec driver", { timeout: LONG_MS }, () => {
  it("is told of by its node and by doctor", async () => {
    const detail = "reference 1.0: processes of this host";
    expect(await daemon.get("/v1/nodes/self")).toMatchObject({
      ...{ driver: "exec", driver_detail: detail, guest_image_version: "reference-1" },
      versions_extra: { reference: "1.0" },
    });
    const { stdout } = await daemon.cli(["doctor"]);
    expect(stdout).toMatch(new RegExp(`ok +driver +exec: ${detail}`));
  });

  it("starts sandboxes, freezes them, puts them back, and ends them without a trace", async () => {
    const one = await start(templateId, "sb-one");
    expect(await note(one, "before")).toBe("before");
    const id = await snapshot("sb-one");
    expect(await note(one, "after")).toBe("after");

    const two = await start(id, "sb-two");
    expect(two).toMatchObject({ template_id: templateId, snapshot_id: id });
    expect([await note(two), await note(one)]).toEqual(["before", "after"]);

    const rollback = { snapshot_id: id };
    const rolled = await daemon.ask("POST", "/v1/sandboxes/sb-one/rollback", rollback);
    expect(rolled).toMatchObject({ status: 200, body: { status: "READY" } });
    const now = await sandbox("sb-one");
    expect(now).toMatchObject({ ports: one["ports"], snapshot_id: id });
    expect(await note(now)).toBe("before");

    for (const sandboxId of ["sb-one", "sb-two"]) {
      expect((await daemon.ask("DELETE", `/v1/sandboxes/${sandboxId}`)).status).toBe(204);
    }
    expect((await daemon.ask("DELETE", `/v1/snapshots/${id}`)).status).toBe(200);
    await waitFor("its files to go", async () => !(await daemon.names("templates")).includes(id));
    expect(await daemon.names("sandboxes")).toEqual([]);
    expect(await processesBelow(daemon.dataDir)).toEqual([]);
  });

  it("finds its sandboxes again when it was killed, one cut off in a rollback included", async () => {
    const kept = await start(templateId, "sb-kept");
    await note(kept, "mine");
    const id = await snapshot("sb-kept");
    await note(kept, "later");
    const dead = await start(templateId, "sb-dead");
    const path = "/v1/sandboxes/sb-kept/rollback";
    const cut = daemon.ask("POST", path, { snapshot_id: id }).catch(() => undefined);
    await waitFor("the rollback", async () =>
      (await daemon.items("/v1/jobs")).some(
        (job) => job["operation"] === "SNAPSHOT_ROLLBACK" && job["status"] !== "PENDING",
      ),
    );
    await daemon.kill();
    await cut;
    process.kill(Number(dead["pid"]), "SIGKILL");
    await daemon.start();
    const ids = (await daemon.items("/v1/sandboxes")).map((one) => one["sandbox_id"]);
    expect(ids).toEqual(["sb-kept"]);
    const back = await sandbox("sb-kept");
    expect(back).toMatchObject({ status: "RUNNING", ports: kept["ports"] });
    expect(await note(back)).toBe(back["snapshot_id"] === id ? "mine" : "later");
    await daemon.ask("DELETE", "/v1/sandboxes/sb-kept");
    await daemon.ask("DELETE", `/v1/snapshots/${id}`);
  });

  it("deletes the template with its files", async () => {
    expect((await daemon.ask("DELETE", `/v1/templates/${templateId}`)).status).toBe(200);
    await waitFor(
      "its files to go",
      async () =>
        (await daemon.names("templates")).length === 0 &&
        (await processesBelow(daemon.dataDir)).length === 0,
    );
  });
});
