/** Parts for tests that boot real guests: installed assets, a small root filesystem, a driver. */
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { realClock } from "../../src/daemon/effects/clock.ts";
import { realRandom } from "../../src/daemon/effects/random.ts";
import { installGuestAssets } from "../../src/daemon/runtime/guest-assets.ts";
import { createDriver } from "../../src/daemon/runtime/select.ts";
import type { DriverSandbox, GuestSpec, Log } from "../../src/domain/index.ts";

export const guestDir =
  process.env["TEMPLATECENTER_GUEST_DIR"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "templatecenter/guest");

const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
};

/** Installs them unless they are there: 27 MB from the distribution's mirror, once. */
export const guestAssets = (log: Log = quiet) => installGuestAssets({ dir: guestDir, log });

const APPLETS = [
  "sh",
  "httpd",
  "head",
  "od",
  "date",
  "cat",
  "sleep",
  "printf",
  "env",
  "pwd",
  "tr",
  "cp",
];

/** Tells random bytes, the guest's time, and a file of its own; a query is written to that file. */
const STATE = `#!/bin/sh
[ -z "$QUERY_STRING" ] || echo "$QUERY_STRING" > /srv/note
printf 'Content-Type: text/plain\\r\\n\\r\\n'
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
date +%s
cat /srv/note
`;

/** Programs at /cgi-bin; busybox's shell drops the NUL bytes of what it reads. */
const MORE_PAGES = {
  /** Writes the word to a new file, which stays in the guest's memory for half a minute. */
  write: `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$QUERY_STRING" > "/srv/new-$QUERY_STRING"
`,
  /** Ends the guest's agent, which is a process of the same kernel. */
  "kill-agent": `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
for process in /proc/[0-9]*; do
  read -r command < $process/cmdline
  case "$command" in /agent/dev/*) kill -9 \${process#/proc/} ;; esac
done
`,
};

/** An ext4 image with a static busybox as its only program: /srv is served on port 80. */
export function makeGuestRootfs(workDir: string): string {
  const tree = join(workDir, "tree");
  for (const folder of ["bin", "srv/cgi-bin", "tmp", "usr/local/bin"]) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  for (const applet of APPLETS) symlinkSync("busybox", join(tree, "bin", applet));
  writeFileSync(join(tree, "srv/note"), "as built\n");
  writeFileSync(join(tree, "srv/cgi-bin/state"), STATE);
  for (const [name, script] of Object.entries(MORE_PAGES)) {
    writeFileSync(join(tree, "srv/cgi-bin", name), script, { mode: 0o755 });
  }
  writeFileSync(join(tree, "usr/local/bin/envd"), "#!/bin/sh\necho started > /srv/envd\n");
  for (const path of ["srv/cgi-bin/state", "usr/local/bin/envd"])
    chmodSync(join(tree, path), 0o755);
  const path = join(workDir, "rootfs.ext4");
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", tree, path, "32M"]);
  return path;
}

export const webGuest = (change: Partial<GuestSpec> = {}): GuestSpec => ({
  command: ["/bin/httpd"],
  args: ["-f", "-p", "80", "-h", "/srv"],
  env: [],
  workingDir: "/",
  cpuMillis: 1_000,
  memoryMib: 128,
  exposedPorts: [80],
  probe: {
    port: 80,
    path: "/cgi-bin/state",
    timeoutMs: 60_000,
    periodMs: 50,
    successThreshold: 1,
    failureThreshold: 1_000,
  },
  ...change,
});

/** A driver over `<dataDir>/sandboxes` and `<dataDir>/templates`. */
export async function openDriver(
  dataDir: string,
  options: { requested?: "auto" | "qemu" | "rootfs"; guestDir?: string; log?: Log } = {},
) {
  const sandboxesDir = join(dataDir, "sandboxes");
  const templatesDir = join(dataDir, "templates");
  for (const dir of [sandboxesDir, templatesDir]) mkdirSync(dir, { recursive: true });
  return createDriver({
    requested: options.requested ?? "qemu",
    guestDir: options.guestDir ?? guestDir,
    stateDir: dataDir,
    sandboxesDir,
    templatesDir,
    clock: realClock,
    random: realRandom,
    log: options.log ?? quiet,
  });
}

/** GET from a sandbox, tried again until it answers well (bounded). */
export async function ask(
  sandbox: DriverSandbox,
  path: string,
  options: { timeoutMs?: number } = {},
): Promise<string> {
  const address = sandbox.ports["80"];
  if (address === undefined) throw new Error("port 80 is not forwarded");
  const until = performance.now() + (options.timeoutMs ?? 20_000);
  for (;;) {
    const signal = AbortSignal.timeout(5_000);
    const url = `http://${address.host}:${address.port}${path}`;
    const answer = await fetch(url, { signal }).catch((error: unknown) => String(error));
    if (typeof answer !== "string" && answer.ok) return answer.text();
    const said = typeof answer === "string" ? answer : `status ${answer.status}`;
    if (performance.now() > until) throw new Error(`no answer: ${said}`);
    await realClock.sleep(5);
  }
}

/** What the state page says. */
export async function askState(sandbox: DriverSandbox, query = "") {
  const text = await ask(sandbox, `/cgi-bin/state${query === "" ? "" : `?${query}`}`);
  const [random = "", seconds = "", note = ""] = text.split("\n");
  return { random, seconds: Number(seconds), note };
}
