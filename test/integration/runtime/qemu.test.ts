/**
 * Real guests under real QEMU, one after the other; all of it in a data directory whose path is
 * longer than a socket's may be.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { findVms } from "../../../src/daemon/runtime/qemu/vm-process.ts";
import type { DriverSnapshot, RuntimeDriver } from "../../../src/domain/index.ts";
import { ask, askState, guestAssets, makeGuestRootfs, openDriver } from "../../support/guest.ts";
import { webGuest } from "../../support/guest.ts";
import { recordingLog } from "../../support/source-ports.ts";
import { startTypeScript } from "../../support/ts-process.ts";

const BOOT_MS = 90_000;
const words = ["-", "", "two words", 'it\'s "$HOME" `x` \\ *', "a=b", "ünï©ode\nline", "end"];
// The words are kept as the guest's shell sees them, each with a NUL behind it.
const guest = webGuest({
  command: ["/bin/sh", "-c"],
  args: [
    'printf "%s\\0" "$@" > /srv/words; cp /proc/$$/environ /srv/env; pwd > /srv/folder; ' +
      "exec httpd -f -p 80 -h /srv",
    ...words,
  ],
  env: ["GREETING=it's\ta 'test'", "odd.name=1"],
  workingDir: "/made/for/it",
});

const short = mkdtempSync(join(tmpdir(), "tc-qemu-"));
const dataDir = join(short, "d".repeat(60), "e,".repeat(30), "f".repeat(40));
const log = recordingLog();
const consoleLines: string[] = [];
let driver: RuntimeDriver;
let rootfsPath: string;
let snapshot: DriverSnapshot;

const sandboxDir = (id: string) => join(dataDir, "sandboxes", id);
const templateDir = (id: string) => join(dataDir, "templates", id);
const restore = (sandboxId: string, from = snapshot, spec = guest) =>
  driver.restore({ sandboxId, snapshot: from, guest: spec, dir: sandboxDir(sandboxId) });
const processes = async () => (await findVms([dataDir])).map(({ id }) => id.pid);

beforeAll(async () => {
  await guestAssets();
  mkdirSync(dataDir, { recursive: true });
  rootfsPath = makeGuestRootfs(short);
  ({ driver } = await openDriver(dataDir, { log }));
  snapshot = await driver.makeSnapshot(
    { templateId: "tpl", rootfsPath, guest, dir: templateDir("tpl") },
    { onLog: (line) => consoleLines.push(line) },
  );
}, 240_000);

afterEach(async () => {
  for (const { sandboxId } of await driver.list()) await driver.stop(sandboxId);
});

afterAll(async () => {
  await driver.close({ keepSandboxes: false });
  expect(await processes()).toEqual([]);
  rmSync(short, { recursive: true });
});

describe("a template's one boot", () => {
  test("leaves a whole snapshot and no process", async () => {
    expect(await driver.hasSnapshot(snapshot)).toBe(true);
    expect(await processes()).toEqual([]);
    expect(readdirSync(join(dataDir, "templates"))).toEqual(["tpl"]);
    expect(readdirSync(templateDir("tpl")).sort()).toEqual([
      ...["disk.qcow2", "memory", "qemu.log", "snapshot.json", "state"],
    ]);
    expect(snapshot.timings["first_answer_ms"]).toBeGreaterThan(0);
    expect(consoleLines).toContain("templatecenter: command started");
    const disk = execFileSync("qemu-img", ["check", join(templateDir("tpl"), "disk.qcow2")]);
    expect(disk.toString()).toContain("No errors were found");
  });

  test("records the versions that memory snapshots depend on", async () => {
    expect(snapshot.versions).toEqual(await driver.versions());
    expect(snapshot.versions).toMatchObject({
      guest_image_version: expect.stringMatching(/^1\.0\.0\+[0-9a-f]{12}$/),
      agent_version: expect.stringMatching(/^1\.1\.0\+[0-9a-f]{8}$/),
      kernel_version: expect.stringMatching(/-cloud-amd64$/),
      extra: {
        machine: "microvm",
        qemu_version: expect.stringMatching(/^\d+\./),
        cpu_model: expect.stringMatching(/^max of /),
      },
    });
    expect((await driver.probe()).accelerator).toBe(snapshot.versions.extra["accelerator"]);
  });

  test(
    "is cancelled at once, and nothing is left",
    async () => {
      const abort = new AbortController();
      const boot = driver.makeSnapshot(
        { templateId: "cut", rootfsPath, guest, dir: templateDir("cut") },
        { signal: abort.signal, onLog: () => abort.abort(new Error("no longer wanted")) },
      );
      await expect(boot).rejects.toThrow("no longer wanted");
      expect(await processes()).toEqual([]);
      expect(readdirSync(join(dataDir, "templates"))).toEqual(["tpl"]);
    },
    BOOT_MS,
  );

  test(
    "fails with the console's last lines when the probe is not answered",
    async () => {
      const deaf = webGuest({ command: ["/bin/sh", "-c"], args: ["echo deaf; exec sleep 600"] });
      const probe = { ...deaf.probe!, failureThreshold: 60 };
      const boot = driver.makeSnapshot({
        templateId: "deaf",
        rootfsPath,
        guest: { ...deaf, probe },
        dir: templateDir("deaf"),
      });
      await expect(boot).rejects.toMatchObject({
        code: "guest_probe_failed",
        meta: { bad_answers: 60, console_tail: expect.arrayContaining(["deaf"]) },
      });
      expect(existsSync(templateDir("deaf"))).toBe(false);
      expect(await processes()).toEqual([]);
    },
    BOOT_MS,
  );

  test(
    "fails as soon as the guest's command ends, and says with which code",
    async () => {
      const brief = webGuest({ command: ["/bin/sh", "-c"], args: ["exit 7"] });
      const boot = driver.makeSnapshot({
        templateId: "brief",
        rootfsPath,
        guest: brief,
        dir: templateDir("brief"),
      });
      const tail = expect.arrayContaining(["templatecenter: command ended with code 7"]);
      await expect(boot).rejects.toMatchObject({
        code: "guest_boot_failed",
        meta: { console_tail: tail },
      });
    },
    BOOT_MS,
  );

  test(
    "is over with the start of the command when there is no probe",
    async () => {
      const silent = await driver.makeSnapshot({
        templateId: "silent",
        rootfsPath,
        guest: webGuest({ probe: undefined, exposedPorts: [80] }),
        dir: templateDir("silent"),
      });
      const sandbox = await restore("of-silent", silent, webGuest());
      expect((await askState(sandbox)).note).toBe("as built");
      await driver.stop("of-silent");
      await driver.removeSnapshot(silent);
      expect(existsSync(templateDir("silent"))).toBe(false);
      expect(await driver.hasSnapshot(silent)).toBe(false);
    },
    BOOT_MS,
  );
});

describe("a sandbox", () => {
  test("runs the command with its words, environment and folder untouched", async () => {
    const sandbox = await restore("words");
    // The first word after the script is the shell's own name.
    expect((await ask(sandbox, "/words")).split("\0").slice(0, -1)).toEqual(words.slice(1));
    const env = (await ask(sandbox, "/env")).split("\0");
    expect(env).toContain("GREETING=it's\ta 'test'");
    expect(env).toContain("odd.name=1");
    expect(env).toContain("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    expect(env).toHaveLength(guest.env.length + 2);
    expect(await ask(sandbox, "/envd")).toBe("started\n");
    expect(await ask(sandbox, "/folder")).toBe("/made/for/it\n");
  });

  test("has its own randomness, the host's time, and a disk of its own", async () => {
    const first = await restore("first");
    const second = await restore("second");
    expect(first.ports["80"]).not.toEqual(second.ports["80"]);
    const asked = Date.now() / 1_000;
    const [one, two] = [await askState(first, "first"), await askState(second)];
    const answered = Date.now() / 1_000;
    expect(one.random).toMatch(/^[0-9a-f]{32}$/);
    expect(one.random).not.toBe(two.random);
    for (const { seconds } of [one, two]) {
      expect(seconds).toBeGreaterThan(asked - 2);
      expect(seconds).toBeLessThan(answered + 2);
    }
    expect([one.note, two.note]).toEqual(["first", "as built"]);
    const third = await restore("third");
    expect((await askState(third)).note).toBe("as built");
    expect(log.lines.filter((line) => line.includes("took no time"))).toEqual([]);
  });

  test("shares the snapshot's memory file with all others, copy-on-write", async () => {
    const sandboxes = [await restore("a"), await restore("b")];
    const mapped = sandboxes.map(({ pid }) => {
      const maps = readFileSync(`/proc/${pid ?? 0}/maps`, "utf8").split("\n");
      const memory = maps.filter((line) => line.endsWith(`${templateDir("tpl")}/memory`));
      return memory
        .map((line) => line.split(/\s+/))
        .map(([, mode, , , inode]) => ({ mode, inode }));
    });
    expect(mapped[0]).toEqual(mapped[1]);
    expect(mapped[0]?.length).toBeGreaterThan(0);
    for (const { mode } of mapped.flat()) expect(mode).toMatch(/p$/);
    const used = await driver.usage();
    expect(used).toMatchObject({ sandboxes: 2, processes: 2 });
    expect(used.memoryBytes).toBeGreaterThan(0);
    expect(await driver.hasSnapshot(snapshot)).toBe(true);
  });

  test("is gone after a stop: process, folder and port", async () => {
    const sandbox = await restore("stopped");
    expect((await driver.list()).map(({ sandboxId }) => sandboxId)).toEqual(["stopped"]);
    await driver.stop("stopped");
    expect(await processes()).toEqual([]);
    expect(existsSync(sandboxDir("stopped"))).toBe(false);
    expect(await driver.list()).toEqual([]);
    await expect(ask(sandbox, "/", { timeoutMs: 0 })).rejects.toThrow("no answer");
    await driver.stop("stopped");
    await driver.stop("../templates/tpl");
    expect(await driver.hasSnapshot(snapshot)).toBe(true);
  });

  test("keeps its id for itself", async () => {
    const sandbox = await restore("one");
    await expect(restore("one")).rejects.toMatchObject({ code: "sandbox_already_exists" });
    expect((await askState(sandbox)).note).toBe("as built");
    expect(await processes()).toEqual([sandbox.pid]);
  });

  test("whose QEMU does not answer is not listed by a new driver, and can be stopped", async () => {
    const sandbox = await restore("hung");
    const { driver: next } = await openDriver(dataDir);
    process.kill(sandbox.pid!, "SIGSTOP");
    expect(await next.list()).toEqual([]);
    await next.stop("hung");
    expect(await processes()).toEqual([]);
    await next.close({ keepSandboxes: true });
  });

  test("is refused, and leaves nothing, when the snapshot is damaged", async () => {
    const damaged = templateDir("damaged");
    execFileSync("cp", ["-a", "--sparse=always", templateDir("tpl"), damaged]);
    const broken = { ...snapshot, dir: damaged };
    expect(await driver.hasSnapshot(broken)).toBe(true);
    truncateSync(join(damaged, "state"), 2_000);
    expect(await driver.hasSnapshot(broken)).toBe(false);
    await expect(restore("broken", broken)).rejects.toMatchObject({ code: "restore_failed" });
    expect(await processes()).toEqual([]);
    expect(existsSync(sandboxDir("broken"))).toBe(false);
    await driver.removeSnapshot(broken);
  });
});

describe("the pool", () => {
  test("hands out processes that wait, and replaces them", async () => {
    await driver.warm(snapshot, guest, 2);
    const waiting = await processes();
    expect(waiting).toHaveLength(2);
    const sandbox = await restore("pooled");
    expect(waiting).toContain(sandbox.pid);
    expect((await askState(sandbox, "pooled")).note).toBe("pooled");
    await expect.poll(async () => (await processes()).length, { timeout: 10_000 }).toBe(3);
    expect(await driver.usage()).toMatchObject({ sandboxes: 1, processes: 3 });
    expect(await driver.reap()).toEqual([]);
    const other = await restore("other-ports", snapshot, { ...guest, exposedPorts: [80, 8080] });
    expect(Object.keys(other.ports)).toEqual(["80", "8080"]);
    await driver.warm(snapshot, guest, 0);
    const left = await processes();
    expect(left.sort()).toEqual([sandbox.pid, other.pid].sort());
  });

  test("gives no process that has died while it waited", async () => {
    await driver.warm(snapshot, guest, 1);
    const [waiting] = await processes();
    process.kill(waiting!, "SIGKILL");
    await expect.poll(processes).toEqual([]);
    const sandbox = await restore("instead");
    expect((await askState(sandbox)).note).toBe("as built");
    await driver.warm(snapshot, guest, 0);
  });
});

describe("after the daemon was killed", () => {
  test(
    "the sandbox is found, and what nobody owns is ended",
    async () => {
      const args = [dataDir, rootfsPath, JSON.stringify(snapshot)];
      const child = startTypeScript("integration/runtime/driver-process.ts", args);
      const errors: Buffer[] = [];
      child.stderr?.on("data", (bytes: Buffer) => errors.push(bytes));
      const said = await Promise.race([once(child.stdout!, "data"), once(child, "exit")]);
      expect(String(said[0]), Buffer.concat(errors).toString()).toContain("busy");
      child.kill("SIGKILL");
      await once(child, "exit");
      const left = await processes();
      expect(left).toHaveLength(3);

      const { driver: next } = await openDriver(dataDir);
      const [sandbox, ...others] = await next.list();
      expect(others).toEqual([]);
      expect(sandbox).toMatchObject({ sandboxId: "survivor", templateId: "tpl" });
      expect((await askState(sandbox!)).note).toBe("as built");
      const reaped = await next.reap();
      expect([...reaped, sandbox!.pid].sort()).toEqual(left.sort());
      expect(await processes()).toEqual([sandbox!.pid]);
      expect(readdirSync(join(dataDir, "sandboxes"))).toEqual(["survivor"]);
      expect(readdirSync(join(dataDir, "templates"))).toEqual(["tpl"]);
      await next.close({ keepSandboxes: true });
      expect(await processes()).toEqual([sandbox!.pid]);

      const { driver: last } = await openDriver(dataDir);
      await last.list();
      await last.close({ keepSandboxes: false });
      expect(await processes()).toEqual([]);
      expect(readdirSync(join(dataDir, "sandboxes"))).toEqual([]);
    },
    BOOT_MS,
  );
});
