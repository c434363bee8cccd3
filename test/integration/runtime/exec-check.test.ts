/** Conformance of exec drivers: the reference keeps every rule, and each rule can be broken. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, describe, expect, test } from "vitest";
import { runCli } from "../../../src/daemon/cli/run.ts";
import { registerRuntime } from "../../../src/daemon/cli/runtime.ts";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { Executable } from "../../../src/daemon/runtime/exec/call.ts";
import {
  checkGuest,
  DEFAULT_GUEST,
  writeGuestRootfs,
} from "../../../src/daemon/runtime/exec/check/guest-rootfs.ts";
import { CHECKS, runChecks } from "../../../src/daemon/runtime/exec/check/run.ts";
import { CAPABILITIES } from "../../../src/daemon/runtime/exec/contract.ts";
import { processesBelow } from "../../support/daemon.ts";
import { faultyDriver, referenceDriver } from "../../support/exec-driver.ts";
import { FAULTS } from "../../support/exec-faulty.mjs";
import { recordingLog } from "../../support/source-ports.ts";

const LONG_MS = 180_000;
const work = mkdtempSync(join(tmpdir(), "tc-check-"));
afterAll(async () => {
  expect(await processesBelow(work)).toEqual([]);
  rmSync(work, { recursive: true });
});

async function results(path: string, only?: readonly string[], timeoutMs = 60_000) {
  const dir = mkdtempSync(join(work, "check-"));
  const rootfsPath = join(dir, "rootfs");
  writeFileSync(rootfsPath, "a root filesystem");
  const options = { ...DEFAULT_GUEST, notePath: "/note", memoryMib: 64, timeoutMs };
  const executable = new Executable(path, realClock, recordingLog());
  const parts = { executable, clock: realClock, dir, rootfsPath, guest: checkGuest(options) };
  return runChecks(parts, only === undefined ? {} : { only });
}

test("the reference keeps every rule", { timeout: LONG_MS }, async () => {
  const found = await results(await referenceDriver(work));
  expect(found.filter(({ result }) => result !== "ok")).toEqual([]);
  expect(found.map(({ id }) => id)).toEqual(CHECKS.map(({ id }) => id));
});

test("what is not declared is not checked", { timeout: LONG_MS }, async () => {
  const optional = CHECKS.filter(({ needs }) => needs !== undefined).map(({ id }) => id);
  const found = await results(await referenceDriver(work, CAPABILITIES), optional);
  expect(new Set(found.map(({ result }) => result))).toEqual(new Set(["not offered"]));
  expect(found).toHaveLength(optional.length);
});

describe("each rule", () => {
  test("has an executable that breaks it", () => {
    const broken = new Set(Object.values(FAULTS).map(([check]) => check));
    expect(CHECKS.map(({ id }) => id).filter((id) => !broken.has(id))).toEqual([]);
  });

  test.concurrent.each(Object.entries(FAULTS).map(([fault, [check]]) => [fault, check] as const))(
    "%s: is noticed by %s",
    { timeout: LONG_MS },
    async (fault, check) => {
      const [found] = await results(
        await faultyDriver(work, fault),
        [check],
        check === "boot-runs-on" ? 1_000 : undefined,
      );
      expect(found).toMatchObject({ id: check, result: "failed" });
      // By its rule, not because it does not run at all.
      expect(found?.detail).not.toMatch(
        /^$|without an error answer|Error:|is not defined|is not a function/,
      );
    },
  );
});

describe("the command", { timeout: LONG_MS }, () => {
  async function cli(...args: string[]) {
    const said = { out: "", err: "" };
    const io = {
      out: (text: string) => void (said.out += text),
      err: (text: string) => void (said.err += text),
      env: {},
      isTty: false,
      columns: 0,
      readStdin: () => Promise.resolve(""),
      stdin: () => Readable.from([]),
      write: () => Promise.resolve(),
      interrupted: new AbortController().signal,
      clock: realClock,
    };
    const extraCommands = (program: Parameters<typeof registerRuntime>[0]) =>
      registerRuntime(program, io);
    const code = await runCli(["runtime", "check", ...args], io, { version: "0", extraCommands });
    return { code, ...said };
  }

  test("tells of each rule, and how many are kept", async () => {
    const path = await referenceDriver(work);
    const told = await cli(path, "--note-path", "/note", "--only", "probe,restore");
    expect(told).toMatchObject({ code: 0, err: "" });
    expect(told.out).toMatch(/^ok +probe: .*\nok +restore: .*\n2 of 2 rules kept\n$/);
  });

  test("fails with what was found, in JSON too", async () => {
    const path = await faultyDriver(work, "cannot be used");
    const told = await cli(path, "--only", "probe,versions");
    expect(told).toMatchObject({ code: 1, err: "error: 1 of 2 rules are not kept\n" });
    expect(told.out).toContain("failed       probe: says that it can be used here\n    it is not");
    const asJson = await cli(path, "--only", "probe", "--json");
    expect(asJson.code).toBe(1);
    expect(JSON.parse(asJson.out)).toMatchObject({ items: [{ id: "probe", result: "failed" }] });
  });

  test.each([
    [["no-such-file"], 75, "is not there"],
    [["x", "--only", "nothing"], 2, "there is no check nothing"],
    [["x", "--port", "0"], 2, "must be 1 to 65535"],
  ])("%j is refused", async (args, code, said) => {
    const told = await cli(...args);
    expect(told.code).toBe(code);
    expect(told.err).toContain(said);
  });

  test("boots a guest of its own where none is given", async () => {
    const path = join(work, "guest.ext4");
    await writeGuestRootfs(path);
    const superblock = readFileSync(path).subarray(1_024, 2_048);
    expect(superblock.readUInt16LE(56)).toBe(0xef53);
  });
});
