/** The unit file under real systemd, with the daemon from the packed tarball. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { fixtures, prepareContainer } from "./container.ts";

const run = promisify(execFile);
let work: string;
let lines: string[] = [];
let console: string;

const UNITS = {
  "etc/systemd/system/probe.target":
    "[Unit]\nRequires=basic.target probe.service\nAfter=basic.target\nAllowIsolate=yes\n",
  "etc/systemd/system/probe.service": `[Unit]
After=basic.target systemd-sysusers.service systemd-tmpfiles-setup.service
[Service]
Type=oneshot
ExecStart=/opt/probe/probe.sh
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=150
ExecStopPost=/bin/systemctl poweroff --force --force
`,
  "etc/systemd/system/templatecenter.service.d/test.conf": `[Service]
Environment=TEMPLATECENTER_DRIVER=rootfs TEMPLATECENTER_LISTEN=127.0.0.1:0
WatchdogSec=3
TimeoutAbortSec=2
RestartSec=0.2
`,
};

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "tc-image-"));
  await assembleDemoImage(work);
  const { command, remove } = await prepareContainer({
    files: UNITS,
    folders: { "opt/probe/image": work, "opt/probe/probe.sh": join(fixtures, "probe.sh") },
  });
  const [file = "", ...args] = command;
  try {
    const { stdout } = await run(file, args, { timeout: 170_000, maxBuffer: 16 * 1024 * 1024 });
    console = stdout;
  } finally {
    await remove();
  }
  lines = console.split(/\r?\n/).flatMap((line) => /probe (?:ok|not ok|end).*$/.exec(line) ?? []);
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
    "units are installed",
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
    "a reload reads the configuration",
    "and the service is active again",
    "a wrong configuration is refused by a reload",
    "and the service goes on",
    "levels reach the journal as priorities",
    "what is no error has none",
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
