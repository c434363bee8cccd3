/** A real guest is frozen, goes on, goes back, and is started again from what was frozen. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { askSandbox } from "../support/ask-sandbox.ts";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 180_000;
let dir: string;
let daemon: TestDaemon;
let templateId: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-snapshot-"));
  await assembleDemoImage(join(dir, "image"));
  daemon = await TestDaemon.make("qemu");
  await daemon.start();
  const job = await daemon.submit({
    source_image_ref: `oci:${join(dir, "image")}:demo`,
    writable_layer_size: "64Mi",
    exposed_ports: [8080],
    container_overrides: {
      resources: { cpu: "1000m", mem: "128Mi" },
      probe: { port: 8080, path: "/health" },
    },
  });
  expect(await daemon.ended(job.job_id, LONG_MS)).toMatchObject({ status: "READY" });
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
const note = async (sandbox: Row, word = "") =>
  (await askSandbox(sandbox, `/cgi-bin/note?${word}`)).trim();
async function snapshot(sandboxId: string, body: Row = {}): Promise<string> {
  const answer = await daemon.ask("POST", `/v1/sandboxes/${sandboxId}/snapshots`, body);
  expect(answer).toMatchObject({ status: 201, body: { status: "READY", operation: "CREATE" } });
  return String(answer.body["snapshot_id"]);
}

describe("a running sandbox", { timeout: LONG_MS }, () => {
  it("is frozen, runs on, goes back, and lives a second time", async () => {
    const one = await start(templateId, "sb-one");
    expect(await note(one, "before")).toBe("before");
    const id = await snapshot("sb-one", { display_name: "before" });
    expect(await note(one, "after")).toBe("after");

    const two = await start(id, "sb-two");
    expect(two).toMatchObject({ template_id: templateId, snapshot_id: id });
    expect(await note(two)).toBe("before");
    expect(await note(one)).toBe("after");

    const back = { snapshot_id: id };
    const rolled = await daemon.ask("POST", "/v1/sandboxes/sb-one/rollback", back);
    expect(rolled).toMatchObject({ status: 200, body: { operation: "ROLLBACK", status: "READY" } });
    const now = await daemon.get("/v1/sandboxes/sb-one");
    expect(now["ports"]).toEqual(one["ports"]);
    expect(await note(now)).toBe("before");

    // Row 104, with both that run on it.
    const refused = await daemon.ask("DELETE", `/v1/snapshots/${id}`);
    expect(refused).toMatchObject({ status: 409, body: { code: "snapshot_in_use" } });
    expect(String(refused.body["detail"])).toMatch(/active runtime ref of .*sb-one@/);
    const users = (await daemon.get(`/v1/snapshots/${id}`))["runtime_ref_sandboxes"];
    expect(users).toEqual(["sb-one", "sb-two"]);
    for (const sandbox of ["sb-one", "sb-two"]) {
      await daemon.ask("DELETE", `/v1/sandboxes/${sandbox}`);
    }
    const deleted = await daemon.ask("DELETE", `/v1/snapshots/${id}`);
    expect(deleted).toMatchObject({ status: 200, body: { status: "READY", progress: 100 } });
    expect((await daemon.ask("GET", `/v1/snapshots/${id}`)).status).toBe(404);
    await waitFor("its files to go", async () => !(await daemon.names("templates")).includes(id));
  });

  it("runs on when the daemon is killed while it is frozen, and the operation is settled", async () => {
    const sandbox = await start(templateId, "sb-three");
    await note(sandbox, "alive");
    const path = "/v1/sandboxes/sb-three/snapshots";
    const asked = daemon.ask("POST", path, { request_id: "cut" }).catch(() => undefined);
    const active = async () =>
      (await daemon.items("/v1/jobs")).find((job) => job["operation"] === "SNAPSHOT_CREATE");
    const job = await waitFor("the operation", async () => {
      const found = await active();
      if (found?.["status"] !== "RUNNING") return undefined;
      // Before its record is written there is nothing to be settled but the job.
      const record = await daemon.ask("GET", `/v1/snapshots/${String(found["resource_id"])}`);
      return record.status === 200 ? found : undefined;
    });
    await daemon.kill();
    await asked;
    await daemon.start();
    const operation = `/v1/snapshot-operations/${String(job["job_id"])}`;
    const settled = await waitFor("it to be settled", async () => {
      const found = await daemon.get(operation);
      return ["READY", "FAILED"].includes(String(found["status"])) ? found : undefined;
    });
    const left = await daemon.get(`/v1/snapshots/${String(settled["snapshot_id"])}`);
    expect(left["status"]).toBe(settled["status"]);
    expect(await note(await daemon.get("/v1/sandboxes/sb-three"))).toBe("alive");
    const again = await snapshot("sb-three", { request_id: "after" });
    expect((await daemon.get(`/v1/snapshots/${again}/nodes`))["items"]).toHaveLength(1);
    await daemon.ask("DELETE", "/v1/sandboxes/sb-three");
  });

  it("is frozen and put back from the command line", async () => {
    const sandbox = await start(templateId, "sb-four");
    await note(sandbox, "one");
    const made = await daemon.cli(["snapshot", "create", "sb-four", "--name", "cli", "--json"]);
    expect(made.code).toBe(0);
    const id = String((JSON.parse(made.stdout) as Row)["snapshot_id"]);
    const list = await daemon.cli(["snapshot", "list", "--sandbox", "sb-four"]);
    expect(list.stdout).toMatch(new RegExp(`${id} +cli +READY +sb-four`));
    await note(sandbox, "two");
    expect((await daemon.cli(["snapshot", "rollback", "sb-four", id])).code).toBe(0);
    expect(await note(await daemon.get("/v1/sandboxes/sb-four"))).toBe("one");
    const used = await daemon.cli(["snapshot", "delete", id]);
    expect(used.code).toBe(4);
    expect(used.stderr).toContain("active runtime ref of sb-four@");
    await daemon.ask("DELETE", "/v1/sandboxes/sb-four");
    const gone = await daemon.cli(["snapshot", "delete", id]);
    expect(gone).toMatchObject({ code: 0, stdout: `snapshot deleted: ${id}\n` });
    expect((await daemon.cli(["snapshot", "info", id])).code).toBe(3);
  });

  it("is exported, and runs on in another cluster", async () => {
    const sandbox = await start(templateId, "sb-carried");
    expect(await note(sandbox, "carried")).toBe("carried");
    const id = await snapshot("sb-carried", { display_name: "far" });
    const bundle = join(dir, "far.bundle");
    const exported = await daemon.cli(["snapshot", "export", id, "-o", bundle]);
    expect(exported).toMatchObject({ code: 0, stderr: "" });
    const bytes = await readFile(bundle);
    const other = await TestDaemon.make("qemu");
    const upload = async (query: string) => {
      const headers = { "content-type": "application/x-tar" };
      const options = { method: "POST", body: bytes, headers };
      const answer = await other.fetch(other.url, `/v1/import${query}`, options);
      return { status: answer.status, body: (await answer.json()) as Row };
    };
    try {
      await other.start();
      const refused = await upload("");
      expect(refused).toMatchObject({ status: 403, body: { code: "bundle_untrusted" } });
      const imported = await upload(`?trust=${String(refused.body["key"])}`);
      expect(imported).toMatchObject({
        status: 201,
        body: { template_id: id, kind: "snapshot", outcome: "imported" },
      });
      // Its row is durable: a daemon that starts again still has it.
      await other.kill();
      await other.start();
      const [here] = await other.items("/v1/snapshots");
      expect(here).toMatchObject({ snapshot_id: id, status: "READY", display_name: "far" });
      const body = { template_id: id, sandbox_id: "sb-far" };
      const started = await other.ask("POST", "/v1/sandboxes", body);
      expect(started).toMatchObject({ status: 201, body: { status: "RUNNING", snapshot_id: id } });
      expect(await note(started.body)).toBe("carried");
      expect(await note(started.body, "there")).toBe("there");
      expect(await note(sandbox)).toBe("carried");
      await other.ask("DELETE", "/v1/sandboxes/sb-far");
      const deleted = await other.ask("DELETE", `/v1/snapshots/${id}`);
      expect(deleted).toMatchObject({ status: 200 });
      await waitFor("its files to go", async () => (await other.names("templates")).length === 0);
      expect(await other.names("work/artifacts")).toEqual([]);
    } finally {
      await other.remove();
      await daemon.ask("DELETE", "/v1/sandboxes/sb-carried");
    }
  });

  it("is started from its snapshot also when its template is gone", async () => {
    const sandbox = await start(templateId, "sb-five");
    await note(sandbox, "child");
    const id = await snapshot("sb-five");
    await daemon.ask("DELETE", "/v1/sandboxes/sb-five");
    const leftOver = await daemon.items("/v1/snapshots");
    expect((await daemon.ask("DELETE", `/v1/templates/${templateId}`)).status).toBe(200);
    const tree = await daemon.cli(["snapshot", "tree", id]);
    expect(tree.stdout).toMatch(new RegExp(`${templateId} +- +deleted`));
    expect(tree.stdout).toContain(`\n  ${id} `);
    expect(await note(await start(id, "sb-six"))).toBe("child");
    await daemon.ask("DELETE", "/v1/sandboxes/sb-six");
    for (const one of leftOver) {
      const gone = await daemon.ask("DELETE", `/v1/snapshots/${String(one["snapshot_id"])}`);
      expect(gone.status).toBe(200);
    }
    await waitFor("the artifact to go with the last of them", async () => {
      await daemon.ask("POST", "/v1/gc");
      return (await daemon.names("artifacts/sha256")).length === 0;
    });
  });
});
