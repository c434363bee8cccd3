/**
 * Which call is under way for an instance: beside its folder, so that after a crash of this process
 * the call that nobody waits for any more is ended before the next one begins.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../../domain/index.ts";
import { isAlive, startTicks, type ProcessId } from "../process-id.ts";

const recordSchema = z.object({ pid: z.int().positive(), start_ticks: z.string() });
/** How long a process that was killed may take to be gone. */
const GONE_MS = 5_000;

const pathOf = (instanceDir: string): string => join(dirname(instanceDir), "call.json");

/** To be kept before the call hears what it is to do. Without the folder there is no instance. */
export async function keepCall(instanceDir: string, pid: number): Promise<void> {
  const record = { pid, start_ticks: (await startTicks(pid)) ?? "" };
  await writeFile(pathOf(instanceDir), JSON.stringify(record), { mode: 0o640 }).catch(
    () => undefined,
  );
}

export const forgetCall = (instanceDir: string): Promise<void> =>
  rm(pathOf(instanceDir), { force: true });

/** Ends the call of a life before, if there is one: its whole process group. */
export async function endLeftCall(instanceDir: string, clock: Clock): Promise<void> {
  const text = await readFile(pathOf(instanceDir), "utf8").catch(() => undefined);
  if (text === undefined) return;
  const record = recordSchema.safeParse(safeJson(text));
  if (record.data !== undefined) await endGroup(record.data, clock);
  await forgetCall(instanceDir);
}

async function endGroup(record: z.output<typeof recordSchema>, clock: Clock): Promise<void> {
  const id: ProcessId = { pid: record.pid, startTicks: record.start_ticks };
  if (!(await isAlive(id))) return;
  signalGroup(id.pid, "SIGKILL");
  const until = clock.monotonic() + GONE_MS;
  while ((await isAlive(id)) && clock.monotonic() < until) await clock.sleep(2);
}

/** Signals a process group; no error when nobody is left in it. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // Nobody is left in it.
  }
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
