import { randomBytes } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestDaemon, frames, waitFor, type Job, type Row } from "../support/daemon.ts";
import { startLayoutRegistry, type LayoutRegistry } from "../support/layout-registry.ts";
import { leftovers } from "../support/leftovers.ts";

const KILLS = 10;
const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);

/** Park and Miller's generator: the same seed gives the same moments. */
function seeded(start: number): () => number {
  let state = (start % 2_147_483_646) + 1;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}
const random = seeded(seed);
console.log(`TEST_SEED=${seed}`);

/** Resolves with true when the job enters `phase`, with false when it ends before that. */
async function entersPhase(daemon: TestDaemon, phase: string, submit: () => Promise<Job>) {
  const stream = new AbortController();
  let listens: () => void = () => undefined;
  const listening = new Promise<void>((resolve) => (listens = resolve));
  const entered = (async () => {
    const url = `${daemon.url}/v1/events?types=job`;
    for await (const { event, data } of frames(url, stream.signal)) {
      if (event === "hello") listens();
      const job = data["data"] as Row | undefined;
      if (job?.["phase"] === phase && job["status"] === "RUNNING") return true;
      if (job?.["status"] === "READY" || job?.["status"] === "FAILED") return false;
    }
    return false;
  })();
  await Promise.race([listening, entered]);
  const job = await submit();
  const seen = await entered;
  return { job, seen, close: () => stream.abort() };
}

/** One crash: kill, start again, and everything that the figure demands. */
async function survives(daemon: TestDaemon, jobId: string): Promise<Job> {
  await daemon.kill();
  await daemon.start();
  const job = await daemon.ended(jobId, 60_000);
  if (job.status === "FAILED") expect(job.error_message).not.toBe("");
  expect(["READY", "FAILED"]).toContain(job.status);
  const templates = await daemon.items("/v1/templates");
  const template = templates.find((t) => t["template_id"] === job.template_id);
  if (job.status === "READY") expect(template?.["status"]).toBe("READY");
  let left: string[] = [];
  await waitFor("nothing to be left", async () => {
    left = await leftovers(daemon);
    return left.length === 0;
  }).catch(() => undefined);
  expect(left).toEqual([]);
  return job;
}

/** Where the record stood when the daemon died, as the next life says. */
async function phaseAtDeath(daemon: TestDaemon, jobId: string): Promise<string> {
  const lines = await daemon.log(jobId);
  const line = lines.find((text) => text.startsWith("taken up again in phase "));
  return line?.slice("taken up again in phase ".length) ?? "ended";
}

/** The template goes, and with it the last of its bytes. */
async function deletesAll(daemon: TestDaemon, job: Job): Promise<void> {
  const { status } = await daemon.ask("DELETE", `/v1/templates/${job.template_id}`);
  expect([200, 404]).toContain(status);
  await waitFor("artifact and replica to go", async () => {
    const bytes = await daemon.names("artifacts/sha256");
    return bytes.length === 0 && (await daemon.names("templates")).length === 0;
  });
}

describe("kill -9 of a daemon that builds", () => {
  let dir: string;
  let registry: LayoutRegistry;
  let daemon: TestDaemon;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "tc-crash-"));
    const file = (path: string, bytes: number) => ({
      path,
      type: "file" as const,
      content: randomBytes(bytes),
    });
    const many = Array.from({ length: 400 }, (_, i) => file(`small-${i}`, 600));
    const layers = [
      { entries: [file("first", 900_000), ...many] },
      { entries: [file("second", 400_000)] },
    ];
    await assembleOciLayout(dir, { layers, tag: "demo", config: { Cmd: ["/first"] } });
    registry = await startLayoutRegistry(dir);
    daemon = await TestDaemon.make("rootfs");
    await daemon.start();
  });

  afterAll(async () => {
    await daemon.remove();
    await registry.stop();
    await rm(dir, { recursive: true, force: true });
  });

  // How long the registry makes the phase last, and how late in it the kill may come.
  const phases = [
    { phase: "PULLING", delayMs: 400, rate: Infinity, within: 400 },
    { phase: "UNPACKING", delayMs: 0, rate: 3_000_000, within: 400 },
    { phase: "BUILDING_EXT4", delayMs: 0, rate: Infinity, within: 25 },
    { phase: "GENERATING_JSON", delayMs: 0, rate: Infinity, within: 1.5 },
    { phase: "DISTRIBUTING", delayMs: 0, rate: Infinity, within: 1.5 },
    { phase: "CREATING_TEMPLATE", delayMs: 0, rate: Infinity, within: 1.5 },
    { phase: "SNAPSHOTTING", delayMs: 0, rate: Infinity, within: 1.5 },
    { phase: "REGISTERING", delayMs: 0, rate: Infinity, within: 1.5 },
  ];
  it.for(phases)(
    "leaves nothing and ends the job at ten moments in $phase",
    { timeout: 120_000 },
    async ({ phase, delayMs, rate, within }) => {
      const died: string[] = [];
      for (let kill = 0; kill < KILLS; kill += 1) {
        Object.assign(registry, { delayMs, bytesPerSecond: rate });
        const { job, seen, close } = await entersPhase(daemon, phase, () =>
          daemon.submit({
            source_image_ref: `${registry.host}/demo:demo`,
            writable_layer_size: "64Mi",
          }),
        );
        expect(seen).toBe(true);
        const pause = random() * within;
        if (pause >= 1) await sleep(pause);
        await daemon.kill();
        close();
        Object.assign(registry, { delayMs: 0, bytesPerSecond: Infinity });
        const ended = await survives(daemon, job.job_id);
        died.push(`${await phaseAtDeath(daemon, job.job_id)}→${ended.status}`);
        await deletesAll(daemon, ended);
      }
      console.log(`${phase}: ${died.join(" ")}`);
    },
  );
});

describe("kill -9 of a daemon with guests", () => {
  let dir: string;
  let image: string;
  let daemon: TestDaemon;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tc-crash-"));
    image = (await assembleDemoImage(dir)).reference;
    daemon = await TestDaemon.make("qemu");
    await daemon.start();
  });

  afterEach(async () => {
    await daemon.remove();
    await rm(dir, { recursive: true, force: true });
  });

  const request = () => ({
    source_image_ref: image,
    writable_layer_size: "64Mi",
    exposed_ports: [8080],
    container_overrides: {
      resources: { cpu: "1000m", mem: "128Mi" },
      probe: { port: 8080, path: "/health" },
    },
  });

  it("leaves no guest of a trial boot at ten moments of it", { timeout: 60_000 }, async () => {
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sleep(1 + random() * 300);
      await daemon.kill();
      await daemon.start();
    }
    await waitFor("the trial to end", () =>
      stat(join(daemon.dataDir, "qemu-trial.json")).catch(() => undefined),
    );
    let left: string[] = [];
    await waitFor("nothing to be left", async () => {
      left = await leftovers(daemon);
      return left.length === 0;
    }).catch(() => undefined);
    expect(left).toEqual([]);
  });

  it(
    "leaves no guest and ends the job at ten moments in SNAPSHOTTING",
    { timeout: 240_000 },
    async () => {
      const died: string[] = [];
      for (let kill = 0; kill < KILLS; kill += 1) {
        const { job, seen, close } = await entersPhase(daemon, "SNAPSHOTTING", () =>
          daemon.submit(request()),
        );
        expect(seen).toBe(true);
        await sleep(1 + random() * 4_000);
        await daemon.kill();
        close();
        const ended = await survives(daemon, job.job_id);
        died.push(`${await phaseAtDeath(daemon, job.job_id)}→${ended.status}`);
        await deletesAll(daemon, ended);
      }
      console.log(`SNAPSHOTTING with QEMU: ${died.join(" ")}`);
    },
  );

  it(
    "owns every guest and folder at ten moments of a sandbox's restore",
    { timeout: 120_000 },
    async () => {
      const job = await daemon.ended((await daemon.submit(request())).job_id);
      expect(job).toMatchObject({ status: "READY" });
      let survived = 0;
      for (let kill = 0; kill < KILLS; kill += 1) {
        const body = { template_id: job.template_id };
        const asked = daemon.ask("POST", "/v1/sandboxes", body).catch(() => undefined);
        await sleep(1 + random() * 250);
        await daemon.kill();
        const answer = await asked;
        await daemon.start();
        const left = await leftovers(daemon);
        expect(left).toEqual([]);
        const sandboxes = await daemon.items("/v1/sandboxes");
        // What was promised is kept; what was not may be there whole or not at all.
        if (answer?.status === 201) expect(sandboxes).toHaveLength(1);
        for (const sandbox of sandboxes) {
          survived += 1;
          expect(sandbox["status"]).toBe("RUNNING");
          await daemon.ask("DELETE", `/v1/sandboxes/${String(sandbox["sandbox_id"])}`);
        }
        expect(await leftovers(daemon)).toEqual([]);
      }
      console.log(`restore: ${survived} of ${KILLS} sandboxes outlived the daemon`);
      await deletesAll(daemon, job);
    },
  );
});
