/** A sandbox becomes a template on two nodes, with what its guest had not flushed. */
import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { askSandbox } from "../support/ask-sandbox.ts";
import { TestDaemon, waitFor, type Job, type Row } from "../support/daemon.ts";
import { guestAssets } from "../support/guest.ts";

const LONG_MS = 300_000;
const PAGES = {
  // A new file: its bytes stay in the guest's memory for half a minute.
  write: 'echo "$QUERY_STRING" > "/root/$QUERY_STRING"; echo written',
  read: 'cat "/root/$QUERY_STRING"',
  "kill-agent":
    "for p in /proc/[0-9]*; do read -r c < $p/cmdline; " +
    'case "$c" in /agent/dev/*) kill -9 ${p#/proc/} ;; esac; done; echo killed',
};
let dir: string;
let a: TestDaemon;
let b: TestDaemon;
let parent: string;

beforeAll(async () => {
  await guestAssets();
  dir = await mkdtemp(join(tmpdir(), "tc-commit-"));
  await assembleDemoImage(join(dir, "image"), { pages: PAGES });
  const make = (name: string) =>
    TestDaemon.make("qemu", ["--node-id", name, "--p2p-listen", "/ip4/127.0.0.1/tcp/0"]);
  a = await make("a");
  b = await make("b");
  await Promise.all([a.start(), b.start()]);
  const { body } = await a.ask("POST", "/v1/cluster/join-tokens", {});
  const joined = await b.ask("POST", "/v1/cluster/join", { token: body["token"] });
  expect(joined.status, JSON.stringify(joined.body)).toBeLessThan(300);
  const areBoth = async () => (await a.items("/v1/nodes")).filter((node) => node["healthy"]);
  await waitFor("both nodes", async () => (await areBoth()).length === 2, LONG_MS);
  const job = await a.submit({
    source_image_ref: `oci:${join(dir, "image")}:demo`,
    writable_layer_size: "64Mi",
    exposed_ports: [8080],
    container_overrides: {
      resources: { cpu: "1000m", mem: "128Mi" },
      probe: { port: 8080, path: "/health", timeout_ms: 120_000 },
    },
  });
  expect(await a.ended(job.job_id, LONG_MS)).toMatchObject({ status: "READY" });
  parent = job.template_id;
}, LONG_MS);

afterAll(async () => {
  for (const daemon of [a, b]) await daemon.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

async function start(daemon: TestDaemon, template_id: string, sandbox_id: string): Promise<Row> {
  const { status, body } = await daemon.ask("POST", "/v1/sandboxes", { template_id, sandbox_id });
  expect({ status, body }).toMatchObject({ status: 201, body: { status: "RUNNING" } });
  return body;
}
const page = async (sandbox: Row, path: string) =>
  (await askSandbox(sandbox, `/cgi-bin/${path}`)).trim();
async function commit(sandbox_id: string): Promise<Job> {
  const { status, body } = await a.ask("POST", "/v1/templates/commit", { sandbox_id });
  expect(status, JSON.stringify(body)).toBe(202);
  const job = await a.ended(String(body["job_id"]), LONG_MS);
  expect(job).toMatchObject({ status: "READY", ready_node_count: 2, failed_node_count: 0 });
  return job;
}

describe("a commit of a running guest", { timeout: LONG_MS }, () => {
  it("keeps a file that was written just before, with the memory and without it", async () => {
    const origin = await start(a, parent, "sb-origin");
    expect(await page(origin, "write?fresh")).toBe("written");
    const job = await commit("sb-origin");
    expect(job).not.toHaveProperty("warning");
    expect((await a.log(job.job_id)).join("\n")).toMatch(/the guest flushed its file systems in/);
    expect(await b.get(`/v1/templates/${job.template_id}`)).toMatchObject({ warning: "" });
    // The other node goes on from the memory that was frozen.
    const there = await start(b, job.template_id, "sb-there");
    expect(await page(there, "read?fresh")).toBe("fresh");
    await b.ask("DELETE", "/v1/sandboxes/sb-there");
    const path = `/v1/templates/${job.template_id}/redo`;
    const { body: redo } = await b.ask("POST", path, { memory_only: true });
    const redone = await b.ended(String(redo["job_id"]), LONG_MS);
    expect(redone).toMatchObject({ status: "READY", ready_node_count: 2 });
    // Booted from the root filesystem, on either node.
    for (const [daemon, id] of [
      [a, "sb-booted-a"],
      [b, "sb-booted-b"],
    ] as const) {
      expect(await page(await start(daemon, job.template_id, id), "read?fresh")).toBe("fresh");
      await daemon.ask("DELETE", `/v1/sandboxes/${id}`);
    }
  });

  it("whose agent is gone goes on with a warning, and its file system is sound", async () => {
    const origin = await start(a, parent, "sb-dumb");
    expect(await page(origin, "kill-agent")).toBe("killed");
    const job = await commit("sb-dumb");
    expect(job["warning"]).toMatch(/^the guest's agent does not run: .*frozen memory/);
    const template = await b.get(`/v1/templates/${job.template_id}`);
    expect(template["warning"]).toBe(job["warning"]);
    const info = await b.cli(["tpl", "info", job.template_id]);
    expect(info.stdout).toMatch(/warning:? +the guest's agent does not run/);
    const file = join(dir, "rootfs.ext4");
    const id = String(template["artifact_id"]);
    const fetched = await b.cli(["artifact", "download", id, "--output", file]);
    expect(fetched).toMatchObject({ code: 0 });
    execFileSync("e2fsck", ["-fn", file]);
  });
});
