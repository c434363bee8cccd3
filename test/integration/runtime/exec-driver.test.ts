/** The exec driver over the reference executable, and over ones that fail. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { ExecDriver } from "../../../src/daemon/runtime/exec/driver.ts";
import type { DriverSandbox, DriverSnapshot } from "../../../src/domain/index.ts";
import { processesBelow } from "../../support/daemon.ts";
import { referenceDriver } from "../../support/exec-driver.ts";
import { webGuest } from "../../support/guest.ts";
import { recordingLog } from "../../support/source-ports.ts";

const LONG_MS = 120_000;
const work = mkdtempSync(join(tmpdir(), "tc-execdriver-"));
const rootfsPath = join(work, "rootfs.ext4");
const sandboxesDir = join(work, "sandboxes");
const templatesDir = join(work, "templates");
const guest = webGuest({
  probe: { ...(webGuest().probe as NonNullable<ReturnType<typeof webGuest>["probe"]>), path: "/" },
});
const opened: ExecDriver[] = [];

const open = async (path: string, log = recordingLog()) => {
  const driver = await ExecDriver.open({ path, sandboxesDir, templatesDir, clock: realClock, log });
  opened.push(driver);
  return driver;
};
/** The reference, but for one verb: a shell script in its place. */
async function withVerb(verb: string, script: string): Promise<string> {
  const reference = await referenceDriver(work);
  const path = join(work, `with-${verb}`);
  writeFileSync(
    path,
    `#!/bin/sh\nif [ "$1" = ${verb} ]; then\n${script}\nfi\nexec ${reference} "$1"\n`,
  );
  chmodSync(path, 0o755);
  return path;
}
const REFUSES = `cat >/dev/null
echo '{"schema_version":1,"error":{"code":"failed","message":"not today"}}'; exit 1`;

beforeAll(() => {
  for (const dir of [sandboxesDir, templatesDir]) mkdirSync(dir);
  writeFileSync(rootfsPath, "a root filesystem");
});
afterEach(async () => {
  for (const driver of opened.splice(0)) await driver.close({ keepSandboxes: false });
  expect(readdirSync(sandboxesDir)).toEqual([]);
});
afterAll(async () => {
  expect(await processesBelow(work)).toEqual([]);
  rmSync(work, { recursive: true });
});

const make = (driver: ExecDriver, name: string) =>
  driver.makeSnapshot({ templateId: "tpl-x", rootfsPath, guest, dir: join(templatesDir, name) });
const restore = (driver: ExecDriver, sandboxId: string, snapshot: DriverSnapshot) =>
  driver.restore({ sandboxId, snapshot, guest, dir: join(sandboxesDir, sandboxId) });
async function note(sandbox: DriverSandbox, word = ""): Promise<string> {
  const at = sandbox.ports["80"];
  return (await fetch(`http://${at?.host}:${at?.port}/note?${word}`)).text();
}

describe("with the reference", { timeout: LONG_MS }, () => {
  test("a snapshot of a sandbox is carried to another host's folder and started there", async () => {
    const driver = await open(await referenceDriver(work));
    const template = await make(driver, "carried");
    expect(await driver.hasSnapshot(template)).toBe(true);
    const one = await restore(driver, "sb-a", template);
    await note(one, "carried");
    const dir = join(templatesDir, "snap");
    const snapshot = await driver.snapshotSandbox({ sandboxId: "sb-a", snapshotId: "snap-1", dir });
    expect(snapshot).toMatchObject({ snapshotId: "snap-1", versions: await driver.versions() });
    const { files, description } = await driver.exportSnapshot(snapshot);
    const input = {
      ...{ templateId: "tpl-x", snapshotId: "snap-1", versions: snapshot.versions, rootfsPath },
      ...{ description, files, dir: join(templatesDir, "elsewhere") },
    };
    const there = await driver.importSnapshot(input);
    const two = await restore(driver, "sb-b", there);
    expect(two).toMatchObject({ templateId: "tpl-x", snapshotId: "snap-1" });
    expect(await note(two)).toBe("carried");
    expect(await driver.usage()).toMatchObject({ sandboxes: 2, processes: 2 });

    const other = { ...input, dir: join(templatesDir, "bad"), files: [] };
    await expect(driver.importSnapshot(other)).rejects.toMatchObject({ code: "snapshot_failed" });
    for (const made of [template, snapshot, there]) await driver.removeSnapshot(made);
    expect(readdirSync(templatesDir)).toEqual([]);
  });

  test("a sandbox runs on as it was when what it goes back to is damaged", async () => {
    const driver = await open(await referenceDriver(work));
    const template = await make(driver, "damaged");
    const one = await restore(driver, "sb-a", template);
    await note(one, "mine");
    const path = join(template.dir, "state.json");
    const { length } = readFileSync(path);
    // Of the same length: only the executable can tell.
    writeFileSync(path, "x".repeat(length));
    const back = { sandboxId: "sb-a", snapshot: template, guest };
    await expect(driver.rollback(back)).rejects.toMatchObject({ code: "restore_failed" });
    expect(await driver.list()).toEqual([one]);
    expect(await note(one)).toBe("mine");
    await expect(restore(driver, "sb-b", template)).rejects.toMatchObject({
      code: "restore_failed",
      cause: { meta: { driver_error: "snapshot_unusable" } },
    });
    truncateSync(path, 1);
    expect(await driver.hasSnapshot(template)).toBe(false);
    await driver.removeSnapshot(template);
  });

  test("what an executable does not offer is refused by name", async () => {
    const without = ["live_snapshot", "rollback", "transfer", "remove_snapshot"];
    const driver = await open(await referenceDriver(work, without));
    const template = await make(driver, "plain");
    await restore(driver, "sb-a", template);
    const refused = { code: "driver_unsupported" };
    const dir = join(templatesDir, "snap");
    const freezing = driver.snapshotSandbox({ sandboxId: "sb-a", snapshotId: "snap-1", dir });
    await expect(freezing).rejects.toMatchObject(refused);
    const back = { sandboxId: "sb-a", snapshot: template, guest };
    await expect(driver.rollback(back)).rejects.toMatchObject(refused);
    await expect(driver.exportSnapshot(template)).rejects.toMatchObject(refused);
    await driver.removeSnapshot(template);
  });
});

describe("with an executable that fails", { timeout: LONG_MS }, () => {
  test("at its start, the driver is not available, in its words", async () => {
    const json = '{"schema_version":1,"available":false,"detail":"no /dev/vmm here"}';
    const path = await withVerb("probe", `cat >/dev/null; echo '${json}'; exit 0`);
    await expect(open(path)).rejects.toMatchObject({
      code: "driver_unavailable",
      message: "reference 1.0: no /dev/vmm here",
    });
  });

  test.each(["boot", "snapshot"])("at %s, a template's boot leaves nothing", async (verb) => {
    const driver = await open(await withVerb(verb, REFUSES));
    const lines: string[] = [];
    const dir = join(templatesDir, "failing");
    const making = driver.makeSnapshot(
      { templateId: "tpl-x", rootfsPath, guest, dir },
      { onLog: (line) => lines.push(line) },
    );
    await expect(making).rejects.toMatchObject({
      code: verb === "boot" ? "guest_boot_failed" : "snapshot_failed",
      cause: { message: expect.stringContaining("not today (failed, exit code 1)") },
    });
    expect(readdirSync(templatesDir)).toEqual([]);
    expect(await processesBelow(work)).toEqual([]);
  });

  test("at stop, the sandbox keeps its folder until it is ended", async () => {
    const reference = await open(await referenceDriver(work));
    const template = await make(reference, "kept");
    const one = await restore(reference, "sb-a", template);
    const failing = await open(await withVerb("stop", REFUSES));
    await expect(failing.stop("sb-a")).rejects.toMatchObject({ code: "driver_failed" });
    opened.pop();
    expect(await reference.list()).toEqual([one]);
    await reference.stop("sb-a");
    await reference.stop("sb-a");
    await reference.removeSnapshot(template);
  });

  test("at list, nobody says that nothing runs", async () => {
    const reference = await open(await referenceDriver(work));
    const template = await make(reference, "listed");
    await restore(reference, "sb-a", template);
    const failing = await open(await withVerb("list", "exit 9"));
    await expect(failing.list()).rejects.toMatchObject({ code: "driver_failed" });
    opened.pop();
    await reference.removeSnapshot(template);
  });

  test("what a boot that was killed has left is ended by the next start", async () => {
    const reference = await open(await referenceDriver(work));
    const left = join(templatesDir, "cut.new/instance");
    mkdirSync(left, { recursive: true });
    const template = await make(reference, "whole");
    const one = await restore(reference, "sb-a", template);
    // As after a crash in the middle of a start.
    rmSync(join(sandboxesDir, "sb-a/sandbox.json"));
    expect(await reference.reap()).toEqual([one.pid]);
    expect(readdirSync(templatesDir)).toEqual(["whole"]);
    await reference.removeSnapshot(template);
  });
});
