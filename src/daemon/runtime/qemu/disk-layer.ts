/**
 * The layer that is put on a running sandbox's disk in the moment it is snapshotted: what lies
 * below it stays as it was then and can be read in peace, and afterwards the layer is folded down
 * again, so that a sandbox's disk never gets deeper however often it is snapshotted.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../domain/index.ts";
import { writeOverlay } from "../qcow2.ts";
import { DISK_NODE, VM_FILES } from "./command.ts";
import type { Qmp } from "./qmp.ts";

const LAYER_NODE = "layer";
const FOLD_JOB = "fold";
/** Only what the guest wrote since is folded; a slow disk may still take its time. */
const FOLD_TIMEOUT_MS = 300_000;
const POLL_MS = 5;

/** Adds the layer's file and node; `layerCommand` puts it on. None may be there (`foldLayer`). */
export async function prepareLayer(qmp: Qmp, vmDir: string, diskBytes: number): Promise<void> {
  const backing = { path: VM_FILES.disk, format: "qcow2" } as const;
  await writeOverlay(join(vmDir, VM_FILES.layer), diskBytes, backing);
  await qmp.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": LAYER_NODE,
    discard: "unmap",
    cache: { direct: false, "no-flush": true },
    file: { driver: "file", filename: VM_FILES.layer },
    backing: null,
  });
}

/** What is below is flushed and no longer written from this moment on. */
export const putLayer = (qmp: Qmp): Promise<unknown> =>
  qmp.execute("blockdev-snapshot", { node: DISK_NODE, overlay: LAYER_NODE });

/**
 * Takes the layer away, its content folded into the disk; whatever a snapshot that was cut short
 * has left is put in order too. The guest may run meanwhile. No error when there is none.
 * @throws AppError driver_unavailable; the sandbox runs on with its layer
 */
export async function foldLayer(qmp: Qmp, vmDir: string, clock: Clock): Promise<void> {
  await endJobs(qmp, clock);
  const nodes = (await qmp.execute("query-named-block-nodes", { flat: true })) as {
    "node-name": string;
  }[];
  if (nodes.some((node) => node["node-name"] === LAYER_NODE)) {
    if (await isOn(qmp)) await fold(qmp);
    await qmp.execute("blockdev-del", { "node-name": LAYER_NODE });
  }
  await rm(join(vmDir, VM_FILES.layer), { force: true });
}

async function isOn(qmp: Qmp): Promise<boolean> {
  const devices = (await qmp.execute("query-block")) as {
    inserted?: { "node-name"?: string };
  }[];
  return devices.some(({ inserted }) => inserted?.["node-name"] === LAYER_NODE);
}

async function fold(qmp: Qmp): Promise<void> {
  const options = { timeoutMs: FOLD_TIMEOUT_MS };
  const ended = qmp.waitFor(
    ({ event, data }) =>
      ["BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED"].includes(event) && data["device"] === FOLD_JOB,
    options,
  );
  ended.catch(() => undefined);
  const nodes = { device: LAYER_NODE, "base-node": DISK_NODE };
  await qmp.execute("block-commit", { "job-id": FOLD_JOB, ...nodes });
  const { event, data } = await ended;
  if (event !== "BLOCK_JOB_READY") throw new Error(`the layer was not folded: ${said(data)}`);
  const done = qmp.waitFor(
    (one) => one.event === "BLOCK_JOB_COMPLETED" && one.data["device"] === FOLD_JOB,
    options,
  );
  done.catch(() => undefined);
  await qmp.execute("block-job-complete", { device: FOLD_JOB });
  const completed = await done;
  if (completed.data["error"] !== undefined) {
    throw new Error(`the layer was not folded: ${said(completed.data)}`);
  }
}

const said = (data: Readonly<Record<string, unknown>>): string =>
  JSON.stringify(data["error"] ?? "no reason given");

/** A daemon that died may have left its job behind, ready and waiting. */
async function endJobs(qmp: Qmp, clock: Clock): Promise<void> {
  const until = clock.monotonic() + FOLD_TIMEOUT_MS;
  const underWay = async () => (await qmp.execute("query-block-jobs")) as { device: string }[];
  for (const { device } of await underWay()) {
    await qmp.execute("block-job-cancel", { device, force: true });
  }
  while ((await underWay()).length > 0 && clock.monotonic() < until) await clock.sleep(POLL_MS);
}
