/** What the tests of storage share: a clock and a log, valid values, a memory database. */
import { hash } from "node:crypto";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryLevel } from "memory-level";
import {
  CHUNK_SIZE_BYTES,
  encodeChunkManifest,
  type ArtifactRecord,
  type ArtifactSidecar,
  type ChunkManifest,
  type Clock,
  type Entry,
  type JobProgress,
  type Log,
  type ReplicaStatus,
  type TemplateRecord,
} from "../../src/domain/index.ts";
import type { Database, KeyRange, Operation } from "../../src/storage/index.ts";

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Timers run when the test says so; the wall clock stands where the test puts it. */
export function manualClock(start = 1_700_000_000_000) {
  const timers: { ms: number; callback: () => void }[] = [];
  const clock = {
    ...realClock,
    time: start,
    now: () => clock.time,
    timers,
    after(ms: number, callback: () => void) {
      const timer = { ms, callback };
      timers.push(timer);
      return {
        cancel: () => {
          if (timers.includes(timer)) timers.splice(timers.indexOf(timer), 1);
        },
      };
    },
    /** Runs the one timer that waits; answers its delay. */
    fire(): number {
      const timer = timers.shift();
      if (timer === undefined) throw new Error("no timer waits");
      timer.callback();
      return timer.ms;
    },
  };
  return clock;
}

export interface RecordedLog extends Log {
  readonly lines: { level: string; message: string; fields: unknown }[];
}

export function recordedLog(): RecordedLog {
  const lines: RecordedLog["lines"] = [];
  const at = (level: string) => (message: string, fields?: unknown) => {
    lines.push({ level, message, fields });
  };
  const log: RecordedLog = {
    lines,
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: () => log,
  };
  return log;
}

export async function withFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "templatecenter-storage-"));
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

export async function waitFor(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error("the condition did not come true in 20 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const AT = "2026-11-20T00:00:00.000Z";

export const templateValue = (id: string, note = ""): TemplateRecord => ({
  template_id: id,
  instance_type: "cubebox",
  version: "v1",
  kind: "template",
  status: "READY",
  generation: 1,
  desired_nodes: ["a"],
  request: { template_id: id, annotations: { note } },
  last_error: "",
  created_at: AT,
  updated_at: AT,
});

export const templateEntry = (id: string, version: number, note = ""): Entry<"template"> => ({
  owner: "@cluster",
  kind: "template",
  id,
  version,
  value: templateValue(id, note),
});

export const replicaEntry = (id: string, node: string, version: number): Entry<"replica"> => {
  const value: ReplicaStatus = { node_id: node, node_ip: "", status: "READY", phase: "READY" };
  return { owner: node, kind: "replica", id, version, value };
};

export const progressEntry = (job: string, version: number): Entry<"job-progress"> => {
  const value: JobProgress = {
    job_id: job,
    phase_ratio: 0.5,
    pull_total_bytes: 0,
    pull_downloaded_bytes: 0,
    pull_total_layers: 0,
    pull_completed_layers: 0,
    pull_speed_bps: 0,
    written_bytes: version,
    entries: 0,
    note: "",
  };
  return { owner: "a", kind: "job-progress", id: job, version, value };
};

/**
 * A database in memory with a crash: what was not flushed is gone. `fail` makes every batch fail
 * until it is opened again with `fail` unset, as a full disk does to LevelDB.
 */
export interface MemoryDatabase extends Database {
  crash(): Promise<void>;
  fail: Error | undefined;
  batches: number;
}

export function memoryDatabase(): MemoryDatabase {
  let level = new MemoryLevel<string, string>();
  let journal: { operations: readonly Operation[]; sync: boolean }[] = [];
  let latched: Error | undefined;
  const database: MemoryDatabase = {
    fail: undefined,
    batches: 0,
    async open() {
      if (database.fail !== undefined) throw database.fail;
      latched = undefined;
      await level.open();
    },
    close: async () => undefined,
    get: (key) => level.get(key),
    getBytes: (key) => level.get<string, Uint8Array>(key, { valueEncoding: "view" }),
    async batch(operations, { sync }) {
      latched ??= database.fail;
      if (latched !== undefined) throw latched;
      // A flush takes its time: what comes meanwhile forms the next group.
      await new Promise((resolve) => setImmediate(resolve));
      await level.batch([...operations]);
      journal.push({ operations, sync });
      database.batches++;
    },
    async *pages(range: KeyRange) {
      const rows = await level.iterator({ ...range }).all();
      if (rows.length > 0) yield rows;
    },
    async checkWritable() {
      if (database.fail !== undefined) throw database.fail;
    },
    async crash() {
      journal = journal.slice(0, journal.findLastIndex(({ sync }) => sync) + 1);
      level = new MemoryLevel<string, string>();
      for (const { operations } of journal) await level.batch([...operations]);
    },
  };
  return database;
}

/* ---- artifacts ------------------------------------------------------------------------------ */

export function manifestOf(bytes: Uint8Array): ChunkManifest {
  const count = Math.ceil(bytes.length / CHUNK_SIZE_BYTES);
  const hashes = new Uint8Array(count * 32);
  for (let i = 0; i < count; i++) {
    const chunk = bytes.subarray(i * CHUNK_SIZE_BYTES, (i + 1) * CHUNK_SIZE_BYTES);
    if (chunk.some((byte) => byte !== 0)) hashes.set(hash("sha256", chunk, "buffer"), i * 32);
  }
  return { sizeBytes: bytes.length, chunkSizeBytes: CHUNK_SIZE_BYTES, hashes };
}

export function sidecarOf(id: string, manifest: ChunkManifest, updatedAt = AT): ArtifactSidecar {
  const artifact: ArtifactRecord = {
    artifact_id: id,
    template_spec_fingerprint: "f",
    build_key: "b",
    source_image_ref: "image",
    source_image_digest: "sha256:0",
    digest: `sha256:${hash("sha256", encodeChunkManifest(manifest), "hex")}`,
    ext4_size_bytes: manifest.sizeBytes,
    data_bytes: 0,
    entries: 0,
    writable_layer_size: "1Gi",
    status: "READY",
    last_error: "",
    gc_deadline: 0,
    cube_egress_ca_baked: false,
    cube_egress_ca_fingerprint: "",
    cube_egress_ca_targets_written: 0,
    download_token: "t",
    created_at: AT,
    updated_at: updatedAt,
  };
  return { artifact };
}

/** `chunks` chunks of which every third is a hole; the rest depends on `seed`. */
export function imageBytes(seed: number, chunks: number, tail = 100): Uint8Array {
  const bytes = new Uint8Array(chunks * CHUNK_SIZE_BYTES + tail);
  for (let i = 0; i < bytes.length; i++) {
    if (Math.floor(i / CHUNK_SIZE_BYTES) % 3 !== 1) bytes[i] = (i * 31 + seed * 17 + 1) % 251;
  }
  return bytes;
}

/** The bytes as a file whose holes are not written. */
export async function writeSparse(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(path, bytes);
  await truncate(path, bytes.length);
}
