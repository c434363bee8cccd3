import { execFileSync, spawnSync } from "node:child_process";
import { rmSync, mkdirSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { test, expect } from "vitest";
import { Ext4Writer } from "../../../src/daemon/build/ext4/writer.ts";
import { halfMd4 } from "../../../src/daemon/build/ext4/half-md4.ts";
import { crc32c } from "../../../src/daemon/build/ext4/crc32c.ts";

const meta = (mode = 0o644, x: Record<string, string> = {}) => ({ mode, uid: 70000, gid: 100001, mtimeSeconds: 1700000000, mtimeNanoseconds: 123456789, xattrs: new Map(Object.entries(x).map(([k, v]) => [k, Buffer.from(v)])) });
test("crc", () => { expect((crc32c(0xffffffff, Buffer.from("123456789")) ^ 0xffffffff) >>> 0).toBe(0xe3069283); });
test("image", async () => {
  mkdirSync("/tmp/tc/own", { recursive: true });
  const p = "/tmp/tc/own/a.ext4"; rmSync(p, { force: true });
  const w = await Ext4Writer.create(p, { uuid: Buffer.alloc(16, 7), sync: true });
  const d = w.addDirectory(w.root, "big", meta(0o755));
  for (let i = 0; i < 70000; i++) { const f = w.addFile(d, "file-number-" + i, meta(), 0); f.end(); }
  const s = w.addDirectory(w.root, "small", meta(0o755, { "user.a": "b", "security.capability": "xxxxxxxxxxxxxxxxxxxx", "user.long": "z".repeat(3000) }));
  for (let i = 0; i < 3000; i++) { const b = randomBytes(1 + (i * 37) % 20000); const f = w.addFile(s, "s" + i, meta(), b.length); f.write(b); f.end(); }
  const big = w.addFile(w.root, "large", meta(), 300 * 1024 * 1024);
  const mb = randomBytes(1 << 20);
  for (let i = 0; i < 300; i++) { big.write(mb); const q = w.pressure(); if (q) await q; } big.end();
  const sp = w.addFile(w.root, "sparse", meta(), 5 * 2 ** 30);
  for (let i = 0; i < 500; i++) { sp.skip(1024 * 1024); sp.write(Buffer.from("hello")); sp.skip(1024*1024*9-5 ); if (i==499) break; }
  sp.skip(5 * 2 ** 30 - 500 * 10 * 1024 * 1024); sp.end();
  w.addSymlink(w.root, "l1", meta(0o777), "short"); w.addSymlink(w.root, "l2", meta(0o777), "x".repeat(200));
  w.addDevice(w.root, "dev", meta(), { kind: "chardev", major: 1, minor: 3 });
  w.addDevice(w.root, "dev2", meta(), { kind: "blockdev", major: 300, minor: 70000 });
  w.addFifo(w.root, "fifo", meta());
  w.addLink(w.root, "hard", w.child(s, "s5")!);
  for (let i = 100; i < 900; i++) w.remove(s, "s" + i);
  const r = await w.finish();
  console.log(r.digest, r.sizeBytes, r.entries);
  const e = spawnSync("e2fsck", ["-fn", p], { encoding: "utf8" });
  console.log(e.stdout.slice(0, 3000), e.stderr);
  console.log(execFileSync("debugfs", ["-R", "dx_hash -h half_md4 -s 07070707-0707-0707-0707-070707070707 file-number-17", p], { encoding: "utf8" }));
  console.log(halfMd4("file-number-17", [0x07070707,0x07070707,0x07070707,0x07070707]).toString(16));
  expect(e.status).toBe(0);
}, 60000);
