/**
 * The unit file under real systemd, with the daemon from the packed tarball: PID 1 of this machine
 * need not be systemd, since the same root boots in a container (test/fixtures/systemd/boot.sh).
 */
import { execFile, execFileSync } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";

const run = promisify(execFile);
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const fixtures = join(root, "test/fixtures/systemd");
let work: string;
let lines: string[] = [];
let console: string;

const UNITS = {
  "probe.target":
    "[Unit]\nRequires=basic.target probe.service\nAfter=basic.target\nAllowIsolate=yes\n",
  "probe.service": `[Unit]
After=basic.target systemd-sysusers.service systemd-tmpfiles-setup.service
[Service]
Type=oneshot
ExecStart=/opt/probe/probe.sh
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=150
ExecStopPost=/bin/systemctl poweroff --force --force
`,
  "templatecenter.service.d/test.conf": `[Service]
Environment=TEMPLATECENTER_DRIVER=rootfs TEMPLATECENTER_LISTEN=127.0.0.1:0
WatchdogSec=3
TimeoutAbortSec=2
RestartSec=0.2
`,
};

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "tc-systemd-"));
  const payload = join(work, "payload");
  for (const [name, content] of Object.entries(UNITS)) {
    const path = join(payload, "etc/systemd/system", name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
  await mkdir(join(payload, "opt/probe"), { recursive: true });
  await cp(join(fixtures, "probe.sh"), join(payload, "opt/probe/probe.sh"));
  await assembleDemoImage(join(payload, "opt/probe/image"));
  await run("chmod", ["-R", "a+rX", join(payload, "opt")]);
  await run("npm", ["pack", "--pack-destination", work], { cwd: root });
  const tarball = (await readdir(work)).find((name) => name.endsWith(".tgz"));
  const scratch = join(work, "scratch");
  await mkdir(scratch);
  await chmod(scratch, 0o755);
  const script = [join(fixtures, "boot.sh"), scratch, root, join(work, tarball ?? ""), payload];
  const { stdout } = await run("unshare", ["-m", "--propagation", "private", "bash", ...script], {
    timeout: 170_000,
    maxBuffer: 16 * 1024 * 1024,
  });
  console = stdout;
  lines = stdout.split(/\r?\n/).flatMap((line) => /probe (?:ok|not ok|end).*$/.exec(line) ?? []);
}, 180_000);

afterAll(() => rm(work, { recursive: true, force: true }));

describe("templatecenter.service under real systemd", () => {
  test("the probe came to its end", () => {
    expect(lines.at(-1)).toBe("probe end");
  });
  test("systemd says why it restarted the one that hung", () => {
    expect(console).toContain("Watchdog timeout");
  });
  test.each([
    "start returns",
    "ready when start has returned",
    "status line",
    "own user",
    "data folder is private",
    "socket is for the group",
    "template made",
    "template ready",
    "restarted after kill -9",
    "template ready after kill -9",
    "restarted by the watchdog",
    "template ready after the hang",
    "reload is taken",
    "stop returns",
    "clean result",
    "exit status 0",
    "wrong configuration exits 78",
    "and is not started again",
    "and says which key",
  ])("%s", (name) => {
    expect(lines.filter((line) => line.endsWith(` ${name}`) || line.includes(` ${name}:`))).toEqual(
      [`probe ok ${name}`],
    );
  });
});

describe("the unit file", () => {
  const unit = join(root, "systemd/templatecenter.service");
  test("is exposed little", () => {
    const args = ["security", "--offline=true", "--threshold=20", unit];
    expect(execFileSync("systemd-analyze", args).toString()).toContain("OK");
  });
});
