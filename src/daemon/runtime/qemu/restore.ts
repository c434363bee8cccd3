/** From a snapshot to a running sandbox, by a new process or by one that waits for it. */
import { link, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock, DriverSnapshot, Random } from "../../../domain/index.ts";
import { AGENT_DONE } from "../guest-agent.ts";
import { writeOverlay } from "../qcow2.ts";
import { ORIGIN_FILES, VM_FILES, type Accelerator } from "./command.ts";
import {
  endMachine,
  forwardedPorts,
  hearAgent,
  loadState,
  refreshGuest,
  startMachine,
  type Machine,
  type PortMap,
} from "./machine.ts";
import type { SnapshotRecord } from "./snapshot.ts";
import type { Origin } from "./sandbox-record.ts";
import type { Spawned } from "./vm-process.ts";

export interface RestoreParts {
  readonly program: string;
  readonly accelerator: Accelerator;
  readonly clock: Clock;
  readonly random: Random;
  /** Told the process as soon as it is there. */
  readonly onProcess: (spawned: Spawned) => void;
}

export interface Restored {
  readonly machine: Machine;
  readonly ports: PortMap;
  /** Settles when the guest's agent has said that time and entropy are in place: false if never. */
  readonly fresh: Promise<boolean>;
  /** Milliseconds from the request until the guest's processors ran. */
  readonly runningMs: number;
}

/** A process in its own folder that has not read the snapshot's state yet. */
export interface Waiting {
  readonly machine: Machine;
  readonly ports: PortMap;
}

async function start(
  parts: RestoreParts,
  input: {
    snapshot: DriverSnapshot;
    record: SnapshotRecord;
    ports: readonly number[];
    isolated: boolean;
  },
  dir: string,
): Promise<Machine> {
  const { snapshot, record } = input;
  const backing = { path: join(snapshot.dir, VM_FILES.disk), format: "qcow2" } as const;
  await writeOverlay(join(dir, VM_FILES.disk), record.diskBytes, backing);
  const machine = await startMachine(
    parts.program,
    {
      name: snapshot.templateId,
      accelerator: parts.accelerator,
      shape: record.shape,
      isolated: input.isolated,
      memory: { path: join(snapshot.dir, VM_FILES.memory), share: false },
      diskPath: VM_FILES.disk,
      below: [backing, { path: record.rootfsPath, format: "raw" }],
      guestPorts: input.ports,
      start: "incoming",
    },
    dir,
    join(snapshot.dir, VM_FILES.state),
    parts.clock,
  );
  parts.onProcess(machine.process);
  return machine;
}

export type Input = Parameters<typeof start>[1];

/** Without ports, which another process still has. */
export const startBeside = (parts: RestoreParts, input: Input, dir: string): Promise<Machine> =>
  start(parts, { ...input, ports: [] }, dir);

/**
 * What a sandbox keeps of what it was started from: a record, and the files under names of its own,
 * since another snapshot may take their place.
 */
export async function keepOrigin({ snapshot, record }: Input, dir: string): Promise<Origin> {
  for (const name of ["memory", "disk", "state"] as const) {
    await link(join(snapshot.dir, VM_FILES[name]), join(dir, ORIGIN_FILES[name]));
  }
  const { diskBytes, rootfsPath } = record;
  return { ...record.shape, diskBytes, rootfsPath, versions: snapshot.versions };
}

/** @throws AppError guest_boot_failed */
export async function startWaiting(
  parts: RestoreParts,
  input: Input,
  dir: string,
): Promise<Waiting> {
  await mkdir(dir, { recursive: true, mode: 0o750 });
  let machine: Machine | undefined;
  try {
    machine = await start(parts, input, dir);
    return { machine, ports: await forwardedPorts(machine.qmp, input.ports) };
  } catch (error) {
    if (machine !== undefined) await endMachine(machine, parts.clock);
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

/** `dir` is there and empty. The caller removes it, and ends what runs in it, on failure. */
export async function restoreNew(
  parts: RestoreParts,
  input: Input,
  dir: string,
  began: number,
): Promise<Restored> {
  const machine = await start(parts, input, dir);
  try {
    const fresh = hearFresh(parts, machine);
    // Asked first: QEMU reads the state in its main loop and answers nothing meanwhile.
    const ports = forwardedPorts(machine.qmp, input.ports);
    await Promise.all([ports, loadState(machine)]);
    const runningMs = parts.clock.monotonic() - began;
    return { machine, ports: await ports, fresh, runningMs };
  } catch (error) {
    await endMachine(machine, parts.clock);
    throw error;
  }
}

/** The waiting machine's folder becomes `dir`, which is not there yet. */
export async function restoreWaiting(
  parts: RestoreParts,
  waiting: Waiting,
  dir: string,
  began: number,
): Promise<Restored> {
  try {
    await rename(waiting.machine.dir, dir);
    const machine = { ...waiting.machine, dir };
    const fresh = hearFresh(parts, machine);
    await loadState(machine);
    const runningMs = parts.clock.monotonic() - began;
    return { machine, ports: waiting.ports, fresh, runningMs };
  } catch (error) {
    await endMachine(waiting.machine, parts.clock);
    await rm(waiting.machine.dir, { recursive: true, force: true });
    throw error;
  }
}

/**
 * The message waits in the channel until the guest runs, so that the agent is among the first that
 * do. Nobody waits for its answer: the guest's own programs run meanwhile anyway.
 */
export function hearFresh(parts: RestoreParts, machine: Machine): Promise<boolean> {
  const fresh = hearAgent(machine, AGENT_DONE, parts.clock);
  refreshGuest(machine, parts.clock, parts.random);
  return fresh;
}
