/** Snapshots of running guests under real QEMU, and what is done with them. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { removeForwards } from "../../../src/daemon/runtime/qemu/machine.ts";
import { Qmp } from "../../../src/daemon/runtime/qemu/qmp.ts";
import { findVms } from "../../../src/daemon/runtime/qemu/vm-process.ts";
import { emptyOverlay } from "../../../src/daemon/runtime/qcow2.ts";
import type { DriverSnapshot, RuntimeDriver, SnapshotExport } from "../../../src/domain/index.ts";
import { ask, askState, guestAssets, makeGuestRootfs, openDriver } from "../../support/guest.ts";
import { webGuest } from "../../support/guest.ts";
import { recordingLog } from "../../support/source-ports.ts";
import { startTypeScript } from "../../support/ts-process.ts";

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
const taken = new Map<string, DriverSnapshot>();
const take = async (sandboxId: string, snapshotId: string) => {
  const dir = snapshotDir(snapshotId);
  const snapshot = await driver.snapshotSandbox({ sandboxId, snapshotId, dir });
  taken.set(snapshotId, snapshot);
  return snapshot;
};
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
  for (const snapshot of taken.values()) await driver.removeSnapshot(snapshot);
  taken.clear();
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

  test("can be taken again and again; the disk gets no deeper and nothing is left", async () => {
    const sandbox = await restore("often");
    for (const number of [1, 2, 3]) {
      expect((await askState(sandbox, `note-${number}`)).note).toBe(`note-${number}`);
      await take("often", `often-${number}`);
    }
    expect(readdirSync(sandboxDir("often")).sort()).toEqual([
      ...["disk.qcow2", "origin-disk.qcow2", "origin-memory", "origin-state"],
      ...["qemu.log", "qmp.sock", "vm.json"],
    ]);
    for (const number of [3, 1, 2]) {
      const snapshot = taken.get(`often-${number}`)!;
      const back = await driver.rollback({ sandboxId: "often", snapshot, guest });
      expect(back.snapshotId).toBe(`often-${number}`);
      expect((await askState(back)).note).toBe(`note-${number}`);
      // A snapshot of what runs on a snapshot is as good as its own.
      const again = await take("often", `again-${number}`);
      const other = await restore(`other-${number}`, again);
      expect((await askState(other)).note).toBe(`note-${number}`);
      await driver.stop(`other-${number}`);
    }
    expect(await processes()).toHaveLength(1);
  }, 120_000);

  test("needs nothing of what the sandbox was started from", async () => {
    const sandbox = await restore("first");
    await askState(sandbox, "kept");
    const snapshot = await take("first", "kept-1");
    const onIt = await restore("second", snapshot);
    const next = await take("second", "kept-2");
    await driver.stop("first");
    await driver.removeSnapshot(snapshot);
    expect((await askState(onIt)).note).toBe("kept");
    // Its own files are gone by their names, but not for it.
    const last = await take("second", "kept-3");
    await driver.stop("second");
    for (const from of [next, last]) {
      expect(await driver.hasSnapshot(from)).toBe(true);
      const third = await restore("third", from);
      expect((await askState(third)).note).toBe("kept");
      await driver.stop("third");
    }
  }, 120_000);

  test("that is no longer wanted leaves nothing, and the sandbox runs on", async () => {
    const sandbox = await restore("wanted");
    const steps = ["copying memory while the guest runs", "the guest stood still"];
    for (const step of steps) {
      const abort = new AbortController();
      const onStep = (said: string) => {
        if (said.startsWith(step)) abort.abort(new Error("no longer wanted"));
      };
      const input = { sandboxId: "wanted", snapshotId: "cut", dir: snapshotDir("cut") };
      const taking = driver.snapshotSandbox(input, { signal: abort.signal, onStep });
      await expect(taking).rejects.toThrow("no longer wanted");
      expect(
        readdirSync(join(dataDir, "templates")).filter((one) => one.startsWith("cut")),
      ).toEqual([]);
      expect(readdirSync(sandboxDir("wanted"))).not.toContain("layer.qcow2");
      expect((await askState(sandbox, step.split(" ")[0])).note).toBe(step.split(" ")[0]);
    }
    await expect(take("nobody", "none")).rejects.toMatchObject({ code: "sandbox_not_found" });
  }, 60_000);

  test("starts elsewhere from the files that were handed over, none with a path", async () => {
    const sandbox = await restore("here");
    await askState(sandbox, "carried");
    const snapshot = await take("here", "carried");
    const { description, files } = await driver.exportSnapshot(snapshot);
    expect(files.map(({ name }) => name).sort()).toEqual(["disk.qcow2", "memory", "state"]);
    for (const { path, digest, manifest } of files) {
      expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(manifest.sizeBytes).toBe(statSync(path).size);
      expect(readFileSync(path).includes(short)).toBe(false);
    }
    const otherDir = join(short, "other");
    const rootfs = join(otherDir, "rootfs.ext4");
    mkdirSync(otherDir);
    copyFileSync(rootfsPath, rootfs);
    const { driver: other } = await openDriver(otherDir);
    const input = {
      ...{ templateId: "tpl", snapshotId: "carried", versions: snapshot.versions, description },
      ...{ files, rootfsPath: rootfs, dir: join(otherDir, "templates/carried") },
    };
    const lacking = { ...input, files: files.slice(1) };
    await expect(other.importSnapshot(lacking)).rejects.toMatchObject({ code: "snapshot_failed" });
    const imported = await other.importSnapshot(input);
    await driver.stop("here");
    await driver.removeSnapshot(snapshot);
    expect(await other.hasSnapshot(imported)).toBe(true);
    const dir = join(otherDir, "sandboxes/there");
    const there = await other.restore({ sandboxId: "there", snapshot: imported, guest, dir });
    expect((await askState(there)).note).toBe("carried");
    const digests = async (of: Promise<SnapshotExport>) =>
      (await of).files.map(({ digest }) => digest).sort();
    expect(await digests(other.exportSnapshot(imported))).toEqual(
      files.map(({ digest }) => digest).sort(),
    );
    await other.close({ keepSandboxes: false });
    await expect(driver.exportSnapshot(snapshot)).rejects.toMatchObject({
      code: "snapshot_not_found",
    });
  }, 60_000);
});

describe("a snapshot made to stand by itself", () => {
  test("has its whole disk in one sound filesystem, and starts on that alone", async () => {
    const sandbox = await restore("alone");
    await askState(sandbox, "whole");
    const snapshot = await take("alone", "alone-1");
    await driver.stop("alone");
    const to = join(short, "flat.ext4");
    const { snapshot: flat, rootfs } = await driver.flattenSnapshot({ snapshot, to });
    expect(rootfs.manifest.sizeBytes).toBe(statSync(to).size);
    expect(statSync(to).size).toBe(statSync(rootfsPath).size);
    const { description, files } = await driver.exportSnapshot(flat);
    // Only what playing the journal back has changed.
    const disk = files.find(({ name }) => name === "disk.qcow2")!.manifest.sizeBytes;
    const empty = emptyOverlay(statSync(to).size, { path: "rootfs", format: "raw" }).length;
    expect(disk).toBeGreaterThan(empty);
    expect(disk).toBeLessThan(statSync(to).size / 4);
    const dir = snapshotDir("tpl-2");
    const { versions } = snapshot;
    const made = await driver.importSnapshot({
      ...{ templateId: "tpl-2", versions, description, files, rootfsPath: to, dir },
    });
    expect(made).not.toHaveProperty("snapshotId");
    await driver.removeSnapshot(flat);
    const young = await restore("young", made);
    expect(young).toMatchObject({ templateId: "tpl-2" });
    expect((await askState(young)).note).toBe("whole");
    await driver.stop("young");
    await driver.removeSnapshot(made);
    execFileSync("e2fsck", ["-fn", to]);
    rmSync(to);
    await expect(driver.flattenSnapshot({ snapshot, to })).rejects.toMatchObject({
      code: "snapshot_not_found",
    });
  }, 60_000);
});

describe("a guest that is to flush its file systems first", () => {
  const isOnDisk = (snapshot: DriverSnapshot, word: string) =>
    readFileSync(join(snapshot.dir, "disk.qcow2")).includes(word);
  const takeSynced = async (sandboxId: string, snapshotId: string) => {
    const steps: string[] = [];
    const input = { sandboxId, snapshotId, dir: snapshotDir(snapshotId), sync: true };
    const onStep = (step: string) => void steps.push(step);
    const snapshot = await driver.snapshotSandbox(input, { onStep });
    taken.set(snapshotId, snapshot);
    return { snapshot, steps: steps.join("; ") };
  };

  test("has done so when it is frozen, also for a daemon that has not started it", async () => {
    const sandbox = await restore("flushing");
    await ask(sandbox, "/cgi-bin/write?written-just-now");
    const first = await takeSynced("flushing", "first");
    expect(first.steps).toContain("the guest flushed its file systems in");
    expect(first.snapshot).not.toHaveProperty("unsynced");
    expect(isOnDisk(first.snapshot, "written-just-now")).toBe(true);
    await driver.close({ keepSandboxes: true });
    ({ driver } = await openDriver(dataDir, { log }));
    for (const word of ["adopted-once", "adopted-twice"]) {
      await ask(sandbox, `/cgi-bin/write?${word}`);
      const { snapshot, steps } = await takeSynced("flushing", word);
      expect(steps).toContain("the guest flushed its file systems in");
      expect(isOnDisk(snapshot, word)).toBe(true);
    }
  }, 120_000);

  test("and whose agent is gone is frozen all the same, and that is told", async () => {
    const sandbox = await restore("dumb");
    await ask(sandbox, "/cgi-bin/kill-agent");
    const { snapshot, steps } = await takeSynced("dumb", "dumb");
    expect(snapshot.unsynced).toBe("the guest's agent does not run");
    expect(steps).toContain("the guest's agent does not run");
  }, 60_000);
});

describe("a rollback", () => {
  test("that fails leaves the sandbox as it was, its port included", async () => {
    const sandbox = await restore("kept");
    await askState(sandbox, "before");
    const snapshot = await take("kept", "damaged");
    await askState(sandbox, "after");
    truncateSync(join(snapshot.dir, "state"), 2_000);
    const rolling = driver.rollback({ sandboxId: "kept", snapshot, guest });
    await expect(rolling).rejects.toMatchObject({ code: "restore_failed" });
    expect((await askState(sandbox)).note).toBe("after");
    expect(await processes()).toEqual([sandbox.pid]);
    expect(readdirSync(join(dataDir, "sandboxes"))).toEqual(["kept"]);
    const [listed] = await driver.list();
    expect(listed).toEqual(sandbox);
  }, 60_000);

  test("goes back to the template too, and of two at once one waits for the other", async () => {
    const sandbox = await restore("back");
    await askState(sandbox, "changed");
    const snapshot = await take("back", "changed");
    const roll = (to: DriverSnapshot) =>
      driver.rollback({ sandboxId: "back", snapshot: to, guest });
    const [first, second] = await Promise.all([roll(snapshot), roll(template)]);
    expect([first.snapshotId, second.snapshotId]).toEqual(["changed", undefined]);
    expect(second.ports).toEqual(sandbox.ports);
    expect((await askState(second)).note).toBe("as built");
    expect(await processes()).toEqual([second.pid]);
    expect(await driver.list()).toEqual([second]);
  }, 60_000);
});

describe("after the daemon was killed", () => {
  const settled = async () => {
    const { driver: next } = await openDriver(dataDir);
    const [sandbox, ...others] = await next.list();
    expect(others).toEqual([]);
    expect((await askState(sandbox!)).note).toBe("as built");
    await next.reap();
    expect(await processes()).toEqual([sandbox!.pid]);
    expect(readdirSync(join(dataDir, "sandboxes"))).toEqual(["survivor"]);
    return { next, sandbox: sandbox! };
  };

  test.each([
    "copying memory while the guest runs",
    "the guest stood still",
    "taken",
    "restoring beside",
    "switching",
    "rolled back",
  ])(
    "at the step '%s', its sandbox is found in order and can be snapshotted",
    async (step) => {
      await restore("survivor");
      await driver.close({ keepSandboxes: true });
      const args = [dataDir, "survivor", JSON.stringify(template)];
      const child = startTypeScript("integration/runtime/snapshot-process.ts", args);
      let said = "";
      child.stdout!.on("data", (bytes: Buffer) => {
        said += bytes.toString();
        if (said.includes(step)) child.kill("SIGKILL");
      });
      const errors: Buffer[] = [];
      child.stderr!.on("data", (bytes: Buffer) => errors.push(bytes));
      await once(child, "exit");
      expect(said, Buffer.concat(errors).toString()).toContain(step);
      const { next } = await settled();
      const left = readdirSync(join(dataDir, "templates"));
      expect(left.filter((name) => name.endsWith(".new"))).toEqual([]);
      driver = next;
      const snapshot = await take("survivor", "of-survivor");
      const back = await driver.rollback({ sandboxId: "survivor", snapshot, guest });
      expect((await askState(back)).note).toBe("as built");
      for (const name of left.filter((one) => one.startsWith("killed-"))) {
        rmSync(snapshotDir(name), { recursive: true });
      }
    },
    60_000,
  );

  test("within a pause, or with the ports taken away, the guest runs on as it was", async () => {
    const sandbox = await restore("survivor");
    await driver.close({ keepSandboxes: true });
    const qmp = await Qmp.open(join(sandboxDir("survivor"), "qmp.sock"), realClock);
    await qmp.execute("stop");
    await removeForwards(qmp, sandbox.ports);
    qmp.close();
    const { next, sandbox: found } = await settled();
    expect(found).toEqual(sandbox);
    driver = next;
  }, 60_000);

  test("between the two renames of a rollback, the new one has the sandbox's folder", async () => {
    const sandbox = await restore("survivor");
    await driver.close({ keepSandboxes: true });
    mkdirSync(join(dataDir, "sandboxes/.gone-survivor"));
    renameSync(sandboxDir("survivor"), join(dataDir, "sandboxes/.next-survivor"));
    const { next, sandbox: found } = await settled();
    expect(found).toEqual(sandbox);
    driver = next;
  }, 60_000);
});
