/** What the tests of the filesystem writer share: entries to add, and the oracles that judge. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Ext4Writer, type Ext4Result } from "../../../src/daemon/build/ext4/writer.ts";
import type { NodeMetadata, TreeNode } from "../../../src/daemon/build/rootfs-tree.ts";

export const metadata = (change: Partial<NodeMetadata> = {}): NodeMetadata => ({
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeSeconds: 1_700_000_000,
  mtimeNanoseconds: 123_456_789,
  xattrs: new Map(),
  ...change,
});

/** Bytes that look random and are the same for the same seed. */
export function seededBytes(seed: string, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i * 64 < length; i++) {
    parts.push(createHash("sha512").update(`${seed}:${i}`).digest());
  }
  return Buffer.concat(parts).subarray(0, length);
}

export async function putFile(
  writer: Ext4Writer,
  parent: TreeNode,
  name: string,
  content: Uint8Array,
  change: Partial<NodeMetadata> = {},
): Promise<TreeNode> {
  const file = writer.addFile(parent, name, metadata(change), content.length);
  for (let at = 0; at < content.length; at += 60_000) {
    file.write(content.subarray(at, at + 60_000));
    await writer.pressure();
  }
  file.end();
  return file.node;
}

export function scratchFolder(): { path(name: string): string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "templatecenter-ext4-"));
  return {
    path: (name) => join(folder, name),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export async function buildImage(
  path: string,
  fill: (writer: Ext4Writer) => Promise<void>,
  uuid: Uint8Array = Buffer.alloc(16, 7),
): Promise<Ext4Result> {
  const writer = await Ext4Writer.create(path, { uuid, sync: false });
  await fill(writer);
  return writer.finish();
}

/** Exit status and output of `e2fsck -fn`; 0 says that it found nothing. */
export function fsck(path: string): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync("e2fsck", ["-fn", path], { encoding: "utf8" });
  return { status, output: status === 0 ? "" : stdout + stderr };
}

export const CLEAN = { status: 0, output: "" };

/** What debugfs answers to one request. */
export const debugfs = (path: string, request: string): Buffer =>
  spawnSync("debugfs", ["-R", request, path]).stdout;

/**
 * Runs a shell script with the image mounted at `$M` in a mount namespace of its own, so that no
 * mount outlives it whatever happens. Throws with its output when it fails.
 */
export function mounted(path: string, options: string, script: string): string {
  const mount = `M=$(mktemp -d); mount -o loop,${options} "$0" "$M" || exit 9`;
  const after = `cd /; umount "$M" && rmdir "$M"`;
  const run = spawnSync("unshare", ["-m", "bash", "-ec", `${mount}\n${script}\n${after}`, path], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (run.status !== 0) throw new Error(`status ${run.status}: ${run.stdout}${run.stderr}`);
  return run.stdout;
}
