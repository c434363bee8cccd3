/**
 * A driver that snapshots a sandbox, rolls it back and so on, in a process that the test kills at a
 * step: each step is a line on its output.
 */
import { join } from "node:path";
import { openDriver, webGuest } from "../../support/guest.ts";
import type { DriverSnapshot } from "../../../src/domain/index.ts";

const [dataDir = "", sandboxId = "", snapshotJson = ""] = process.argv.slice(2);
const snapshot = JSON.parse(snapshotJson) as DriverSnapshot;
const { driver } = await openDriver(dataDir);
const say = (line: string) => process.stdout.write(`${line}\n`);
for (let number = 1; ; number++) {
  const snapshotId = `killed-${number}`;
  const dir = join(dataDir, "templates", snapshotId);
  const taken = await driver.snapshotSandbox({ sandboxId, snapshotId, dir }, { onStep: say });
  say("taken");
  await driver.removeSnapshot(taken);
  await driver.rollback({ sandboxId, snapshot, guest: webGuest() }, { onStep: say });
  say("rolled back");
}
