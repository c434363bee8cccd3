import { readFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { askSandbox } from "../support/ask-sandbox.ts";
import {
  TestDaemon,
  frames,
  processesBelow,
  waitFor,
  type Job,
  type Row,
} from "../support/daemon.ts";
import { leftovers } from "../support/leftovers.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/registry.ts";

const PHASES = [
  "PULLING",
  "UNPACKING",
  "BUILDING_EXT4",
  "GENERATING_JSON",
  "DISTRIBUTING",
  "CREATING_TEMPLATE",
  "SNAPSHOTTING",
  "REGISTERING",
  "READY",
];

let dir: string;
let registry: DockerRegistry;
let daemon: TestDaemon;
let first: Job;

const request = (more: Row = {}): Row => ({
  source_image_ref: `${registry.host}/demo:one`,
  writable_layer_size: "64Mi",
  exposed_ports: [8080],
  container_overrides: {
    resources: { cpu: "1000m", mem: "128Mi" },
    probe: { port: 8080, path: "/health" },
  },
  ...more,
});

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-main-"));
  const { reference } = await assembleDemoImage(join(dir, "image"));
  registry = await startDockerRegistry();
  await registry.push(reference, "demo:one");
  daemon = await TestDaemon.make("qemu");
  await daemon.start();
}, 120_000);

afterAll(async () => {
  await daemon.remove();
  await registry.stop();
  await rm(dir, { recursive: true, force: true });
});

async function startSandbox(templateId: string): Promise<Row> {
  const { status, body } = await daemon.ask("POST", "/v1/sandboxes", { template_id: templateId });
  expect({ status, body }).toMatchObject({ status: 201, body: { status: "RUNNING" } });
  return body;
}

describe("an image of a registry", { timeout: 90_000 }, () => {
  it("becomes a READY template through all phases in order, told as it happens", async () => {
    const job = await daemon.submit(request({ display_name: "one" }));
    const stream = frames(
      `${daemon.url}/v1/jobs/${job.job_id}/events`,
      new AbortController().signal,
    );
    const events: string[] = [];
    const lines: string[] = [];
    const seen: string[] = [];
    for await (const { event, data } of stream) {
      events.push(event);
      if (event === "log") lines.push(String(data["message"]));
      const phase = data["phase"];
      if (typeof phase === "string" && seen.at(-1) !== phase) seen.push(phase);
      if (event === "end") break;
    }
    expect(events[0]).toBe("snapshot");
    expect(events.at(-1)).toBe("end");
    // A phase of a millisecond may pass between two frames, but none comes out of its order.
    expect(seen).toEqual(PHASES.filter((phase) => seen.includes(phase)));
    first = await daemon.job(job.job_id);
    expect(first).toMatchObject({ status: "READY", phase: "READY", progress: 100 });
    const phases = (first["phases"] as Row[]).map((phase) => String(phase["phase"]));
    expect([...new Set(phases)]).toEqual(PHASES);
    const log = await daemon.log(job.job_id);
    for (const phase of PHASES.slice(0, -1)) expect(log).toContain(`phase ${phase}`);
    expect(log).toContain(`template ${job.template_id} is READY`);
    expect(lines.some((line) => line === "phase SNAPSHOTTING")).toBe(true);
    const template = await daemon.get("/v1/templates/one");
    expect(template).toMatchObject({ template_id: job.template_id, status: "READY" });
    expect(await leftovers(daemon)).toEqual([]);
  });

  it("serves the artifact's bytes to who has the token, whole and in ranges", async () => {
    const path = `/v1/artifacts/${first.artifact_id}`;
    const { download_token } = await daemon.get(`${path}?include_token=true`);
    const url = `${daemon.url}${path}/content`;
    const artifact = await daemon.get(path);
    const hex = String(artifact["digest"]).slice("sha256:".length);
    const file = await readFile(join(daemon.dataDir, "artifacts/sha256", hex, "rootfs.ext4"));
    expect((await fetch(url)).status).toBe(401);
    expect((await fetch(`${url}?token=wrong`)).status).toBe(401);
    const part = await fetch(`${url}?token=${String(download_token)}`, {
      headers: { range: "bytes=1024-70000" },
    });
    expect(part.status).toBe(206);
    const bytes = Buffer.from(await part.arrayBuffer());
    expect(bytes.equals(file.subarray(1_024, 70_001))).toBe(true);
    const whole = await fetch(url, {
      headers: { "x-cube-artifact-token": String(download_token) },
    });
    expect(whole.status).toBe(200);
    let at = 0;
    for await (const piece of whole.body ?? []) {
      const chunk = piece as Uint8Array;
      if (!file.subarray(at, at + chunk.length).equals(chunk)) throw new Error(`differs at ${at}`);
      at += chunk.length;
    }
    expect(at).toBe(file.length);
  });

  it("gives sandboxes that answer, each with entropy of its own and the right time", async () => {
    const one = await startSandbox(first.template_id);
    const two = await startSandbox(first.template_id);
    expect(await askSandbox(one, "/")).toContain("hello from a sandbox");
    const asked = async (sandbox: Row) => {
      const lines = (await askSandbox(sandbox, "/cgi-bin/random")).trim().split("\n");
      return { bytes: lines[0]?.trim(), seconds: Number(lines[1]) };
    };
    const [a, b] = [await asked(one), await asked(two)];
    expect(a.bytes).toMatch(/^([0-9a-f]{2} ){15}[0-9a-f]{2}$/);
    expect(b.bytes).not.toBe(a.bytes);
    for (const { seconds } of [a, b]) {
      expect(Math.abs(seconds - Date.now() / 1_000)).toBeLessThan(5);
    }
    const refused = await daemon.ask("DELETE", `/v1/templates/${first.template_id}`);
    expect(refused).toMatchObject({ status: 409, body: { code: "template_in_use" } });
    const { status } = await daemon.ask("DELETE", `/v1/sandboxes/${String(two["sandbox_id"])}`);
    expect(status).toBe(204);
    await waitFor("the process to end", async () => {
      return !(await processesBelow(daemon.dataDir)).includes(Number(two["pid"]));
    });
  });

  it("keeps sandboxes and templates over a clean stop and a new start", async () => {
    const [sandbox] = await daemon.items("/v1/sandboxes");
    const { code, milliseconds } = await daemon.stop();
    expect(code).toBe(0);
    expect(milliseconds).toBeLessThan(10_000);
    await daemon.start();
    const [again] = await daemon.items("/v1/sandboxes");
    expect(again).toMatchObject({
      sandbox_id: sandbox?.["sandbox_id"],
      pid: sandbox?.["pid"],
      status: "RUNNING",
    });
    expect(await askSandbox(again ?? {}, "/health")).toBe("ok\n");
    expect(await daemon.get("/v1/templates/one")).toMatchObject({ status: "READY" });
    await daemon.ask("DELETE", `/v1/sandboxes/${String(again?.["sandbox_id"])}`);
    expect(await leftovers(daemon)).toEqual([]);
  });

  it("builds nothing again for the same spec, nor for one that differs in ports", async () => {
    const same = await daemon.ended((await daemon.submit(request())).job_id);
    expect(same).toMatchObject({ status: "READY", artifact_id: first.artifact_id });
    const ported = request({ exposed_ports: [8080, 9090] });
    const shared = await daemon.ended((await daemon.submit(ported)).job_id);
    expect(shared.status).toBe("READY");
    expect(shared.artifact_id).not.toBe(first.artifact_id);
    for (const { job_id } of [same, shared]) {
      const phases = (await daemon.job(job_id))["phases"] as Row[];
      expect(phases.map((phase) => phase["phase"])).not.toContain("BUILDING_EXT4");
    }
    expect(await daemon.names("artifacts/sha256")).toHaveLength(1);
    // The bytes stay until the last template that is made of them has gone.
    for (const [job, left] of [
      [same, 1],
      [first, 1],
      [shared, 0],
    ] as const) {
      const { status } = await daemon.ask("DELETE", `/v1/templates/${job.template_id}`);
      expect(status).toBe(200);
      expect(await daemon.names("artifacts/sha256")).toHaveLength(left);
      expect((await daemon.ask("GET", `/v1/jobs/${job.job_id}`)).status).toBe(404);
      expect((await daemon.ask("GET", `/v1/templates/${job.template_id}`)).status).toBe(404);
    }
    expect(await daemon.items("/v1/artifacts")).toEqual([]);
    await waitFor("replicas to go", async () => (await daemon.names("templates")).length === 0);
    expect(await leftovers(daemon)).toEqual([]);
  });

  it("fails with the guest's console when its probe is never answered", async () => {
    const overrides = {
      resources: { cpu: "1000m", mem: "128Mi" },
      probe: {
        port: 8080,
        path: "/nothing",
        timeout_ms: 500,
        period_ms: 200,
        failure_threshold: 5,
      },
    };
    const submitted = await daemon.submit(request({ container_overrides: overrides }));
    const job = await daemon.ended(submitted.job_id);
    expect(job).toMatchObject({ status: "FAILED", phase: "REGISTERING" });
    expect(job.error_message).toMatch(/did not answer GET :8080\/nothing/);
    const [replica] = await daemon.items(`/v1/templates/${job.template_id}/replicas`);
    const phase = { status: "FAILED", phase: "FAILED", last_error_phase: "SNAPSHOTTING" };
    expect(replica).toMatchObject(phase);
    const log = await daemon.log(job.job_id);
    expect(log.some((line) => line.startsWith("console: "))).toBe(true);
    expect(await daemon.names("artifacts/sha256")).toEqual([]);
    expect(await leftovers(daemon)).toEqual([]);
  });
});
