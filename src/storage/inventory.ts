/**
 * What the artifact folder holds, read from the disk alone: one folder for each digest, with the
 * bytes, their chunk manifest, and a sidecar for each artifact id that names them.
 */
import { mkdir, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { artifactRecordSchema, errorText, isSafeId } from "../domain/index.ts";
import type { ArtifactSidecar, Log } from "../domain/index.ts";
import { defineCodec } from "./codec.ts";
import { syncFolder } from "./durable.ts";

export const ROOTFS = "rootfs.ext4";
export const CHUNKS = "chunks.bin";
const SIDECAR = /^(.+)\.json$/;
const HEX = /^[0-9a-f]{64}$/;
const PARALLEL = 16;

export const sidecarCodec = defineCodec<ArtifactSidecar>("artifact sidecar", (value) => {
  const { artifact } = value as { artifact?: unknown };
  return { artifact: artifactRecordSchema.parse(artifact) };
});

/** Bytes that are held, and who names them. */
export interface HeldBytes {
  readonly hex: string;
  readonly sizeBytes: number;
  readonly sidecars: Map<string, ArtifactSidecar>;
}

export interface ArtifactFolders {
  /** One folder for each digest. */
  readonly bytes: string;
  /** What is being made or taken away; emptied at start. On the filesystem of `bytes`. */
  readonly staging: string;
  /** Scratch files of those who build; emptied at start. */
  readonly scratch: string;
  /** Folders whose bytes are not what they should be, for a person to look at. */
  readonly damaged: string;
}

/** Makes the folders and empties those whose content does not outlive the process. */
export async function prepareFolders(folders: ArtifactFolders): Promise<void> {
  for (const folder of [folders.staging, folders.scratch]) {
    await rm(folder, { recursive: true, force: true });
  }
  for (const folder of [folders.bytes, folders.staging, folders.scratch, folders.damaged]) {
    await mkdir(folder, { recursive: true, mode: 0o750 });
  }
  await syncFolder(dirname(folders.bytes));
}

/** Reads every folder; what is not right is set aside and logged, and stops nothing. */
export async function readInventory(
  folders: ArtifactFolders,
  log: Log,
): Promise<Map<string, HeldBytes>> {
  const found = new Map<string, HeldBytes>();
  const names = await readdir(folders.bytes);
  let next = 0;
  const work = async (): Promise<void> => {
    for (let name = names[next++]; name !== undefined; name = names[next++]) {
      const held = await readHeld(folders, name, log);
      if (held !== undefined) found.set(held.hex, held);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  return found;
}

async function readHeld(
  folders: ArtifactFolders,
  hex: string,
  log: Log,
): Promise<HeldBytes | undefined> {
  const dir = join(folders.bytes, hex);
  try {
    if (!HEX.test(hex)) throw new Error("the folder's name is no digest");
    const file = await stat(join(dir, ROOTFS));
    if (!file.isFile()) throw new Error(`${ROOTFS} is not a regular file`);
    if (!(await stat(join(dir, CHUNKS))).isFile()) throw new Error(`${CHUNKS} is not a file`);
    const sidecars = await readSidecars(dir, { hex, sizeBytes: file.size }, log);
    return { hex, sizeBytes: file.size, sidecars };
  } catch (error) {
    log.error("an artifact's folder is damaged and is set aside", {
      digest: `sha256:${hex}`,
      reason: errorText(error),
    });
    await rm(join(folders.damaged, hex), { recursive: true, force: true });
    await rename(dir, join(folders.damaged, hex));
    return undefined;
  }
}

/** @throws when the bytes have another size than a sidecar that reads well says */
async function readSidecars(
  dir: string,
  bytes: { hex: string; sizeBytes: number },
  log: Log,
): Promise<Map<string, ArtifactSidecar>> {
  const sidecars = new Map<string, ArtifactSidecar>();
  for (const name of await readdir(dir)) {
    const id = SIDECAR.exec(name)?.[1];
    if (id === undefined) continue;
    const sidecar = await readSidecar(dir, id, bytes.hex, log);
    if (sidecar === undefined) continue;
    const stated = sidecar.artifact.ext4_size_bytes;
    if (stated !== bytes.sizeBytes) {
      throw new Error(`the file has ${bytes.sizeBytes} bytes instead of ${stated}`);
    }
    sidecars.set(id, sidecar);
  }
  return sidecars;
}

async function readSidecar(
  dir: string,
  id: string,
  hex: string,
  log: Log,
): Promise<ArtifactSidecar | undefined> {
  const path = join(dir, `${id}.json`);
  try {
    const sidecar = sidecarCodec.decode(await readFile(path, "utf8"));
    const { artifact_id, digest } = sidecar.artifact;
    if (!isSafeId(id) || artifact_id !== id || digest !== `sha256:${hex}`) {
      throw new Error(`it names ${artifact_id} and ${digest}`);
    }
    return sidecar;
  } catch (error) {
    log.error("an artifact's sidecar does not read and is set aside", {
      artifact: id,
      reason: errorText(error),
    });
    await rename(path, `${path}.bad`);
    return undefined;
  }
}
