/**
 * The guest of `runtime check` where none is given: static busybox serves a page that keeps a note,
 * on port 8080.
 */
import { readFile } from "node:fs/promises";
import { AppError } from "../../../../domain/index.ts";
import { Ext4Writer } from "../../../build/ext4/writer.ts";
import type { NodeMetadata, TreeNode } from "../../../build/rootfs-tree.ts";
import type { CheckGuest } from "./context.ts";

const BUSYBOX = ["/bin/busybox", "/usr/bin/busybox"];
const APPLETS = ["sh", "httpd", "cat", "echo"];
const FREE_BYTES = 16 * 1024 * 1024;
/** Any: the file is used by one check only. */
const UUID = Buffer.from("templatecenter01");

const NOTE = `#!/bin/sh
echo 'content-type: text/plain'
echo
[ -z "$QUERY_STRING" ] || echo "$QUERY_STRING" > /tmp/note
cat /tmp/note
`;

export const DEFAULT_GUEST = {
  command: ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"],
  port: 8080,
  path: "/",
  notePath: "/cgi-bin/note",
} as const;

/** What the checks boot, of the options of the command. */
export const checkGuest = (options: {
  command: readonly string[];
  port: number;
  path: string;
  notePath: string;
  memoryMib: number;
  timeoutMs: number;
}): CheckGuest => ({
  command: options.command,
  args: [],
  env: ["PATH=/usr/local/bin:/usr/bin:/bin"],
  workingDir: "/",
  cpuMillis: 1_000,
  memoryMib: options.memoryMib,
  exposedPorts: [options.port],
  notePath: options.notePath,
  probe: {
    port: options.port,
    path: options.path,
    timeoutMs: options.timeoutMs,
    periodMs: 50,
    successThreshold: 1,
    failureThreshold: Number.MAX_SAFE_INTEGER,
  },
});

const meta = (mode: number): NodeMetadata => ({
  mode,
  ...{ uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs: new Map() },
});

/** @throws AppError guest_assets_missing without busybox on this host */
export async function writeGuestRootfs(path: string): Promise<void> {
  const writer = await Ext4Writer.create(path, {
    ...{ uuid: UUID, extraFreeBytes: FREE_BYTES, sync: false },
  });
  const folder = (parent: TreeNode, name: string) => writer.addDirectory(parent, name, meta(0o755));
  const file = (parent: TreeNode, name: string, content: Uint8Array, mode = 0o644) => {
    const opened = writer.addFile(parent, name, meta(mode), content.length);
    opened.write(content);
    opened.end();
  };
  const { root } = writer;
  const bin = folder(root, "bin");
  file(bin, "busybox", await readBusybox(), 0o755);
  for (const name of APPLETS) writer.addSymlink(bin, name, meta(0o777), "busybox");
  for (const name of ["dev", "proc", "sys", "etc"]) folder(root, name);
  const www = folder(root, "www");
  file(www, "index.html", Buffer.from("ok\n"));
  file(folder(www, "cgi-bin"), "note", Buffer.from(NOTE), 0o755);
  file(writer.addDirectory(root, "tmp", meta(0o1777)), "note", Buffer.from("as built\n"));
  await writer.finish();
}

async function readBusybox(): Promise<Uint8Array> {
  for (const path of BUSYBOX) {
    const found = await readFile(path).catch(() => undefined);
    if (found !== undefined) return found;
  }
  const what = "there is no busybox for a guest here";
  throw new AppError("guest_assets_missing", what, {
    meta: { hint: "install busybox-static, or give a root filesystem with --rootfs" },
  });
}
