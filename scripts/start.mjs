// `npm start`: set-up, then the daemon in the foreground with the guest that the set-up made. What
// follows `--` goes to `templatecenter daemon`.
import { spawn, spawnSync } from "node:child_process";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const setup = spawnSync(process.execPath, [join(root, "scripts/setup.mjs"), "demo"], {
  stdio: "inherit",
});
if (setup.status !== 0) process.exit(setup.status ?? 1);
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const guestDir = process.env.TEMPLATECENTER_GUEST_DIR ?? join(cache, "templatecenter/guest");
const daemon = spawn(
  process.execPath,
  [join(root, "dist/daemon/main.js"), "daemon", ...process.argv.slice(2)],
  { stdio: "inherit", env: { ...process.env, TEMPLATECENTER_GUEST_DIR: guestDir } },
);
// A terminal's Ctrl-C reaches the daemon by itself; a signal to this process is handed on.
process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => daemon.kill("SIGTERM"));
daemon.on("exit", (code) => process.exit(code ?? 1));
