/**
 * A running guest frozen to files. What takes long is done while it runs: the memory file that it
 * was started from is copied (or shares its blocks, where the filesystem can do that). Then it
 * stands still for as long as the pages that it has written are read, its devices' state is saved
 * and a layer is put on its disk; what was read is written when it runs again.
 */
import { open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../domain/index.ts";
import { copySparse } from "../file-copy.ts";
import { ORIGIN_FILES, VM_FILES } from "./command.ts";
import { joinStates } from "./device-state.ts";
import { prepareLayer, putLayer } from "./disk-layer.ts";
import { GuestMemory } from "./guest-memory.ts";
import type { Qmp, QmpEvent } from "./qmp.ts";

export interface Freeze {
  readonly qmp: Qmp;
  readonly pid: number;
  readonly vmDir: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** Called last before the guest stands still; it runs. */
  readonly beforePause: () => Promise<void>;
  /** Folder for memory and state. */
  readonly to: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Frozen {
  /** How long the guest stood still, by QEMU's own clock. */
  readonly pauseMs: number;
  /** The copying before. */
  readonly liveMs: number;
}

/**
 * The guest runs again when this settles, however it does; the disk has its layer then, unless it
 * failed early.
 * @throws Error, or the signal's reason
 */
export async function freeze(frozen: Freeze): Promise<Frozen> {
  const { qmp, vmDir, to, clock, signal } = frozen;
  const began = clock.monotonic();
  const origin = join(vmDir, ORIGIN_FILES.memory);
  const path = join(to, VM_FILES.memory);
  await copySparse(origin, path, signal);
  await frozen.beforePause();
  await prepareLayer(qmp, vmDir, frozen.diskBytes);
  await rm(join(vmDir, VM_FILES.devices), { force: true });
  const { ino } = await stat(origin);
  const memory = await GuestMemory.open(frozen.pid, ino, frozen.memoryBytes);
  try {
    const file = await open(path, "r+");
    try {
      await memory.prepare();
      signal.throwIfAborted();
      const liveMs = clock.monotonic() - began;
      const { pauseMs, finish } = await pause(qmp, () => memory.take(file));
      await finish();
      await writeState(vmDir, to);
      return { pauseMs, liveMs };
    } finally {
      await file.close();
    }
  } finally {
    await memory.close();
  }
}

/** The three parts of one moment; QEMU does its own one after the other while pages are read. */
async function pause(qmp: Qmp, take: () => Promise<() => Promise<void>>) {
  const stood = listenForPause(qmp);
  try {
    const stopped = qmp.execute("stop");
    const saved = [
      putLayer(qmp),
      // The one command that saves devices without memory, whatever the hypervisor.
      qmp.execute("xen-save-devices-state", { filename: VM_FILES.devices, live: false }),
    ];
    const taken = stopped.then(take);
    const results = await Promise.allSettled([taken, ...saved]);
    await qmp.execute("cont");
    for (const result of results) if (result.status === "rejected") throw result.reason;
    return { pauseMs: stood.milliseconds(), finish: await taken };
  } finally {
    stood.stop();
  }
}

async function writeState(vmDir: string, to: string): Promise<void> {
  const devices = join(vmDir, VM_FILES.devices);
  const origin = await readFile(join(vmDir, ORIGIN_FILES.state));
  const state = joinStates(origin, await readFile(devices));
  await writeFile(join(to, VM_FILES.state), state, { mode: 0o640 });
  await rm(devices);
}

/** From the guest's stop to its going on, by the times QEMU gives its events. */
function listenForPause(qmp: Qmp) {
  let stopped = 0;
  let resumed = 0;
  const stop = qmp.onEvent(({ event, at }: QmpEvent) => {
    if (event === "STOP") stopped = at;
    if (event === "RESUME") resumed = at;
  });
  return { milliseconds: () => Math.max(0, resumed - stopped), stop };
}
