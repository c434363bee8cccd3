/**
 * Overlays that lie on each other become one (QEMU docs/interop/qcow2.txt, version 3), so that what
 * is kept of a sandbox's disk needs no file of the sandbox. Only clusters that some layer has are
 * copied: the time goes with what was written, not with the size of the disk.
 */
import { open, type FileHandle } from "node:fs/promises";
import { CLUSTER, L2_BYTES, emptyOverlay } from "./qcow2.ts";

const L2_ENTRIES = CLUSTER / 8;
/** Clusters that one block of 16-bit refcounts counts. */
const PER_BLOCK = CLUSTER / 2;
/** Where `emptyOverlay` has its tables, and its end. */
const AT = { refcountTable: CLUSTER, refcounts: 2 * CLUSTER, l1: 3 * CLUSTER } as const;
const FIRST_FREE = 4;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ZEROS = 1n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
/** Clusters that lie one behind the other are copied at once, up to so many. */
const RUN_CLUSTERS = 32;

interface Layer {
  readonly file: FileHandle;
  readonly l1: Buffer;
}

/**
 * Writes what `layers` show together to `to`, which must not be there.
 * @param layers topmost first; only what this program and QEMU write for it is understood
 * @param backing what the lowest lies on, and the result will
 * @throws Error when a layer is something else or of another size, or the signal's reason
 */
export async function mergeOverlays(
  layers: readonly string[],
  to: string,
  sizeBytes: number,
  backing: { path: string; format: "raw" | "qcow2" },
  options: { signal?: AbortSignal } = {},
): Promise<void> {
  const files: FileHandle[] = [];
  try {
    const opened: Layer[] = [];
    for (const path of layers) {
      const file = await open(path, "r");
      files.push(file);
      opened.push(await readLayer(file, sizeBytes));
    }
    const out = await open(to, "wx", 0o640);
    files.push(out);
    const image = emptyOverlay(sizeBytes, backing);
    let next = FIRST_FREE;
    for (let index = 0; index < Math.ceil(sizeBytes / L2_BYTES); index++) {
      options.signal?.throwIfAborted();
      const tables = await Promise.all(opened.map((layer) => readL2(layer, index)));
      const table = Buffer.alloc(CLUSTER);
      const first = next;
      for (const run of runsOf(tables, table, () => next++)) {
        const bytes = await readAt(opened[run.layer]?.file, run.from, run.clusters * CLUSTER);
        await out.write(bytes, 0, bytes.length, run.to * CLUSTER);
      }
      if (next === first && table.every((byte) => byte === 0)) continue;
      await out.write(table, 0, CLUSTER, next * CLUSTER);
      image.writeBigUInt64BE(BigInt(next++ * CLUSTER) | COPIED, AT.l1 + index * 8);
    }
    await countAll(out, image, next);
  } finally {
    for (const file of files) await file.close();
  }
}

/**
 * Writes what an overlay shows, where it has something of its own, into a raw file.
 * @param to holds what the overlay lies on, and is as long as the disk
 * @throws Error when the overlay is something else or of another size, or the signal's reason
 */
export async function applyOverlay(
  overlay: string,
  to: string,
  sizeBytes: number,
  options: { signal?: AbortSignal } = {},
): Promise<void> {
  const file = await open(overlay, "r");
  try {
    const layer = await readLayer(file, sizeBytes);
    const out = await open(to, "r+");
    try {
      for (let index = 0; index < Math.ceil(sizeBytes / L2_BYTES); index++) {
        options.signal?.throwIfAborted();
        const found = await readL2(layer, index);
        if (found !== undefined) await applyTable(layer, found, index, out, sizeBytes);
      }
      await out.sync();
    } finally {
      await out.close();
    }
  } finally {
    await file.close();
  }
}

/**
 * Writes what lies below an overlay, where that has something of its own, to an overlay in `to`,
 * which must not be there: over the two made one it shows what was there before.
 * @param below raw, as long as the disk
 * @throws Error when the overlay is something else or of another size, or the signal's reason
 */
export async function keepBelow(
  overlay: string,
  below: string,
  to: string,
  sizeBytes: number,
  backing: { path: string; format: "raw" | "qcow2" },
  options: { signal?: AbortSignal } = {},
): Promise<void> {
  const files: FileHandle[] = [];
  const opened = async (path: string, flags: string): Promise<FileHandle> => {
    const file = await open(path, flags, 0o640);
    files.push(file);
    return file;
  };
  try {
    const layer = await readLayer(await opened(overlay, "r"), sizeBytes);
    const base = await opened(below, "r");
    const out = await opened(to, "wx");
    const image = emptyOverlay(sizeBytes, backing);
    let next = FIRST_FREE;
    for (let index = 0; index < Math.ceil(sizeBytes / L2_BYTES); index++) {
      options.signal?.throwIfAborted();
      const found = await readL2(layer, index);
      if (found === undefined) continue;
      const table = Buffer.alloc(CLUSTER);
      for (let entry = 0; entry < L2_ENTRIES; entry++) {
        if (topmost([found], entry) === undefined) continue;
        const bytes = await readAt(base, (index * L2_ENTRIES + entry) * CLUSTER, CLUSTER);
        await out.write(bytes, 0, CLUSTER, next * CLUSTER);
        table.writeBigUInt64BE(BigInt(next++ * CLUSTER) | COPIED, entry * 8);
      }
      await out.write(table, 0, CLUSTER, next * CLUSTER);
      image.writeBigUInt64BE(BigInt(next++ * CLUSTER) | COPIED, AT.l1 + index * 8);
    }
    await countAll(out, image, next);
    await out.sync();
  } finally {
    for (const file of files) await file.close();
  }
}

async function applyTable(
  layer: Layer,
  found: Buffer,
  index: number,
  out: FileHandle,
  sizeBytes: number,
): Promise<void> {
  const table = Buffer.alloc(CLUSTER);
  const first = index * L2_ENTRIES;
  const write = async (cluster: number, bytes: Buffer): Promise<void> => {
    const from = cluster * CLUSTER;
    await out.write(bytes, 0, Math.min(bytes.length, sizeBytes - from), from);
  };
  for (const run of runsOf([found], table, (entry) => first + entry)) {
    await write(run.to, await readAt(layer.file, run.from, run.clusters * CLUSTER));
  }
  for (let entry = 0; entry < L2_ENTRIES; entry++) {
    const isZeros = table.readBigUInt64BE(entry * 8) === ZEROS;
    if (isZeros) await write(first + entry, Buffer.alloc(CLUSTER));
  }
}

async function readAt(
  file: FileHandle | undefined,
  position: number,
  length: number,
): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  // A file may end within its last cluster: zeros are behind it.
  await file?.read(bytes, 0, length, position);
  return bytes;
}

async function readLayer(file: FileHandle, sizeBytes: number): Promise<Layer> {
  const header = await readAt(file, 0, 104);
  const isOurs =
    header.toString("latin1", 0, 4) === "QFI\xfb" &&
    header.readUInt32BE(4) === 3 &&
    1 << header.readUInt32BE(20) === CLUSTER &&
    header.readUInt32BE(32) === 0 &&
    header.readBigUInt64BE(72) === 0n;
  if (!isOurs) throw new Error("a layer is no overlay that can be merged");
  if (header.readBigUInt64BE(24) !== BigInt(sizeBytes)) {
    throw new Error("a layer is of another size");
  }
  const l1 = await readAt(file, Number(header.readBigUInt64BE(40)), header.readUInt32BE(36) * 8);
  return { file, l1 };
}

/** The entries of that second-level table; undefined when the layer has none there. */
async function readL2({ file, l1 }: Layer, index: number): Promise<Buffer | undefined> {
  const entry = index * 8 < l1.length ? l1.readBigUInt64BE(index * 8) : 0n;
  const offset = Number(entry & OFFSET);
  return offset === 0 ? undefined : readAt(file, offset, CLUSTER);
}

interface Run {
  readonly layer: number;
  /** Byte offset in the layer, cluster number in the result. */
  readonly from: number;
  readonly to: number;
  clusters: number;
}

/** What is to be copied; fills the result's table. `allot` says where an entry's cluster goes. */
function runsOf(
  tables: readonly (Buffer | undefined)[],
  table: Buffer,
  allot: (entry: number) => number,
): Run[] {
  const runs: Run[] = [];
  for (let entry = 0; entry < L2_ENTRIES; entry++) {
    const found = topmost(tables, entry);
    if (found === undefined) continue;
    if (found === "zeros") {
      table.writeBigUInt64BE(ZEROS, entry * 8);
      continue;
    }
    const to = allot(entry);
    table.writeBigUInt64BE(BigInt(to * CLUSTER) | COPIED, entry * 8);
    const last = runs.at(-1);
    const follows =
      last?.layer === found.layer &&
      last.clusters < RUN_CLUSTERS &&
      last.from + last.clusters * CLUSTER === found.from &&
      last.to + last.clusters === to;
    if (follows) last.clusters++;
    else runs.push({ ...found, to, clusters: 1 });
  }
  return runs;
}

function topmost(tables: readonly (Buffer | undefined)[], entry: number) {
  for (const [layer, table] of tables.entries()) {
    const value = table?.readBigUInt64BE(entry * 8) ?? 0n;
    if ((value & COMPRESSED) !== 0n) throw new Error("a layer has compressed clusters");
    if ((value & ZEROS) !== 0n) return "zeros";
    const from = Number(value & OFFSET);
    if (from !== 0) return { layer, from };
  }
  return undefined;
}

/** Each cluster is used once; the blocks that count the later ones lie at the end. */
async function countAll(out: FileHandle, image: Buffer, used: number): Promise<void> {
  let blocks = 1;
  while (used + blocks - 1 > blocks * PER_BLOCK) blocks++;
  const clusters = used + blocks - 1;
  const counts = (from: number): Buffer => {
    const block = Buffer.alloc(CLUSTER);
    for (let i = 0; i < Math.min(PER_BLOCK, clusters - from); i++) block.writeUInt16BE(1, i * 2);
    return block;
  };
  counts(0).copy(image, AT.refcounts);
  for (let block = 1; block < blocks; block++) {
    const cluster = used + block - 1;
    image.writeBigUInt64BE(BigInt(cluster * CLUSTER), AT.refcountTable + block * 8);
    await out.write(counts(block * PER_BLOCK), 0, CLUSTER, cluster * CLUSTER);
  }
  await out.write(image, 0, image.length, 0);
  await out.truncate(clusters * CLUSTER);
}
