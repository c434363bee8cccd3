/** Which driver a host gets, the guest assets it needs, and the driver without VMs. */
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { installGuestAssets, readGuestAssets } from "../../../src/daemon/runtime/guest-assets.ts";
import { guestAssets, guestDir, openDriver, webGuest } from "../../support/guest.ts";
import { recordingLog } from "../../support/source-ports.ts";

const work = mkdtempSync(join(tmpdir(), "tc-select-"));
afterAll(() => rmSync(work, { recursive: true }));
beforeAll(async () => {
  await guestAssets();
}, 240_000);

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

describe("guest assets", () => {
  const copy = join(work, "guest");
  beforeEach(() => {
    rmSync(copy, { recursive: true, force: true });
    cpSync(guestDir, copy, { recursive: true });
  });

  test("that are whole are not made again", async () => {
    const log = recordingLog();
    const { installed, versions } = await installGuestAssets({ dir: copy, log });
    expect(installed).toBe(false);
    expect(log.lines).toEqual([]);
    expect(versions.kernel_version).toMatch(/-cloud-amd64$/);
  });

  test("say what is in them", async () => {
    const { kernel, initramfs, record } = await readGuestAssets(copy);
    expect(sha256(kernel)).toBe(record.files.vmlinuz.sha256);
    expect(sha256(initramfs)).toBe(record.files["initramfs.cpio"].sha256);
    const names = execFileSync("cpio", ["-it", "--quiet"], { input: readFileSync(initramfs) });
    expect(names.toString().split("\n")).toEqual(
      expect.arrayContaining(["init", "agent", "bin/busybox", "modules/virtio_blk.ko"]),
    );
  });

  test("that are absent or of another size are an error that names the command", async () => {
    truncateSync(join(copy, "vmlinuz"), 100);
    for (const dir of [copy, join(work, "nowhere")]) {
      await expect(readGuestAssets(dir)).rejects.toMatchObject({
        code: "guest_assets_missing",
        message: expect.stringContaining("templatecenter guest install"),
      });
    }
  });

  test("with a flipped byte are made again, bit for bit, in one rename", async () => {
    const bytes = readFileSync(join(copy, "initramfs.cpio"));
    bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1;
    writeFileSync(join(copy, "initramfs.cpio"), bytes);
    const repaired = await installGuestAssets({ dir: copy, log: recordingLog() });
    expect(repaired.installed).toBe(true);
    expect(sha256(repaired.initramfs)).toBe(repaired.record.files["initramfs.cpio"].sha256);
    const other = { dir: join(work, "other"), log: recordingLog(), refresh: true };
    expect((await installGuestAssets(other)).record).toEqual(repaired.record);
    expect(readdirSync(work).filter((name) => name.startsWith(".guest-"))).toEqual([]);
  }, 240_000);

  test("whose install is cancelled leave nothing half made", async () => {
    const dir = join(work, "cancelled");
    const signal = AbortSignal.abort(new Error("no longer wanted"));
    await expect(installGuestAssets({ dir, log: recordingLog(), signal })).rejects.toThrow();
    expect(existsSync(dir)).toBe(false);
    expect(readdirSync(work).filter((name) => name.startsWith(".guest-"))).toEqual([]);
  });
});

describe("the choice of a driver", () => {
  test("falls back to root filesystems with the reason, unless QEMU was asked for", async () => {
    const missing = join(work, "no-guest");
    const options = { requested: "auto", guestDir: missing } as const;
    const { driver, detail } = await openDriver(join(work, "auto"), options);
    expect(driver.name).toBe("rootfs");
    expect(detail()).toContain("templatecenter guest install");
    await expect(
      openDriver(join(work, "auto"), { requested: "qemu", guestDir: missing }),
    ).rejects.toMatchObject({ code: "driver_unavailable" });
  });

  test("tries the accelerator once for each boot of the host", async () => {
    const dir = join(work, "trial");
    const first = await openDriver(dir, { requested: "auto" });
    expect(first.driver.name).toBe("qemu");
    const found = await first.driver.probe();
    expect(found.available).toBe(true);
    const remembered = readFileSync(join(dir, "qemu-trial.json"), "utf8");
    expect(JSON.parse(remembered)).toMatchObject({ accelerator: found.accelerator });
    expect(first.detail()).toContain(String(found.accelerator));
    await first.driver.close({ keepSandboxes: false });

    const { mtimeMs } = statSync(join(dir, "qemu-trial.json"));
    const second = await openDriver(dir, { requested: "auto" });
    expect(await second.driver.probe()).toEqual(found);
    expect(statSync(join(dir, "qemu-trial.json")).mtimeMs).toBe(mtimeMs);
    await second.driver.close({ keepSandboxes: false });

    const stale = { ...(JSON.parse(remembered) as object), key: "another boot" };
    writeFileSync(join(dir, "qemu-trial.json"), JSON.stringify(stale));
    const third = await openDriver(dir, { requested: "auto" });
    // Closed while its trial is under way: that ends too.
    await third.driver.close({ keepSandboxes: false });
    expect(readdirSync(join(dir, "work"))).toEqual([]);
  }, 120_000);
});

describe("the driver without VMs", () => {
  const dataDir = join(work, "rootfs");
  const rootfsPath = join(work, "some.ext4");
  const open = async () => (await openDriver(dataDir, { requested: "rootfs" })).driver;
  const input = (templateId: string) => ({
    templateId,
    rootfsPath,
    guest: webGuest(),
    dir: join(dataDir, "templates", templateId),
  });

  test("has a replica as long as the root filesystem is in place", async () => {
    const driver = await open();
    await expect(driver.makeSnapshot(input("none"))).rejects.toMatchObject({
      code: "snapshot_failed",
    });
    writeFileSync(rootfsPath, "not empty");
    const snapshot = await driver.makeSnapshot(input("tpl"));
    expect(await (await open()).hasSnapshot(snapshot)).toBe(true);
    appendFileSync(rootfsPath, "!");
    expect(await driver.hasSnapshot(snapshot)).toBe(false);
    await driver.removeSnapshot(snapshot);
    expect(readdirSync(join(dataDir, "templates"))).toEqual([]);
  });

  test("lists sandboxes until they are stopped, over a restart and a half record", async () => {
    const driver = await open();
    const snapshot = await driver.makeSnapshot(input("tpl"));
    const dir = join(dataDir, "sandboxes/one");
    const restore = { sandboxId: "one", snapshot, guest: webGuest(), dir };
    const sandbox = await driver.restore(restore);
    expect(sandbox).toMatchObject({ sandboxId: "one", templateId: "tpl", ports: {} });
    await expect(driver.restore(restore)).rejects.toMatchObject({ code: "sandbox_already_exists" });
    mkdirSync(join(dataDir, "sandboxes/half"));
    writeFileSync(join(dataDir, "sandboxes/half/sandbox.json"), "{");

    const next = await open();
    expect(await next.list()).toEqual([sandbox]);
    expect(await next.reap()).toEqual([]);
    expect(readdirSync(join(dataDir, "sandboxes"))).toEqual(["one"]);
    await next.stop("one");
    await next.stop("one");
    expect(await next.list()).toEqual([]);
  });
});
