/** The executable as it is installed, compiled once per state of `src` and shared by test files. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Below node_modules, so that the build finds the packages the project uses. */
const cache = join(root, "node_modules/.cache/templatecenter-e2e");
const OLD_MS = 3_600_000;

async function stateOfSource(): Promise<string> {
  const hash = createHash("sha256");
  const entries = await readdir(join(root, "src"), { withFileTypes: true, recursive: true });
  const paths = entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));
  for (const path of paths.sort()) {
    const { mtimeMs, size } = await stat(path);
    hash.update(`${path} ${mtimeMs} ${size}\n`);
  }
  return hash.digest("hex").slice(0, 16);
}

async function removeOld(): Promise<void> {
  for (const name of await readdir(cache)) {
    const { mtimeMs } = await stat(join(cache, name)).catch(() => ({ mtimeMs: Infinity }));
    if (Date.now() - mtimeMs < OLD_MS) continue;
    await rm(join(cache, name), { recursive: true, force: true });
  }
}

/** @returns the path of `main.js` */
export async function buildExecutable(): Promise<string> {
  const dir = join(cache, await stateOfSource());
  const main = join(dir, "dist/daemon/main.js");
  if ((await stat(main).catch(() => undefined)) !== undefined) return main;
  await mkdir(cache, { recursive: true });
  await removeOld();
  const made = await mkdtemp(join(cache, "new-"));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  // Types are checked elsewhere; here only the JavaScript counts.
  const flags = ["-p", join(root, "tsconfig.build.json"), "--noCheck"];
  await run(process.execPath, [tsc, ...flags, "--outDir", join(made, "dist")], { cwd: root });
  for (const assets of ["ui/assets", "daemon/runtime/assets"]) {
    const from = join(root, "src", assets);
    if ((await stat(from).catch(() => undefined)) === undefined) continue;
    await cp(from, join(made, "dist", assets), { recursive: true });
  }
  await cp(join(root, "package.json"), join(made, "package.json"));
  try {
    await rename(made, dir);
  } catch {
    // Another test file was first with the same build.
    await rm(made, { recursive: true, force: true });
  }
  return main;
}
