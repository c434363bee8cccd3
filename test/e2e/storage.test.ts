/** One real daemon whose data folder is a small ext4 file system of its own, really filled. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, rm, statfs, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestDaemon, waitFor, type Job, type Row } from "../support/daemon.ts";

const LONG_MS = 240_000;
const MIB = 1024 ** 2;
const DATA_BYTES = 30 * MIB;
let dir: string;
let daemon: TestDaemon;
let filler: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-storage-"));
  for (const name of ["first", "second"]) {
    const file = { path: "data", type: "file" as const, content: randomBytes(DATA_BYTES) };
    await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
  }
  const image = join(dir, "disk.img");
  await writeFile(image, "");
  await truncate(image, 256 * MIB);
  execFileSync("mkfs.ext4", ["-q", "-F", "-m", "1", image]);
  const flags = ["--artifact-grace", "1h", "--orphan-grace", "1s"];
  daemon = await TestDaemon.make("rootfs", [...flags, "--storage-thresholds", "70,85,95"]);
  execFileSync("mount", ["-o", "loop", image, daemon.dataDir]);
  filler = join(daemon.dataDir, "filler");
  await daemon.start();
}, LONG_MS);

afterAll(async () => {
  await daemon.kill();
  execFileSync("umount", [daemon.dataDir]);
  await daemon.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const storage = async (): Promise<Row> =>
  (await daemon.items("/v1/storage?refresh=true"))[0] as Row;
/** Takes room until so many percent are in use. */
async function fillTo(percent: number): Promise<void> {
  const { bsize, blocks, bfree, bavail } = await statfs(daemon.dataDir);
  const used = blocks - bfree;
  const more = Math.floor(((used + bavail) * percent) / 100) - used;
  const file = await open(filler, "a");
  await file.write(Buffer.alloc(more * bsize, 1));
  await file.sync();
  await file.close();
}
const make = async (name: string): Promise<Job> => {
  const source_image_ref = `oci:${join(dir, name)}:demo`;
  const { job_id } = await daemon.submit({ source_image_ref, writable_layer_size: "64Mi" });
  return daemon.ended(job_id, LONG_MS);
};
const plan = async () => (await daemon.ask("POST", "/v1/gc?dry_run=true")).body;

it("what nothing knows is shown by the dry run, then removed", { timeout: LONG_MS }, async () => {
  const stray = join(daemon.dataDir, "artifacts/partial", "0".repeat(64));
  await mkdir(stray, { recursive: true });
  await writeFile(join(stray, "rootfs.ext4"), Buffer.alloc(MIB, 1));
  await mkdir(join(daemon.dataDir, "templates/tpl-gone.new"));
  const found = await waitFor("both to be found", async () => {
    const orphans = (await plan())["orphans"] as Row[];
    return orphans.length === 2 ? orphans : undefined;
  });
  expect(found).toMatchObject([
    { folder: "artifacts/partial", name: "0".repeat(64), removed: false },
    { folder: "templates", name: "tpl-gone.new", removed: false },
  ]);
  const text = (await daemon.cli(["gc", "--dry-run"])).stdout;
  expect(text).toMatch(/artifacts\/partial\/0{64} +\S+ +1\.0 MiB .* kept/);
  expect(await readdir(join(daemon.dataDir, "templates"))).toHaveLength(1);
  await waitFor("their grace to end", async () => {
    await daemon.ask("POST", "/v1/gc");
    return ((await plan())["orphans"] as Row[]).length === 0;
  });
  expect(await daemon.names("artifacts/partial")).toEqual([]);
  expect(await daemon.names("templates")).toEqual([]);
  const metrics = await (await daemon.fetch(daemon.url, "/metrics")).text();
  expect(metrics).toContain('templatecenter_orphans_swept_total{folder="templates"} 1');
});

it(
  "row 111: modes follow the disk; what nobody refers to is evicted; builds without room are refused and leave nothing",
  { timeout: LONG_MS },
  async () => {
    const first = await make("first");
    expect(first).toMatchObject({ status: "READY" });
    expect(await storage()).toMatchObject({ mode: "healthy", writable: true, volume_count: 1 });
    expect((await daemon.ask("DELETE", `/v1/templates/${first.template_id}`)).status).toBe(200);
    expect(await daemon.names("artifacts/sha256")).toHaveLength(1);

    // In its grace, until the disk is short of room.
    await fillTo(88);
    expect(await storage()).toMatchObject({ mode: "reject", writable: false });
    const { evictions } = await plan();
    // It may have happened already: the disk is looked at every 30 s.
    for (const one of evictions as Row[]) {
      const { artifact_id } = first;
      expect(one).toMatchObject({ artifact_id, kind: "unreferenced", bytes: DATA_BYTES });
    }
    await waitFor("the eviction", async () => (await storage())["mode"] === "warn", 90_000);
    expect(await daemon.names("artifacts/sha256")).toEqual([]);

    const refused = await make("second");
    expect(refused).toMatchObject({ status: "FAILED", error_code: "disk_space_low" });
    expect(refused.error_message).toMatch(/bytes are needed on node .*, \d+ are free/);

    await fillTo(98);
    expect(await storage()).toMatchObject({ mode: "delete_only", writable: false });
    const shown = await daemon.cli(["storage", "--refresh"]);
    expect(shown.stdout).toMatch(/delete_only +98%/);
    expect(await make("second")).toMatchObject({ error_code: "storage_not_writable" });
    expect(await daemon.names("artifacts/sha256")).toEqual([]);
    expect(await daemon.names("work/artifacts")).toEqual([]);

    await rm(filler);
    expect(await make("second")).toMatchObject({ status: "READY" });
    const metrics = await (await daemon.fetch(daemon.url, "/metrics")).text();
    expect(metrics).toContain('templatecenter_evictions_total{kind="unreferenced"} 1');
    expect(metrics).toContain('templatecenter_storage_refused_total{what="build"} 2');
  },
);

it("a disk without a byte left is told of, and mends itself", { timeout: LONG_MS }, async () => {
  const file = await open(filler, "w");
  const fill = async () => {
    for (;;) await file.write(Buffer.alloc(64 * 1024, 1));
  };
  await expect(fill()).rejects.toMatchObject({ code: "ENOSPC" });
  await file.close();
  expect(await storage()).toMatchObject({ mode: "delete_only", free_bytes: 0 });
  const source_image_ref = `oci:${join(dir, "first")}:demo`;
  const answer = await daemon.ask("POST", "/v1/templates/from-image", {
    source_image_ref,
    writable_layer_size: "64Mi",
  });
  // Either the catalog has no room for the job, or the job none for the bytes.
  if (answer.status === 202) {
    const { error_code } = await daemon.ended(String(answer.body["job_id"]), LONG_MS);
    expect(error_code).toBe("storage_not_writable");
  } else expect(answer.body).toMatchObject({ code: "catalog_degraded" });
  await rm(filler);
  await waitFor("it to write again", async () => {
    const { ok } = await daemon.fetch(daemon.url, "/readyz");
    return ok && (await storage())["mode"] === "healthy";
  });
});
