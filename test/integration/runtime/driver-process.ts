/**
 * A daemon's worth of the driver, in a process that the test kills: one sandbox runs, one process
 * waits, and a template is being booted when it says "busy".
 */
import { join } from "node:path";
import { openDriver, webGuest } from "../../support/guest.ts";
import type { DriverSnapshot } from "../../../src/domain/index.ts";

const [dataDir = "", rootfsPath = "", snapshotJson = ""] = process.argv.slice(2);
const snapshot = JSON.parse(snapshotJson) as DriverSnapshot;
const { driver } = await openDriver(dataDir);
await driver.restore({
  sandboxId: "survivor",
  snapshot,
  guest: webGuest(),
  dir: join(dataDir, "sandboxes/survivor"),
});
await driver.warm(snapshot, webGuest(), 1);
void driver.makeSnapshot(
  {
    templateId: "unfinished",
    rootfsPath,
    guest: webGuest(),
    dir: join(dataDir, "templates/unfinished"),
  },
  { onLog: () => process.stdout.write("busy\n") },
);
