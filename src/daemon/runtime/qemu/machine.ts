/** One virtual machine in its folder: started, told fresh time and entropy, saved, ended. */
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { open, readFile, type FileHandle } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { AppError, type Clock, type Random } from "../../../domain/index.ts";
import { AGENT_DONE, AGENT_READY, ENTROPY_BYTES, restoreMessage } from "../guest-agent.ts";
import { VM_FDS, VM_FILES, vmArguments, type VmOptions } from "./command.ts";
import { Qmp } from "./qmp.ts";
import { endProcess, spawnVm, type Spawned } from "./vm-process.ts";

const MIGRATE_TIMEOUT_MS = 60_000;
/** The agent answers in milliseconds; a guest whose agent was killed must not hold up a restore. */
const AGENT_TIMEOUT_MS = 2_000;

export type PortMap = Readonly<Record<string, { host: string; port: number }>>;

export interface Machine {
  readonly dir: string;
  readonly process: Spawned;
  readonly qmp: Qmp;
}

/** What QEMU itself complained of. */
const qemuLog = async (dir: string): Promise<string> =>
  (await readFile(join(dir, VM_FILES.log), "utf8").catch(() => "")).trim().slice(-2_000);

/** The error with QEMU's own words, which say more than a closed socket. */
export async function withQemuLog(
  code: "guest_boot_failed" | "restore_failed" | "snapshot_failed",
  dir: string,
  what: string,
  cause: unknown,
): Promise<AppError> {
  const said = await qemuLog(dir);
  return new AppError(code, what, {
    cause: said === "" ? cause : new Error(said, { cause }),
    ...(said === "" ? {} : { meta: { qemu: said } }),
  });
}

/**
 * Starts QEMU in `dir`, which holds the disk.
 * @param statePath the state that a restore reads
 * @throws AppError guest_boot_failed with what QEMU said
 */
export async function startMachine(
  program: string,
  vm: VmOptions,
  dir: string,
  statePath: string | undefined,
  clock: Clock,
  signal?: AbortSignal,
): Promise<Machine> {
  let state: FileHandle | undefined;
  let started: Spawned | undefined;
  try {
    if (statePath !== undefined) state = await open(statePath, "r");
    started = await spawnVm(program, vmArguments(vm), dir, state?.fd ?? "ignore");
    const qmp = new Qmp(started.qmp, clock);
    await Promise.all([
      qmp.execute("qmp_capabilities", {}, signal === undefined ? {} : { signal }),
      // Memory that is shared with its file is not part of the state.
      qmp.execute("migrate-set-capabilities", {
        capabilities: ["x-ignore-shared", "events"].map((capability) => ({
          capability,
          state: true,
        })),
      }),
    ]);
    return { dir, process: started, qmp };
  } catch (cause) {
    if (started !== undefined) await endProcess(started.id, clock);
    if (signal?.aborted === true) throw signal.reason;
    throw await withQemuLog("guest_boot_failed", dir, "QEMU did not start", cause);
  } finally {
    await state?.close();
  }
}

export async function endMachine(machine: Machine, clock: Clock): Promise<void> {
  await endProcess(machine.process.id, clock);
  releaseMachine(machine);
}

/** Lets go of a machine that runs on without this process. */
export function releaseMachine({ process, qmp }: Machine): void {
  qmp.close();
  process.agent.destroy();
  process.console.destroy();
}

/** `TCP[HOST_FORWARD]  12  127.0.0.1 35847  10.0.2.15 80 …` → the host port of each guest port. */
export function readForwards(usernet: string): PortMap {
  const ports: Record<string, { host: string; port: number }> = {};
  const line = /TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)/g;
  for (const [, host, port, guest] of usernet.matchAll(line)) {
    if (host !== undefined && guest !== undefined) ports[guest] = { host, port: Number(port) };
  }
  return ports;
}

/** Forwards those that are not, each from the host port that it has. */
export async function addForwards(qmp: Qmp, ports: PortMap): Promise<void> {
  const there = readForwards(await qmp.monitor("info usernet"));
  for (const [guest, { host, port }] of Object.entries(ports)) {
    if (there[guest] !== undefined) continue;
    // The monitor says something only when it fails.
    const said = await qmp.monitor(`hostfwd_add net tcp:${host}:${port}-:${guest}`);
    if (said !== "") throw new Error(`host port ${port} was not taken over: ${said}`);
  }
}

export async function removeForwards(qmp: Qmp, ports: PortMap): Promise<void> {
  for (const { host, port } of Object.values(ports)) {
    await qmp.monitor(`hostfwd_remove net tcp:${host}:${port}`);
  }
}

/** @throws AppError guest_boot_failed when QEMU does not forward one of them */
export async function forwardedPorts(qmp: Qmp, guestPorts: readonly number[]): Promise<PortMap> {
  if (guestPorts.length === 0) return {};
  const ports = readForwards(await qmp.monitor("info usernet"));
  for (const port of guestPorts) {
    if (ports[port] === undefined) {
      throw new AppError("guest_boot_failed", `guest port ${port} is not forwarded`);
    }
  }
  return ports;
}

/** Puts time and entropy where the agent finds them when the guest runs on. */
export const refreshGuest = (machine: Machine, clock: Clock, random: Random): void => {
  machine.process.agent.write(restoreMessage(clock.now(), random.bytes(ENTROPY_BYTES)));
};

/** Resolves true when the agent has said the word, false when it did not in time. */
export function hearAgent(
  machine: Machine,
  word: typeof AGENT_READY | typeof AGENT_DONE,
  clock: Clock,
  timeoutMs: number = AGENT_TIMEOUT_MS,
): Promise<boolean> {
  const { agent } = machine.process;
  return new Promise((resolve) => {
    const done = (heard: boolean) => {
      timer.cancel();
      agent.off("data", onData);
      agent.off("close", onClose);
      resolve(heard);
    };
    const onData = (bytes: Buffer) => {
      if (bytes.includes(word)) done(true);
    };
    const onClose = () => done(false);
    const timer = clock.after(timeoutMs, onClose);
    agent.on("data", onData);
    agent.on("close", onClose);
    if (agent.destroyed) done(false);
  });
}

/**
 * Reads the state and lets the processors run.
 * @throws AppError restore_failed when the state does not fit this machine
 */
export async function loadState(machine: Machine): Promise<void> {
  await readState(machine);
  await machine.qmp.execute("cont");
}

/**
 * Reads the state; the processors stand still.
 * @throws AppError restore_failed when the state does not fit this machine
 */
export async function readState({ qmp }: Machine): Promise<void> {
  const loaded = migrationEnd(qmp, { timeoutMs: MIGRATE_TIMEOUT_MS });
  await qmp.execute("migrate-incoming", { uri: `fd:${VM_FDS.state}` });
  if (!(await loaded)) throw new AppError("restore_failed", "the state does not fit this machine");
}

/** Resolves true when a migration, either way, is completed. Call it before it begins. */
function migrationEnd(
  qmp: Qmp,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<boolean> {
  const ended = qmp
    .waitFor(
      ({ event, data }) =>
        event === "MIGRATION" && (data["status"] === "completed" || data["status"] === "failed"),
      options,
    )
    .then(({ data }) => data["status"] === "completed");
  // Its failure counts only where it is awaited: the command before it may fail first.
  ended.catch(() => undefined);
  return ended;
}

/**
 * Stops the guest and writes its devices' state to the state file; its memory is in its own file
 * already, because the two are shared. The processors stay stopped.
 * @throws AppError snapshot_failed
 */
export async function saveState(machine: Machine, signal?: AbortSignal): Promise<void> {
  const { qmp, dir } = machine;
  const options = { timeoutMs: MIGRATE_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
  let receiver: StateReceiver | undefined;
  try {
    await qmp.execute("stop");
    const saved = migrationEnd(qmp, options);
    receiver = await receiveState(dir);
    await qmp.execute("migrate", { uri: `unix:${VM_FILES.incoming}` });
    if (!(await saved)) throw new Error("QEMU's migration failed");
    await receiver.written;
  } catch (cause) {
    if (signal?.aborted === true) throw signal.reason;
    throw await withQemuLog("snapshot_failed", dir, "the devices' state was not written", cause);
  } finally {
    receiver?.close();
  }
}

interface StateReceiver {
  readonly written: Promise<void>;
  close(): void;
}

/**
 * Listens in the VM's folder and writes what comes to the state file: QEMU may start no program
 * that would do so (see `-sandbox`), and this version cannot write to a file itself.
 */
async function receiveState(dir: string): Promise<StateReceiver> {
  // Its descriptor makes the socket's path short.
  const folder = await open(dir);
  const server = createServer();
  const written = new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("connection", (socket) => {
      pipeline(socket, createWriteStream(join(dir, VM_FILES.state), { mode: 0o640 })).then(
        resolve,
        reject,
      );
    });
  });
  written.catch(() => undefined);
  server.listen({ path: `/proc/self/fd/${folder.fd}/${VM_FILES.incoming}` });
  await once(server, "listening");
  const close = () => {
    server.close(() => void folder.close());
  };
  return { written, close };
}
