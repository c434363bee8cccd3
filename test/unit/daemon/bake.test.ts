import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readBakePlan } from "../../../src/daemon/bake.ts";
import { makeCertificate } from "../../support/certificates.ts";

let dir: string;
let files: { caFile: string; envdPath: string };
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "templatecenter-bake-"));
  files = { caFile: join(dir, "ca.crt"), envdPath: join(dir, "envd") };
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const inject = (value: string) => ({
  container_overrides: { annotations: { "cube.master.inject_envd": value } },
});

describe("what is baked (spec §3.9, rows 56 and 60)", () => {
  test("a CA that is asked for and not there fails by name of the file", async () => {
    await expect(readBakePlan({ with_cube_ca: true }, files)).rejects.toMatchObject({
      code: "ca_invalid",
      message: expect.stringContaining("ca.crt"),
    });
  });
  test("absent, it is baked where the operator has put one", async () => {
    expect((await readBakePlan({}, files)).caFingerprint).toBe("");
    await writeFile(files.caFile, makeCertificate("Test CA"));
    expect((await readBakePlan({}, files)).caFingerprint).toMatch(/^[0-9a-f]{64}$/);
    expect((await readBakePlan({ with_cube_ca: false }, files)).caFingerprint).toBe("");
  });
  test("a file with two certificates is refused", async () => {
    await writeFile(files.caFile, makeCertificate("One") + makeCertificate("Two"));
    await expect(readBakePlan({ with_cube_ca: true }, files)).rejects.toMatchObject({
      code: "ca_invalid",
    });
  });
  test("only exactly true injects the agent, and a missing one fails", async () => {
    const without = { ...inject("yes"), with_cube_ca: false };
    expect((await readBakePlan(without, files)).envdSha256).toBe("");
    const asked = { ...inject("true"), with_cube_ca: false };
    await expect(readBakePlan(asked, files)).rejects.toMatchObject({ code: "envd_missing" });
    await writeFile(files.envdPath, "agent");
    const plan = await readBakePlan(asked, files);
    expect(Buffer.from(plan.inputs.envd ?? []).toString()).toBe("agent");
    expect(plan.envdSha256).toMatch(/^[0-9a-f]{64}$/);
  });
});
