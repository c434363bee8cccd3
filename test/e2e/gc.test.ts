/** One real daemon with a grace that does not end by itself: what an operator sees and can do. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 120_000;
let dir: string;
let daemon: TestDaemon;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-gc-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(100_000) };
  await assembleOciLayout(join(dir, "small"), { layers: [{ entries: [file] }], tag: "demo" });
  daemon = await TestDaemon.make("rootfs", ["--artifact-grace", "1h"]);
  await daemon.start();
}, LONG_MS);

afterAll(async () => {
  await daemon.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

it(
  "keeps an artifact for its grace, says why, and takes it back",
  { timeout: LONG_MS },
  async () => {
    const source_image_ref = `oci:${join(dir, "small")}:demo`;
    const request = { source_image_ref, writable_layer_size: "64Mi" };
    const job = await daemon.ended((await daemon.submit(request)).job_id);
    expect(job).toMatchObject({ status: "READY" });
    const artifact = `/v1/artifacts/${String(job.artifact_id)}`;

    expect(await daemon.get(`${artifact}/why`)).toMatchObject({
      why: "used: 1 reference",
      references: [{ kind: "template", id: job.template_id }],
    });
    expect(await daemon.get(`/v1/templates/${job.template_id}/why`)).toMatchObject({
      references: [],
      nodes: [{ ready: true, why: "", holds_artifact: true }],
    });
    expect((await daemon.ask("POST", "/v1/gc?dry_run=true")).body).toMatchObject({ items: [] });
    const notDue = await daemon.ask("POST", `${artifact}/undelete`);
    expect(notDue.body).toMatchObject({ code: "wrong_status" });

    expect((await daemon.ask("DELETE", `/v1/templates/${job.template_id}`)).status).toBe(200);
    const due = async () =>
      Number((await daemon.get(artifact))["gc_deadline"]) * 1_000 - Date.now();
    expect(await due()).toBeLessThanOrEqual(3_600_000);
    const plan = (await daemon.ask("POST", "/v1/gc?dry_run=true")).body;
    const [item] = plan["items"] as Row[];
    expect(item).toMatchObject({ artifact_id: job.artifact_id, status: "READY", step: "none" });
    expect(String(item?.["why"])).toMatch(/^nobody refers to it; kept until /);
    expect(plan["bytes"]).toBe(100_000);
    await daemon.ask("POST", "/v1/gc");
    expect(await daemon.names("artifacts/sha256")).toHaveLength(1);

    expect((await daemon.ask("POST", `${artifact}/undelete`)).body).toMatchObject({
      status: "READY",
    });
    expect(await due()).toBeGreaterThan(6 * 24 * 3_600_000);
    const again = await daemon.ended((await daemon.submit(request)).job_id);
    expect(again).toMatchObject({ status: "READY", artifact_id: job.artifact_id });
    const phases = again["phases"] as Row[];
    expect(phases.map((phase) => phase["phase"])).not.toContain("BUILDING_EXT4");
    await waitFor("the reference to be seen", async () =>
      String((await daemon.get(`${artifact}/why`))["why"]).startsWith("used"),
    );
    expect((await daemon.get(artifact))["unreferenced_at"]).toBeUndefined();
  },
);
