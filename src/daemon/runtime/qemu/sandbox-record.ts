/** What is on disk beside a running sandbox: enough for another daemon to go on with it. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { ComponentVersions, DriverSandbox } from "../../../domain/index.ts";
import { VM_FILES, type Shape } from "./command.ts";
import type { ProcessId } from "../process-id.ts";

const recordSchema = z.object({
  format: z.literal(1),
  process: z.object({ pid: z.number(), startTicks: z.string() }),
  sandbox: z.object({
    sandboxId: z.string(),
    templateId: z.string(),
    snapshotId: z.string().exactOptional(),
    pid: z.number(),
    ports: z.record(z.string(), z.object({ host: z.string(), port: z.number() })),
    timings: z.record(z.string(), z.number()),
  }),
  origin: z
    .object({
      memoryMib: z.number(),
      cpus: z.number(),
      diskBytes: z.number(),
      rootfsPath: z.string(),
      versions: z.object({
        guest_image_version: z.string(),
        agent_version: z.string(),
        kernel_version: z.string(),
        extra: z.record(z.string(), z.string()),
      }),
    })
    .exactOptional(),
});

/** What the sandbox was started from, as its own snapshots need it. */
export interface Origin extends Shape {
  readonly diskBytes: number;
  readonly rootfsPath: string;
  readonly versions: ComponentVersions;
}

export interface VmRecord {
  readonly process: ProcessId;
  readonly sandbox: DriverSandbox;
  /** Absent in records of versions that could not snapshot sandboxes. */
  readonly origin?: Origin;
}

export async function writeVmRecord(dir: string, record: VmRecord): Promise<void> {
  const path = join(dir, VM_FILES.record);
  await writeFile(`${path}.new`, JSON.stringify({ format: 1, ...record }), { mode: 0o640 });
  await rename(`${path}.new`, path);
}

/** Undefined when there is none, or none that reads: its process is then a leftover. */
export async function readVmRecord(dir: string): Promise<VmRecord | undefined> {
  try {
    const text = await readFile(join(dir, VM_FILES.record), "utf8");
    return recordSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
