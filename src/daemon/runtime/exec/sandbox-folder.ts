/**
 * The sandboxes of an exec driver: each a folder with our record and, in it, the instance's own
 * folder; and one thing at a time that is done to each.
 */
import { readFile, readdir, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { DriverSandbox } from "../../../domain/index.ts";
import type { Instance, InstanceAnswer } from "./contract.ts";
import { versionsSchema } from "./snapshot-folder.ts";

const RECORD = "sandbox.json";
const INSTANCE = "instance";

const originSchema = z.object({
  template_id: z.string(),
  snapshot_id: z.string().exactOptional(),
  rootfs_path: z.string(),
  versions: versionsSchema,
});
export type Origin = z.output<typeof originSchema>;

const recordSchema = z.object({
  format: z.literal(1),
  sandbox_id: z.string(),
  /** The start that it runs by: 1, and one more with each rollback. */
  generation: z.number(),
  /** What each start was made from; two while a rollback is under way. */
  origins: z.record(z.string(), originSchema),
  /** A call that a crash of this process may have cut short. */
  busy: z.boolean(),
  /** Absent until it has been started. */
  ports: z.record(z.string(), z.object({ host: z.string(), port: z.number() })).exactOptional(),
  pid: z.number().exactOptional(),
  timings: z.record(z.string(), z.number()),
});
export type SandboxRecord = z.output<typeof recordSchema>;

/** Undefined when there is no record that reads. */
export async function readSandbox(dir: string): Promise<SandboxRecord | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(join(dir, RECORD), "utf8")));
  } catch {
    return undefined;
  }
}

/** Whole or not at all. */
export async function writeSandbox(dir: string, record: SandboxRecord): Promise<void> {
  const path = join(dir, RECORD);
  await writeFile(`${path}.new`, `${JSON.stringify(record)}\n`, { mode: 0o640, flush: true });
  await rename(`${path}.new`, path);
}

/** The instance of the folder of a sandbox, or of a template's boot. */
export const instanceOf = (id: string, dir: string): Instance => ({ id, dir: join(dir, INSTANCE) });

/** The record after what the executable has answered of the instance. */
export function runningAs(record: SandboxRecord, answer: InstanceAnswer): SandboxRecord {
  const { pid: _before, ...rest } = record;
  const { generation, ports, pid } = answer;
  const origin = record.origins[generation];
  const origins = origin === undefined ? record.origins : { [generation]: origin };
  return {
    ...rest,
    generation,
    origins,
    busy: false,
    ports,
    ...(pid === undefined ? {} : { pid }),
  };
}

/** Undefined while it has not been started. */
export function sandboxOf(record: SandboxRecord): DriverSandbox | undefined {
  const { sandbox_id: sandboxId, generation, origins, ports, pid, timings } = record;
  const origin = origins[generation];
  if (ports === undefined || origin === undefined) return undefined;
  const { template_id: templateId, snapshot_id: snapshotId } = origin;
  return {
    sandboxId,
    templateId,
    ...(snapshotId === undefined ? {} : { snapshotId }),
    ...(pid === undefined ? {} : { pid }),
    ports,
    timings,
  };
}

/** Names of the folders in a folder, sorted; none when it is not there. */
export async function foldersIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}

/** Where a sandbox lies; undefined for an id that leads elsewhere. */
export function folderOf(sandboxesDir: string, sandboxId: string): string | undefined {
  const dir = join(sandboxesDir, sandboxId);
  return dirname(dir) === sandboxesDir ? dir : undefined;
}

interface Work {
  readonly abort: AbortController;
  readonly done: Promise<unknown>;
}

/** One thing at a time that is done to each sandbox. */
export class OneAtATime {
  readonly #works = new Map<string, Work>();

  has(sandboxId: string): boolean {
    return this.#works.has(sandboxId);
  }

  async run<T>(
    sandboxId: string,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    while (this.#works.has(sandboxId)) await this.#works.get(sandboxId)?.done;
    const abort = new AbortController();
    const doing = work(AbortSignal.any([signal, abort.signal]));
    this.#works.set(sandboxId, { abort, done: doing.catch(() => undefined) });
    return doing.finally(() => this.#works.delete(sandboxId));
  }

  /** Ends what is being done to it, and waits until it has ended. */
  async interrupt(sandboxId: string, reason: Error): Promise<void> {
    const work = this.#works.get(sandboxId);
    work?.abort.abort(reason);
    await work?.done;
  }

  async settled(): Promise<void> {
    await Promise.all([...this.#works.values()].map(({ done }) => done));
  }
}
