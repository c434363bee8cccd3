// Compiles src/ to dist/ and makes the executable runnable from a packed tarball.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
rmSync(join(root, "dist"), { recursive: true, force: true });
execFileSync(
  process.execPath,
  [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "tsconfig.build.json")],
  { stdio: "inherit", cwd: root },
);
for (const assets of ["ui/assets", "daemon/runtime/assets"]) {
  const from = join(root, "src", assets);
  if (existsSync(from)) cpSync(from, join(root, "dist", assets), { recursive: true });
}
// tsc writes 0644; npm fixes the mode on install, a tarball run by hand does not.
chmodSync(join(root, "dist/daemon/main.js"), 0o755);
