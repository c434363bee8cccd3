import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout, makeTar } from "../../scripts/lib/oci-layout.mjs";
import { TestDaemon, waitFor } from "../support/daemon.ts";
import { startLayoutRegistry, type LayoutRegistry } from "../support/layout-registry.ts";
import { leftovers } from "../support/leftovers.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/registry.ts";

let dir: string;
let slow: LayoutRegistry;
let locked: DockerRegistry;
let daemon: TestDaemon;

const request = (reference: string, more = {}) => ({
  source_image_ref: reference,
  writable_layer_size: "64Mi",
  ...more,
});
const demo = () => `${slow.host}/demo:demo`;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-failed-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(600_000) };
  await assembleOciLayout(join(dir, "good"), { layers: [{ entries: [file] }], tag: "demo" });
  const outside = { path: "../outside", type: "file" as const, content: "out" };
  const tar = await makeTar([outside]);
  await assembleOciLayout(join(dir, "hostile"), { layers: [{ tar }], tag: "demo" });
  slow = await startLayoutRegistry(join(dir, "good"));
  locked = await startDockerRegistry({ username: "user", password: "right" });
  await locked.push(`oci:${join(dir, "good")}:demo`, "demo:demo");
  daemon = await TestDaemon.make("rootfs");
  await daemon.start();
}, 120_000);

afterAll(async () => {
  await daemon.remove();
  await locked.stop();
  await slow.stop();
  await rm(dir, { recursive: true, force: true });
});

async function nothingIsLeft(): Promise<void> {
  expect(await daemon.names("artifacts/sha256")).toEqual([]);
  expect(await leftovers(daemon)).toEqual([]);
}

describe("a job that cannot end well", () => {
  it("ends job_cancelled when cancelled in mid-pull, and leaves nothing", async () => {
    slow.bytesPerSecond = 50_000;
    const { job_id } = await daemon.submit(request(demo()));
    await waitFor("bytes to come", () => slow.blobRequests > 1);
    const { status } = await daemon.ask("POST", `/v1/jobs/${job_id}/cancel`);
    expect(status).toBe(202);
    const job = await daemon.ended(job_id);
    expect(job).toMatchObject({ status: "FAILED", error_code: "job_cancelled", progress: 100 });
    await nothingIsLeft();
    const again = await daemon.ask("POST", `/v1/jobs/${job_id}/cancel`);
    expect(again).toMatchObject({ status: 409, body: { code: "job_not_active", status: 409 } });
    slow.bytesPerSecond = Infinity;
  });

  it.for([
    { what: "a folder without an image", reference: "oci:/nowhere:demo", code: "image_not_found" },
    { what: "an unknown tag", reference: "SLOW/demo:other", code: "image_not_found" },
    { what: "a hostile image", reference: "oci:DIR/hostile:demo", code: "image_refused" },
    {
      what: "a login that is needed",
      reference: "LOCKED/demo:demo",
      code: "registry_unauthorized",
    },
    {
      what: "a wrong password",
      reference: "LOCKED/demo:demo",
      login: { registry_username: "user", registry_password: "wrong" },
      code: "registry_unauthorized",
    },
  ])("ends $code for $what, and leaves nothing", async ({ reference, login, code }) => {
    const full = reference
      .replace("SLOW", slow.host)
      .replace("LOCKED", locked.host)
      .replace("DIR", dir);
    const { job_id } = await daemon.submit(request(full, login));
    const job = await daemon.ended(job_id);
    expect(job).toMatchObject({ status: "FAILED", error_code: code });
    expect(job.error_message).not.toBe("");
    await nothingIsLeft();
  });

  it("is refused at once for a reference that is none", async () => {
    const answer = await daemon.ask("POST", "/v1/templates/from-image", request("http://UPPER//"));
    expect(answer).toMatchObject({ status: 400, body: { code: "invalid_image_reference" } });
    const nothing = await daemon.ask("POST", "/v1/templates/from-image", {});
    expect(nothing).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    expect(JSON.stringify(nothing.body["errors"])).toContain("/source_image_ref");
  });

  it("with the right password becomes a template, and the password is nowhere", async () => {
    const login = { registry_username: "user", registry_password: "right" };
    const { job_id } = await daemon.submit(request(`${locked.host}/demo:demo`, login));
    const job = await daemon.ended(job_id);
    expect(job).toMatchObject({ status: "READY" });
    expect(JSON.stringify(job)).not.toContain("right");
    expect(daemon.output).not.toContain("right");
    await daemon.ask("DELETE", `/v1/templates/${job.template_id}`);
    await nothingIsLeft();
  });

  it("shares one build with others of its spec that come at the same time", async () => {
    const before = slow.blobRequests;
    slow.delayMs = 300;
    const jobs = await Promise.all([1, 2, 3, 4].map(() => daemon.submit(request(demo()))));
    const ended = await Promise.all(jobs.map(({ job_id }) => daemon.ended(job_id)));
    slow.delayMs = 0;
    expect(ended.map((job) => job.status)).toEqual(["READY", "READY", "READY", "READY"]);
    expect(new Set(ended.map((job) => job.artifact_id)).size).toBe(1);
    const logs = await Promise.all(ended.map(({ job_id }) => daemon.log(job_id)));
    const built = logs.filter((lines) => lines.some((line) => / built: /.test(line)));
    expect(built).toHaveLength(1);
    // Four configurations and one layer, at the most.
    expect(slow.blobRequests - before).toBeLessThanOrEqual(5);
    for (const job of ended) await daemon.ask("DELETE", `/v1/templates/${job.template_id}`);
    await nothingIsLeft();
  });

  it("ends job_deadline_exceeded when it takes longer than it may", async () => {
    const hasty = await TestDaemon.make("rootfs", ["--job-deadline", "1s"]);
    try {
      await hasty.start();
      slow.bytesPerSecond = 20_000;
      const job = await hasty.ended((await hasty.submit(request(demo()))).job_id);
      expect(job).toMatchObject({ status: "FAILED", error_code: "job_deadline_exceeded" });
      expect(await hasty.names("artifacts/sha256")).toEqual([]);
      expect(await leftovers(hasty)).toEqual([]);
    } finally {
      slow.bytesPerSecond = Infinity;
      await hasty.remove();
    }
  });
});
