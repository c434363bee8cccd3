/**
 * QEMU processes: started detached in their own folder, so that a sandbox outlives the daemon, and
 * found again by pid and start time.
 */
import { readFile, readdir, readlink, realpath } from "node:fs/promises";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { execa, type Options } from "execa";
import { AppError, type Clock } from "../../../domain/index.ts";
import { isAlive, startTicks, type ProcessId } from "../process-id.ts";
import { VM_FDS, VM_FILES } from "./command.ts";

export interface Spawned {
  readonly id: ProcessId;
  readonly alive: () => boolean;
  /** Resolves when the process has ended. */
  readonly ended: Promise<void>;
  /** The host's ends of the inherited channels. */
  readonly qmp: Duplex;
  readonly agent: Duplex;
  readonly console: Duplex;
}

/** Any descriptor can be inherited, though execa's types know only its own nine. */
const inherit = (fd: number | "ignore"): "ignore" => fd as "ignore";

/**
 * @param stateFd a descriptor of the state file, which the caller closes
 * @throws AppError guest_boot_failed when the program cannot be started
 */
export async function spawnVm(
  program: string,
  args: readonly string[],
  cwd: string,
  stateFd: number | "ignore",
): Promise<Spawned> {
  const output = openSync(join(cwd, VM_FILES.log), "a", 0o640);
  try {
    const options: Options = {
      cwd,
      detached: true,
      cleanup: false,
      reject: false,
      buffer: false,
      extendEnv: false,
      env: { PATH: "/usr/local/bin:/usr/bin:/bin" },
      stdio: ["ignore", inherit(output), inherit(output), inherit(stateFd), "pipe", "pipe", "pipe"],
    };
    const child = execa(program, args, options);
    let alive = true;
    const ended = new Promise<void>((resolve) => {
      const end = () => {
        alive = false;
        resolve();
      };
      child.once("exit", end);
      child.once("error", end);
    });
    void child.catch(() => undefined);
    const channel = (fd: number): Duplex => child.stdio[fd] as unknown as Duplex;
    const channels = [channel(VM_FDS.qmp), channel(VM_FDS.agent), channel(VM_FDS.console)] as const;
    for (const one of channels) one.on("error", () => undefined);
    if (child.pid === undefined) {
      throw new AppError("guest_boot_failed", `${program} cannot be started`);
    }
    const ticks = (await startTicks(child.pid)) ?? "";
    const [qmp, agent, console] = channels;
    child.unref();
    return {
      id: { pid: child.pid, startTicks: ticks },
      alive: () => alive,
      ended,
      qmp,
      agent,
      console,
    };
  } finally {
    closeSync(output);
  }
}

/** How long a process that was killed may take to be gone. */
const KILL_TIMEOUT_MS = 5_000;

/** Ends a process if it is still the one meant: politely for `graceMs`, then surely. */
export async function endProcess(id: ProcessId, clock: Clock, graceMs = 0): Promise<void> {
  const signals = graceMs > 0 ? (["SIGTERM", "SIGKILL"] as const) : (["SIGKILL"] as const);
  for (const signal of signals) {
    if (!(await isAlive(id))) return;
    try {
      process.kill(id.pid, signal);
    } catch {
      // Gone in between.
      return;
    }
    const until = clock.monotonic() + (signal === "SIGTERM" ? graceMs : KILL_TIMEOUT_MS);
    while ((await isAlive(id)) && clock.monotonic() < until) await clock.sleep(2);
  }
}

/** QEMU processes of ours whose working directory lies below one of the folders. */
export async function findVms(
  folders: readonly string[],
): Promise<readonly { readonly id: ProcessId; readonly dir: string }[]> {
  const found: { id: ProcessId; dir: string }[] = [];
  // A process's working directory is told without symbolic links; the folders may have some.
  const real = new Map<string, string>();
  for (const folder of folders) real.set(await realpath(folder).catch(() => folder), folder);
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const cwd = await readlink(`/proc/${name}/cwd`).catch(() => "");
    const path = cwd.replace(/ \(deleted\)$/, "");
    const below = [...real.keys()].find((folder) => path.startsWith(`${folder}/`));
    if (below === undefined) continue;
    const command = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
    if (!command.includes("\0guest=templatecenter-")) continue;
    const ticks = await startTicks(Number(name));
    if (ticks === undefined) continue;
    const dir = `${real.get(below) ?? below}${path.slice(below.length)}`;
    found.push({ id: { pid: Number(name), startTicks: ticks }, dir });
  }
  return found;
}
