/** What the runtime writes byte by byte, read back by the programs whose formats they are. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { FILE_TYPE, makeCpio } from "../../../src/daemon/runtime/cpio.ts";
import { agentProgram } from "../../../src/daemon/runtime/guest-agent.ts";
import { isStatic } from "../../../src/daemon/runtime/guest-assets.ts";
import { runScript } from "../../../src/daemon/runtime/guest-init.ts";
import { emptyOverlay, writeOverlay } from "../../../src/daemon/runtime/qcow2.ts";
import { applyOverlay, mergeOverlays } from "../../../src/daemon/runtime/qcow2-merge.ts";
import { webGuest } from "../../support/guest.ts";

const work = mkdtempSync(join(tmpdir(), "tc-tools-"));
afterAll(() => rmSync(work, { recursive: true }));
const run = (program: string, args: string[], input?: Uint8Array) =>
  execFileSync(program, args, { cwd: work, input, stdio: ["pipe", "pipe", "pipe"] }).toString();

describe("an archive of ours, read by cpio", () => {
  const entries = [
    { path: "bin", mode: FILE_TYPE.folder | 0o755 },
    { path: "bin/odd", mode: FILE_TYPE.file | 0o755, content: Buffer.from("12345") },
    { path: "bin/empty", mode: FILE_TYPE.file | 0o600 },
    { path: "link", mode: FILE_TYPE.symlink | 0o777, content: Buffer.from("bin/odd") },
    { path: "console", mode: FILE_TYPE.character | 0o600, device: { major: 5, minor: 1 } },
  ];

  test("lists and unpacks to what went in", () => {
    const lines = run("cpio", ["-itv", "--quiet"], makeCpio(entries)).trim().split("\n");
    const seen = lines.map((line) => line.replace(/\s+/g, " "));
    expect(seen).toEqual([
      "drwxr-xr-x 1 root root 0 Jan 1 1970 bin",
      "-rwxr-xr-x 1 root root 5 Jan 1 1970 bin/odd",
      "-rw------- 1 root root 0 Jan 1 1970 bin/empty",
      "lrwxrwxrwx 1 root root 7 Jan 1 1970 link -> bin/odd",
      "crw------- 1 root root 5, 1 Jan 1 1970 console",
    ]);
    mkdirSync(join(work, "out"));
    run("cpio", ["-id", "--quiet", "-D", "out"], makeCpio(entries));
    expect(readFileSync(join(work, "out/link"), "utf8")).toBe("12345");
    expect(statSync(join(work, "out/console")).rdev).toBe(0x501);
  });

  test("is the same for the same entries, and can be joined to another", () => {
    expect(makeCpio(entries).equals(makeCpio(entries))).toBe(true);
    expect(makeCpio(entries).length % 4).toBe(0);
  });
});

describe("an overlay of ours, read by qemu-img", () => {
  const base = join(work, "base.raw");
  writeFileSync(base, Buffer.alloc(3 * 65_536 + 512, "templatecenter"));
  const { size } = statSync(base);

  test("is sound, and names its size and the file below it", async () => {
    await writeOverlay(join(work, "disk.qcow2"), size, { path: base, format: "raw" });
    expect(run("qemu-img", ["check", "disk.qcow2"])).toContain("No errors were found");
    const info = JSON.parse(run("qemu-img", ["info", "--output=json", "disk.qcow2"])) as object;
    expect(info).toMatchObject({
      format: "qcow2",
      "virtual-size": size,
      "backing-filename": base,
      "backing-filename-format": "raw",
    });
  });

  test("shows what is below it until it is written, and is sound then too", async () => {
    await writeOverlay(join(work, "top.qcow2"), size, { path: base, format: "raw" });
    const compare = ["compare", "-f", "qcow2", "-F", "raw", "top.qcow2", base];
    expect(run("qemu-img", compare)).toContain("Images are identical");
    run("qemu-io", ["-c", "write -P 9 65536 4096", "top.qcow2"]);
    expect(run("qemu-io", ["-c", "read -P 9 65536 4096", "top.qcow2"])).not.toContain("failed");
    expect(run("qemu-img", ["check", "top.qcow2"])).toContain("No errors were found");
    expect(() => run("qemu-img", compare)).toThrow();
  });

  test("can lie on another overlay, and be as large as its tables name", async () => {
    const below = { path: "disk.qcow2", format: "qcow2" } as const;
    await writeOverlay(join(work, "second.qcow2"), size, below);
    expect(run("qemu-img", ["info", "--backing-chain", "second.qcow2"])).toContain("base.raw");
    await writeOverlay(join(work, "large.qcow2"), 4 * 2 ** 40, { path: base, format: "raw" });
    expect(run("qemu-img", ["check", "large.qcow2"])).toContain("No errors were found");
    expect(() => emptyOverlay(5 * 2 ** 40, below)).toThrow(RangeError);
    expect(() => emptyOverlay(size, { ...below, path: "x".repeat(2_000) })).toThrow(RangeError);
  });
});

describe("overlays of ours made one, read by qemu-img", () => {
  const clusters = 8_192 * 2 + 5;
  const size = clusters * 65_536 - 512;
  const base = join(work, "deep.raw");
  const write = (file: string, cluster: number, pattern: number, length = 65_536) =>
    run("qemu-io", ["-c", `write -P ${pattern} ${cluster * 65_536} ${length}`, file]);
  const compare = (one: string, two: string) =>
    run("qemu-img", ["compare", "-U", "-f", "qcow2", "-F", "qcow2", one, two]);

  test("shows what the layers showed, the uppermost that has a cluster, and is sound", async () => {
    writeFileSync(base, "");
    truncateSync(base, size);
    await writeOverlay(join(work, "low.qcow2"), size, { path: base, format: "raw" });
    await writeOverlay(join(work, "high.qcow2"), size, { path: "low.qcow2", format: "qcow2" });
    // Once in each table's range, at both ends, scattered and in a row.
    for (const [cluster, pattern] of [
      ...[
        [0, 1],
        [1, 2],
        [2, 3],
        [40, 4],
        [8_191, 5],
        [8_192, 6],
        [9_000, 7],
      ],
    ]) {
      write("low.qcow2", cluster!, pattern!);
    }
    run("qemu-io", ["-c", `write -P 8 ${size - 4_096} 4096`, "low.qcow2"]);
    for (const [cluster, pattern] of [
      [1, 11],
      [3, 12],
      [8_192, 13],
    ]) {
      write("high.qcow2", cluster!, pattern!, 4_096);
    }
    run("qemu-io", ["-c", `write -z -u ${2 * 65_536} 65536`, "high.qcow2"]);
    const layers = [join(work, "high.qcow2"), join(work, "low.qcow2")];
    await mergeOverlays(layers, join(work, "one.qcow2"), size, { path: base, format: "raw" });
    expect(run("qemu-img", ["check", "one.qcow2"])).toContain("No errors were found");
    expect(compare("one.qcow2", "high.qcow2")).toContain("Images are identical");
    expect(() => compare("one.qcow2", "low.qcow2")).toThrow();
    expect(statSync(join(work, "one.qcow2")).size).toBeLessThan(20 * 65_536);
    // What was made one can be written and made one again.
    write("one.qcow2", 12_000, 21);
    await mergeOverlays([join(work, "one.qcow2")], join(work, "again.qcow2"), size, {
      ...{ path: base, format: "raw" },
    });
    expect(compare("one.qcow2", "again.qcow2")).toContain("Images are identical");
  });

  test("is written into a copy of what it lies on, zeros and a short end included", async () => {
    const flat = join(work, "flat.raw");
    const old = Buffer.alloc(70_000, "old");
    writeFileSync(flat, old);
    truncateSync(flat, size);
    run("dd", ["if=flat.raw", "of=under.raw", "conv=sparse", "status=none"]);
    truncateSync(join(work, "under.raw"), size);
    const backing = { path: join(work, "under.raw"), format: "raw" } as const;
    await writeOverlay(join(work, "over.qcow2"), size, backing);
    for (const [cluster, pattern] of [
      [1, 31],
      [2, 32],
      [700, 33],
      [8_200, 34],
    ]) {
      write("over.qcow2", cluster!, pattern!);
    }
    run("qemu-io", ["-c", "write -z -u 0 65536", "over.qcow2"]);
    run("qemu-io", ["-c", `write -P 35 ${size - 4_096} 4096`, "over.qcow2"]);
    await applyOverlay(join(work, "over.qcow2"), flat, size);
    expect(statSync(flat).size).toBe(size);
    const same = ["compare", "-f", "qcow2", "-F", "raw", "over.qcow2", "flat.raw"];
    expect(run("qemu-img", same)).toContain("Images are identical");
    expect(statSync(flat).blocks * 512).toBeLessThan(20 * 65_536);
    const abort = AbortSignal.abort(new Error("no longer wanted"));
    const cut = applyOverlay(join(work, "over.qcow2"), flat, size, { signal: abort });
    await expect(cut).rejects.toThrow("no longer wanted");
  });

  test("refuses what is no such overlay, or of another size", async () => {
    run("qemu-img", [
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      "cluster_size=4096",
      "small.qcow2",
      "1M",
    ]);
    const merge = (name: string, bytes: number) =>
      mergeOverlays([join(work, name)], join(work, "no.qcow2"), bytes, {
        ...{ path: base, format: "raw" },
      });
    await expect(merge("small.qcow2", 1_048_576)).rejects.toThrow("no overlay");
    await expect(merge("high.qcow2", 1_048_576)).rejects.toThrow("another size");
    await expect(merge("base.raw", 1_048_576)).rejects.toThrow("no overlay");
  });
});

describe("the guest's agent", () => {
  test("is what its source assembles to", () => {
    const source = new URL("../../../src/daemon/runtime/assets/agent-x86-64.s", import.meta.url)
      .pathname;
    run("as", ["-o", "agent.o", source]);
    run("objcopy", ["-O", "binary", "-j", ".text", "agent.o", "agent.bin"]);
    const headers = 64 + 56;
    expect(
      agentProgram()
        .subarray(headers)
        .equals(readFileSync(join(work, "agent.bin"))),
    ).toBe(true);
  });

  test("is a static executable that fails politely without its port", () => {
    const path = join(work, "agent");
    writeFileSync(path, agentProgram(), { mode: 0o755 });
    expect(isStatic(agentProgram())).toBe(true);
    expect(isStatic(readFileSync(process.execPath))).toBe(false);
    expect(isStatic(Buffer.from("#!/bin/sh\n"))).toBe(false);
    expect(() => run(path, ["/does/not/exist"])).toThrow(/status 1|Command failed/);
  });
});

test("the guest's command line survives a shell, whatever is in it", () => {
  const words = ["$(exit 3)", "`exit 3`", "'", "''\"", "\\", "a\nb", "*", "", "é\u{1f600}"];
  const script = runScript(webGuest({ command: ["printf", "%s|"], args: words, workingDir: "/" }));
  // The guest's own busybox, as this host has it.
  const here = script.replaceAll("/dev/.templatecenter/busybox", "/bin/busybox");
  expect(run("/bin/busybox", ["sh", "-c", here])).toBe(words.map((word) => `${word}|`).join(""));
});
