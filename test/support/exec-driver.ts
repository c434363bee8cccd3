/** Executables of exec drivers for tests: the reference, and faulty ones. */
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));

async function write(path: string, script: string, args: readonly string[]): Promise<string> {
  const words = [process.execPath, script, ...args].map((word) => `'${word}'`).join(" ");
  await writeFile(path, `#!/bin/sh\nexec ${words} "$@"\n`);
  await chmod(path, 0o755);
  return path;
}

/** @returns the executable's path @param without capabilities that it does not declare */
export const referenceDriver = (dir: string, without: readonly string[] = []): Promise<string> =>
  write(join(dir, `reference-${without.join("-")}`), script("exec-reference.mjs"), [
    `--without=${without.join(",")}`,
  ]);

/** @returns the path of the reference, whose live snapshots end with the daemon only */
export async function endlessDriver(dir: string): Promise<string> {
  const path = join(dir, "endless");
  const reference = await referenceDriver(dir);
  const script = [
    "#!/bin/sh",
    "request=$(cat)",
    "wait() { while kill -0 $PPID 2> /dev/null; do sleep 1; done; exit 1; }",
    `case "$request" in *'"live":true'*) wait ;; esac`,
    `printf '%s' "$request" | '${reference}' "$@"`,
  ];
  await writeFile(path, `${script.join("\n")}\n`);
  await chmod(path, 0o755);
  return path;
}

/** @returns the path of the reference with that one rule of the contract broken */
export const faultyDriver = (dir: string, fault: string): Promise<string> =>
  write(join(dir, fault.replaceAll(" ", "-")), script("exec-faulty.mjs"), [fault]);
