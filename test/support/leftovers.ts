/** What a daemon must not leave on the disk or in the process table, whatever happened to it. */
import { readFile, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { verifyImage } from "../../src/daemon/build/ext4/verify.ts";
import { decodeChunkManifest } from "../../src/domain/index.ts";
import { processesBelow, type TestDaemon } from "./daemon.ts";

async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries.filter((e) => !e.isDirectory()).map((e) => join(e.parentPath, e.name));
}

/** Each artifact on the disk is whole: bytes as its manifest says, under its own name. */
async function brokenArtifacts(dataDir: string): Promise<string[]> {
  const problems: string[] = [];
  for (const folder of ["staging", "damaged"]) {
    for (const path of await filesBelow(join(dataDir, "artifacts", folder))) {
      problems.push(`${path} is left over`);
    }
  }
  const bytes = join(dataDir, "artifacts/sha256");
  for (const hex of await readdir(bytes).catch(() => [])) {
    const dir = join(bytes, hex);
    const names = await readdir(dir);
    const sidecars = names.filter((name) => name.endsWith(".json"));
    if (sidecars.length === 0) problems.push(`${dir} has no sidecar`);
    const known = new Set(["rootfs.ext4", "chunks.bin", ...sidecars]);
    for (const name of names) if (!known.has(name)) problems.push(`${dir}/${name} is left over`);
    try {
      const manifest = decodeChunkManifest(await readFile(join(dir, "chunks.bin")));
      const { digest } = await verifyImage(join(dir, "rootfs.ext4"), manifest, {});
      if (digest !== `sha256:${hex}`) problems.push(`${dir} has digest ${digest}`);
    } catch (error) {
      problems.push(`${dir}: ${String(error)}`);
    }
  }
  return problems;
}

/** In words, everything that is there and should not be; empty when all is well. */
export async function leftovers(daemon: TestDaemon): Promise<string[]> {
  const { dataDir } = daemon;
  const problems = await brokenArtifacts(dataDir);
  for (const path of await filesBelow(join(dataDir, "work"))) problems.push(`${path} is left over`);
  for (const name of await daemon.names("work")) {
    if (name !== "artifacts") problems.push(`work/${name} is left over`);
  }
  const templates = await daemon.items("/v1/templates");
  const ready = templates.filter((t) => t["status"] === "READY").map((t) => t["template_id"]);
  // A template's folder is of a generation, a snapshot's is not.
  const made = await daemon.names("templates");
  const idOf = (folder: string) => folder.replace(/\.g\d+$/, "");
  for (const name of made)
    if (!ready.includes(idOf(name))) problems.push(`templates/${name} is orphaned`);
  for (const id of ready)
    if (!made.some((name) => idOf(name) === id)) problems.push(`${String(id)} has no files`);
  const sandboxes = await daemon.items("/v1/sandboxes");
  const ids = sandboxes.map((s) => s["sandbox_id"]);
  for (const name of await daemon.names("sandboxes")) {
    if (!ids.includes(name)) problems.push(`sandboxes/${name} is orphaned`);
  }
  const pids = sandboxes.map((s) => s["pid"]);
  for (const pid of await processesBelow(dataDir)) {
    if (pids.includes(pid)) continue;
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "its end");
    problems.push(`process ${pid} is left over in ${cwd}`);
  }
  return problems;
}
