import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { verifyImage } from "../../../src/daemon/build/ext4/verify.ts";
import { Ext4Writer } from "../../../src/daemon/build/ext4/writer.ts";
import { sharedChunkRatio } from "../../../src/domain/index.ts";
import {
  CLEAN,
  buildImage,
  debugfs,
  fsck,
  metadata,
  mounted,
  putFile,
  scratchFolder,
  seededBytes,
} from "./image-builder.ts";

const scratch = scratchFolder();
afterAll(() => scratch.remove());

const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
/** Version 2 ACL as Linux passes it: owner rwx, user 70000 r--, group r-x, mask rwx, other ---. */
const ACL = Buffer.from(
  "0200000001000700ffffffff020004007011010004000500ffffffff10000700ffffffff20000000ffffffff",
  "hex",
);

async function everyKind(writer: Ext4Writer): Promise<void> {
  const { root } = writer;
  const x = (entries: Record<string, Uint8Array | string>) => ({
    xattrs: new Map(Object.entries(entries).map(([name, v]) => [name, Buffer.from(v)])),
  });
  const dir = writer.addDirectory(
    root,
    "dir",
    metadata({ mode: 0o1777, uid: 70_000, gid: 99_999 }),
  );
  const one = await putFile(writer, dir, "one", seededBytes("one", 100_001), { mode: 0o4755 });
  writer.addLink(root, "one-again", one);
  await putFile(writer, dir, "n".repeat(255), Buffer.from("long name"));
  await putFile(writer, root, "old", Buffer.from("1"), { mtimeSeconds: -86_400 });
  await putFile(writer, root, "late", Buffer.from("2"), { mtimeSeconds: 5_000_000_000 });
  await putFile(writer, root, "empty", Buffer.alloc(0));
  await putFile(writer, root, "cap", Buffer.from("c"), {
    ...x({ "security.capability": Buffer.from("0100000200040000000000000000000000000000", "hex") }),
  });
  await putFile(writer, root, "attrs", Buffer.from("a"), {
    ...x({ "user.a": "b", "user.long": "v".repeat(3_000), "trusted.t": "" }),
  });
  await putFile(writer, root, "acl", Buffer.from("l"), {
    mode: 0o670,
    ...x({ "system.posix_acl_access": ACL }),
  });
  for (const length of [1, 59, 60, 4_095]) {
    writer.addSymlink(root, `link${length}`, metadata({ mode: 0o777 }), "t".repeat(length));
  }
  writer.addDevice(root, "null", metadata(), { kind: "chardev", major: 1, minor: 3 });
  writer.addDevice(root, "disk", metadata(), { kind: "blockdev", major: 300, minor: 70_000 });
  writer.addFifo(root, "pipe", metadata({ mode: 0o600 }));
}

test("the kernel shows every kind of entry exactly as it was added", async () => {
  const path = scratch.path("kinds");
  await buildImage(path, everyKind);
  expect(fsck(path)).toEqual(CLEAN);
  const listing = mounted(
    path,
    "ro,noload",
    `cd "$M"; find . -mindepth 1 ! -name lost+found -printf '%P|%y|%m|%U|%G|%n|%s|%T@\\n' | sort
     stat -c '%n %t %T' null disk; TZ=UTC stat -c %y old; sha256sum dir/one one-again | cut -c1-64
     getfattr -d -e hex -m - cap attrs acl`,
  );
  const has = (line: string) => expect(listing).toContain(`${line}\n`);
  has("dir|d|1777|70000|99999|2|4096|1700000000.1234567890");
  has("dir/one|f|4755|0|0|2|100001|1700000000.1234567890");
  has("one-again|f|4755|0|0|2|100001|1700000000.1234567890");
  has(`dir/${"n".repeat(255)}|f|644|0|0|1|9|1700000000.1234567890`);
  has("late|f|644|0|0|1|1|5000000000.1234567890");
  has("1969-12-31 00:00:00.123456789 +0000");
  for (const n of [1, 59, 60, 4_095]) has(`link${n}|l|777|0|0|1|${n}|1700000000.1234567890`);
  has("pipe|p|600|0|0|1|0|1700000000.1234567890");
  has("null 1 3");
  has("disk 12c 11170");
  expect(listing.split(sha(seededBytes("one", 100_001))).length).toBe(3);
  has("security.capability=0x0100000200040000000000000000000000000000");
  has(`user.long=0x${"76".repeat(3_000)}`);
  has("user.a=0x62");
  has(`system.posix_acl_access=0x${ACL.toString("hex")}`);
  expect(listing).toMatch(/^trusted\.t(=0x)?$/m);
});

test("a guest can write, delete and fill the filesystem, and e2fsck still finds nothing", async () => {
  const path = scratch.path("writable");
  await buildImage(path, async (writer) => {
    await everyKind(writer);
    const many = writer.addDirectory(writer.root, "many", metadata({ mode: 0o755 }));
    for (let i = 0; i < 3_000; i++) await putFile(writer, many, `name-${i}`, Buffer.from(`${i}`));
  });
  mounted(
    path,
    "rw",
    `cd "$M"; for i in $(seq 2000); do echo $i > many/added-$i; done; rm many/name-1*; rm -r dir
     test "$(cat many/name-2999)" = 2999; test ! -e many/name-1000; setfattr -n user.q -v 1 attrs
     dd if=/dev/urandom of=fill bs=1M 2>/dev/null || true; sync; test -s fill; rm fill`,
  );
  expect(fsck(path)).toEqual(CLEAN);
}, 120_000);

test("folders above 65 000 entries are hash trees that the kernel finds every name in", async () => {
  const path = scratch.path("wide");
  await buildImage(path, async (writer) => {
    const wide = writer.addDirectory(writer.root, "wide", metadata({ mode: 0o755 }));
    for (let i = 0; i < 100_000; i++) writer.addFile(wide, `entry-${i}`, metadata(), 0).end();
    const deep = writer.addDirectory(writer.root, "folders", metadata({ mode: 0o755 }));
    for (let i = 0; i < 65_001; i++) writer.addDirectory(deep, `d${i}`, metadata({ mode: 0o755 }));
  });
  expect(fsck(path)).toEqual(CLEAN);
  const seen = mounted(
    path,
    "ro,noload",
    `cd "$M/wide"; stat -c %h ../folders; for i in 0 1 777 65536 99999; do stat -c %n entry-$i; done
     seq -f 'entry-%.0f' 0 99999 | xargs stat -c %n | wc -l`,
  );
  expect(seen.trim().split("\n")).toEqual([
    ...["1", "entry-0", "entry-1", "entry-777", "entry-65536", "entry-99999", "100000"],
  ]);
}, 120_000);

test("files larger than 4 GiB, with holes, and across backup groups read back", async () => {
  const path = scratch.path("large");
  const megabyte = seededBytes("mb", 1024 * 1024);
  await buildImage(path, async (writer) => {
    const sparse = writer.addFile(writer.root, "sparse", metadata(), 5 * 2 ** 30);
    // One kilobyte in every 2 MiB: more extents than one tree block holds.
    for (let i = 0; i < 2_560; i++) {
      sparse.skip(2 * 1024 * 1024 - 1_024);
      sparse.write(megabyte.subarray(0, 1_024));
    }
    sparse.end();
    const solid = writer.addFile(writer.root, "solid", metadata(), 320 * megabyte.length);
    for (let i = 0; i < 320; i++) {
      solid.write(megabyte);
      await writer.pressure();
    }
    solid.end();
  });
  expect(fsck(path)).toEqual(CLEAN);
  const expected = createHash("sha256");
  for (let i = 0; i < 320; i++) expected.update(megabyte);
  const script = `cd "$M"; sha256sum < solid; stat -c '%s %b' sparse
    tail -c 1024 sparse | sha256sum; head -c 2096128 sparse | tr -d '\\0' | wc -c`;
  const [solid, size, tail, zeros] = mounted(path, "ro,noload", script).trim().split("\n");
  expect(solid).toContain(expected.digest("hex"));
  expect(size?.split(" ")[0]).toBe(`${5 * 2 ** 30}`);
  expect(Number(size?.split(" ")[1])).toBeLessThan(2_600 * 8);
  expect(tail).toContain(sha(megabyte.subarray(0, 1_024)));
  expect(zeros?.trim()).toBe("0");
}, 120_000);

test("two builds are the same bytes, and the manifest is that of the file", async () => {
  const results = [];
  for (const name of ["twin-a", "twin-b"])
    results.push(await buildImage(scratch.path(name), everyKind));
  const [a, b] = results;
  expect(a?.digest).toBe(b?.digest);
  expect(spawnSync("cmp", [scratch.path("twin-a"), scratch.path("twin-b")]).status).toBe(0);
  expect((await verifyImage(scratch.path("twin-a"), a?.manifest)).digest).toBe(a?.digest);
  expect(sharedChunkRatio(a!.manifest, b!.manifest)).toBe(1);
});

test("what is replaced or removed is nowhere in the file", async () => {
  const path = scratch.path("freed");
  const secret = Buffer.from("SECRET-THAT-A-LATER-LAYER-REMOVES".repeat(40));
  const result = await buildImage(path, async (writer) => {
    await putFile(writer, writer.root, "kept", Buffer.from("kept"));
    await putFile(writer, writer.root, "small", secret);
    const large = Buffer.concat(Array.from({ length: 300 }, () => secret));
    await putFile(writer, writer.root, "large", large);
    await putFile(writer, writer.root, "after", Buffer.from("after"));
    writer.remove(writer.root, "small");
    await putFile(writer, writer.root, "large", Buffer.from("now small"));
  });
  expect(fsck(path)).toEqual(CLEAN);
  await verifyImage(path, result.manifest);
  const file = openSync(path, "r");
  const head = Buffer.alloc(8 * 1024 * 1024);
  readSync(file, head, 0, head.length, 0);
  closeSync(file);
  expect(head.includes("SECRET")).toBe(false);
  expect(head.includes("now small")).toBe(true);
  expect(debugfs(path, "cat /kept").toString()).toBe("kept");
});

test("a file can be read back while its chunk is still being filled", async () => {
  const path = scratch.path("reread");
  const large = seededBytes("large", 3_000_000);
  await buildImage(path, async (writer) => {
    const small = await putFile(writer, writer.root, "small", Buffer.from("bundle"));
    const node = await putFile(writer, writer.root, "large", large);
    expect(Buffer.from(await writer.readFile(small)).toString()).toBe("bundle");
    expect(sha(await writer.readFile(node))).toBe(sha(large));
    await putFile(writer, writer.root, "small", Buffer.from("bundle and more"));
    for (let i = 0; i < 5; i++) {
      const node = await putFile(writer, writer.root, `next${i}`, Buffer.from(`${i}`));
      expect(Buffer.from(await writer.readFile(node)).toString()).toBe(`${i}`);
    }
  });
  expect(fsck(path)).toEqual(CLEAN);
  expect(debugfs(path, "cat /small").toString()).toBe("bundle and more");
  expect(debugfs(path, "cat /next4").toString()).toBe("4");
});

test("a hard link may take the place of the folder that held its only other name", async () => {
  const path = scratch.path("relinked");
  await buildImage(path, async (writer) => {
    const folder = writer.addDirectory(writer.root, "d", metadata({ mode: 0o755 }));
    writer.addLink(writer.root, "d", await putFile(writer, folder, "x", Buffer.from("content")));
  });
  expect(fsck(path)).toEqual(CLEAN);
  expect(debugfs(path, "cat /d").toString()).toBe("content");
});

test("300 000 empty files get as many inodes", async () => {
  const path = scratch.path("empties");
  await buildImage(path, async (writer) => {
    for (let i = 0; i < 300_000; i++) writer.addFile(writer.root, `e${i}`, metadata(), 0).end();
    // Bytes above 127 hash as unsigned, as the superblock's flag says.
    const high = writer.addDirectory(writer.root, "high", metadata());
    for (let i = 0; i < 500; i++) writer.addFile(high, `\xe9\xff${i}`, metadata(), 0).end();
  });
  expect(fsck(path)).toEqual(CLEAN);
}, 60_000);

test("aborting leaves no file", async () => {
  const path = scratch.path("aborted");
  const writer = await Ext4Writer.create(path, { uuid: Buffer.alloc(16), sync: false });
  await putFile(writer, writer.root, "a", seededBytes("a", 5_000_000));
  writer.addFile(writer.root, "half", metadata(), 10).write(Buffer.from("half"));
  await writer.abort();
  expect(existsSync(path)).toBe(false);
});

test("a version with 4 % new bytes early and lines appended shares nine chunks in ten", async () => {
  const random = seededBytes("pool", 4 * 1024 * 1024);
  const fill = (next: boolean) => async (writer: Ext4Writer) => {
    for (let i = 0; i < 4_000; i++) {
      const name = `folder${i % 200}`;
      const folder =
        writer.child(writer.root, name) ??
        writer.addDirectory(writer.root, name, metadata({ mode: 0o755 }));
      if (next && i === 100) {
        await putFile(writer, writer.root, "new", seededBytes("new", 5_500_000));
      }
      const size = i % 40 === 0 ? 600_000 + ((i * 7_919) % 1_200_000) : (i * 7_919) % 9_000;
      const head = Buffer.from(`${i}\n`);
      const start = (i * 6_151) % 2_000_000;
      const line = next && i % 150 === 3 ? "one more line\n" : "";
      const body = Buffer.concat([head, random.subarray(start, start + size), Buffer.from(line)]);
      await putFile(writer, folder, `file${i}`, body);
    }
  };
  const before = await buildImage(scratch.path("v1"), fill(false), Buffer.alloc(16, 1));
  const after = await buildImage(scratch.path("v2"), fill(true), Buffer.alloc(16, 2));
  expect(sharedChunkRatio(before.manifest, after.manifest)).toBeGreaterThan(0.9);
}, 60_000);
