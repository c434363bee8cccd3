/**
 * The figures of snapshots of running sandboxes, on the filesystem of the folder given: pauses,
 * rollbacks to the first HTTP answer, and what is left after many of both. Its last line is JSON.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { findVms } from "../../src/daemon/runtime/qemu/vm-process.ts";
import type { DriverSandbox, RuntimeDriver } from "../../src/domain/index.ts";
import { ask, guestAssets, makeGuestRootfs, openDriver, webGuest } from "../support/guest.ts";

const [base = "", cycles = "50"] = process.argv.slice(2);
const guest = webGuest({ memoryMib: 256 });

await guestAssets();
const work = mkdtempSync(join(base, "tc-bench-"));
const dataDir = join(work, "data");
mkdirSync(dataDir);
const rootfsPath = makeGuestRootfs(work);
const { driver } = await openDriver(dataDir);
const templateDir = (id: string) => join(dataDir, "templates", id);

/** What there is of this driver's: processes, files, descriptors here, bytes of guests. */
async function inventory(of: RuntimeDriver) {
  const { memoryBytes } = await of.usage();
  return {
    processes: (await findVms([dataDir])).length,
    files: readdirSync(dataDir, { recursive: true }).length,
    descriptors: readdirSync("/proc/self/fd").length,
    memoryMib: Math.round(memoryBytes / 2 ** 20),
  };
}

async function cycle(sandbox: DriverSandbox, number: number) {
  const { sandboxId } = sandbox;
  // Something of each cycle's own is in memory and on the disk.
  await ask(sandbox, `/cgi-bin/state?cycle-${number}`);
  const snapshotId = `snap-${number}`;
  const snapshot = await driver.snapshotSandbox({
    ...{ sandboxId, snapshotId, dir: templateDir(snapshotId) },
  });
  await ask(sandbox, "/cgi-bin/state?later");
  const began = performance.now();
  const back = await driver.rollback({ sandboxId, snapshot, guest });
  const note = await ask(back, "/note");
  const answeredMs = performance.now() - began;
  if (note.trim() !== `cycle-${number}`) throw new Error(`rolled back to ${note}`);
  return { snapshot, answeredMs };
}

try {
  const template = await driver.makeSnapshot({
    ...{ templateId: "bench", rootfsPath, guest, dir: templateDir("bench") },
  });
  const dir = join(dataDir, "sandboxes", "bench");
  const sandbox = await driver.restore({ sandboxId: "bench", snapshot: template, guest, dir });
  const pauses: number[] = [];
  const answers: number[] = [];
  let previous = template;
  let before: Awaited<ReturnType<typeof inventory>> | undefined;
  for (let number = 1; number <= Number(cycles); number++) {
    const { snapshot, answeredMs } = await cycle(sandbox, number);
    pauses.push(snapshot.timings["pause_ms"] ?? Number.NaN);
    answers.push(answeredMs);
    // The sandbox lies on the new one now.
    if (previous !== template) await driver.removeSnapshot(previous);
    previous = snapshot;
    before ??= await inventory(driver);
  }
  console.log(JSON.stringify({ pauses, answers, before, after: await inventory(driver) }));
} finally {
  await driver.close({ keepSandboxes: false });
  rmSync(work, { recursive: true });
}
