/** The shipped files by systemd's own checkers; service.test.ts starts the unit. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const shipped = join(import.meta.dirname, "../../systemd");
const unit = join(shipped, "templatecenter.service");
/** Lines of the unit, comments and sections left out. */
const settings = readFileSync(unit, "utf8")
  .split("\n")
  .filter((line) => /^\w+=/.test(line));

describe("templatecenter.service", () => {
  test("verifies without a word", () => {
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", unit]);
    expect([status, stderr.toString()]).toEqual([0, ""]);
  });

  test("is exposed little, and what is left open is what Node and QEMU need", () => {
    const args = ["security", "--offline=true", "--threshold=19", "--json=short", unit];
    const { status, stdout } = spawnSync("systemd-analyze", args);
    expect(status, "overall exposure above 1.9").toBe(0);
    const checks = JSON.parse(stdout.toString()) as { json_field: string; exposure: unknown }[];
    const open = checks.filter(({ exposure }) => exposure !== null && exposure !== "0.0");
    // Each has its reason in the unit's comments.
    expect(open.map(({ json_field }) => json_field).sort()).toEqual([
      "DeviceAllow",
      "IPAddressDeny",
      "MemoryDenyWriteExecute",
      "NotifyAccess",
      "PrivateDevices",
      "PrivateNetwork",
      "PrivateUsers",
      "ProcSubset",
      "RestrictAddressFamilies_AF_INET_INET6",
      "RestrictAddressFamilies_AF_NETLINK",
      "RestrictAddressFamilies_AF_UNIX",
      "RootDirectoryOrRootImage",
      "SystemCallFilter_resources",
      "UMask",
    ]);
  });

  test.each([
    ["Type=notify", "the daemon says when it is ready"],
    ["NotifyAccess=all", "the words come from a child"],
    ["KillMode=process", "sandboxes outlive a restart"],
    ["RestartPreventExitStatus=2 78", "usage and configuration do not mend themselves"],
    ["SystemCallErrorNumber=EPERM", "a refused call does not kill Node"],
  ])("keeps %s: %s", (line) => {
    expect(settings).toContain(line);
  });
});

describe("sysusers and tmpfiles", () => {
  let root: string;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "tc-sysusers-"));
    mkdirSync(join(root, "etc"));
    const file = (name: string) => join(shipped, `templatecenter.${name}.conf`);
    execFileSync("systemd-sysusers", [`--root=${root}`, file("sysusers")], { stdio: "ignore" });
    execFileSync("systemd-tmpfiles", [`--root=${root}`, "--create", file("tmpfiles")]);
  });
  afterAll(() => rmSync(root, { recursive: true }));

  const fields = (path: string, name: string) =>
    readFileSync(join(root, path), "utf8")
      .split("\n")
      .map((line) => line.split(":"))
      .find(([first]) => first === name);

  test("a user of its own, without a shell, who may open /dev/kvm by group", () => {
    const user = fields("etc/passwd", "templatecenter") ?? [];
    expect(user.slice(5)).toEqual(["/var/lib/templatecenter", "/usr/sbin/nologin"]);
    expect(user[2]).not.toBe("0");
    expect(fields("etc/group", "kvm")?.[3]).toBe("templatecenter");
  });

  test("state is the daemon's, configuration is root's and readable by it, others see neither", () => {
    const [, , uid, gid] = (fields("etc/passwd", "templatecenter") ?? []).map(Number);
    const etc = ["etc/templatecenter", "etc/templatecenter/credentials"];
    const modes = ["var/lib/templatecenter", ...etc].map((path) => {
      const found = statSync(join(root, path));
      return [found.uid, found.gid, (found.mode & 0o7777).toString(8)];
    });
    expect(modes).toEqual([
      [uid, gid, "750"],
      [0, gid, "750"],
      [0, 0, "700"],
    ]);
  });
});
