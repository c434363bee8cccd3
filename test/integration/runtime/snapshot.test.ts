/** Snapshots of running guests under real QEMU, and what is done with them. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { findVms } from "../../../src/daemon/runtime/qemu/vm-process.ts";
import type { DriverSnapshot, RuntimeDriver } from "../../../src/domain/index.ts";
import { askState, guestAssets, makeGuestRootfs, openDriver } from "../../support/guest.ts";
import { webGuest } from "../../support/guest.ts";
import { recordingLog } from "../../support/source-ports.ts";

const guest = webGuest();
const short = mkdtempSync(join(tmpdir(), "tc-snap-"));
const dataDir = join(short, "data,x", "f".repeat(90));
const log = recordingLog();
let driver: RuntimeDriver;
let rootfsPath: string;
let template: DriverSnapshot;

const sandboxDir = (id: string) => join(dataDir, "sandboxes", id);
const snapshotDir = (id: string) => join(dataDir, "templates", id);
const restore = (sandboxId: string, from = template) =>
  driver.restore({ sandboxId, snapshot: from, guest, dir: sandboxDir(sandboxId) });
const take = (sandboxId: string, snapshotId: string) =>
  driver.snapshotSandbox({ sandboxId, snapshotId, dir: snapshotDir(snapshotId) });
const processes = async () => (await findVms([dataDir])).map(({ id }) => id.pid);

beforeAll(async () => {
  await guestAssets();
  mkdirSync(dataDir, { recursive: true });
  rootfsPath = makeGuestRootfs(short);
  ({ driver } = await openDriver(dataDir, { log }));
  template = await driver.makeSnapshot({
    ...{ templateId: "tpl", rootfsPath, guest, dir: snapshotDir("tpl") },
  });
}, 240_000);

afterEach(async () => {
  for (const { sandboxId } of await driver.list()) await driver.stop(sandboxId);
});

afterAll(async () => {
  await driver.close({ keepSandboxes: false });
  expect(await processes()).toEqual([]);
  rmSync(short, { recursive: true });
});

describe("a snapshot of a running sandbox", () => {
  test("holds memory and disk of one moment, and the sandbox runs on", async () => {
    const sandbox = await restore("one");
    expect((await askState(sandbox, "before")).note).toBe("before");
    const snapshot = await take("one", "snap-1");
    expect(snapshot).toMatchObject({ templateId: "tpl", snapshotId: "snap-1", driver: "qemu" });
    expect(readdirSync(snapshotDir("snap-1")).sort()).toEqual([
      ...["disk.qcow2", "memory", "snapshot.json", "state"],
    ]);
    expect(readdirSync(sandboxDir("one"))).not.toContain("layer.qcow2");
    expect((await askState(sandbox, "after")).note).toBe("after");
    const other = await restore("two", snapshot);
    expect(other).toMatchObject({ templateId: "tpl", snapshotId: "snap-1" });
    expect((await askState(other)).note).toBe("before");
    const { ports } = await driver.rollback({ sandboxId: "one", snapshot, guest });
    expect(ports).toEqual(sandbox.ports);
    expect((await askState(sandbox)).note).toBe("before");
    expect(await processes()).toHaveLength(2);
    // The header names what it lies on; only the record knows where that is.
    symlinkSync(rootfsPath, join(snapshotDir("snap-1"), "rootfs"));
    await driver.stop("one");
    await driver.stop("two");
    const disk = execFileSync("qemu-img", ["check", join(snapshotDir("snap-1"), "disk.qcow2")]);
    expect(disk.toString()).toContain("No errors were found");
    expect(existsSync(snapshotDir("snap-1.new"))).toBe(false);
    await driver.removeSnapshot(snapshot);
  }, 60_000);
});
