/**
 * A process that publishes and removes artifacts, and kills itself with SIGKILL just before its
 * n-th call that changes the filesystem: so every step of a publish is a place where it can end.
 */
import fs, { writeSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const [root = "", step = "0"] = process.argv.slice(2);
let left = Number(step);
let armed = false;

type AnyCall = (...args: unknown[]) => unknown;

function killBefore(target: object, name: string): void {
  const calls = target as Record<string, AnyCall>;
  const real = calls[name] as AnyCall;
  calls[name] = function (this: unknown, ...args: unknown[]) {
    if (armed && left-- <= 0) process.kill(process.pid, "SIGKILL");
    return real.apply(this, args);
  };
}

const probe = await fs.promises.open(process.argv[1] ?? "", "r");
const handle = Object.getPrototypeOf(probe) as object;
await probe.close();
for (const name of ["mkdir", "open", "rename", "rm", "unlink"]) killBefore(fs.promises, name);
for (const name of ["sync", "writeFile", "chmod"]) killBefore(handle, name);
syncBuiltinESMExports();

const { openArtifactStore } = await import("../../../src/storage/index.ts");
const { imageBytes, manifestOf, recordedLog, sidecarOf, writeSparse } =
  await import("../../support/storage.ts");
const store = await openArtifactStore({
  dir: `${root}/artifacts`,
  workDir: `${root}/work`,
  log: recordedLog(),
});
const publish = async (id: string, seed: number): Promise<void> => {
  const bytes = imageBytes(seed, 2);
  const manifest = manifestOf(bytes);
  const path = store.scratchPath(`${id}-build`);
  await writeSparse(path, bytes);
  armed = true;
  await store.publish(path, manifest, sidecarOf(id, manifest, `2026-01-0${seed}T00:00:00Z`));
  writeSync(1, `published ${id} ${seed}\n`);
  armed = false;
};
await publish("rfs-1", 1);
await publish("rfs-2", 1);
await publish("rfs-1", 2);
armed = true;
await store.remove("rfs-2");
writeSync(1, "removed rfs-2\n");
armed = false;
writeSync(1, "end\n");
