import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createRootfsBuilder } from "../../src/daemon/build/rootfs-builder.ts";
import { imageOf } from "../support/resolved-image.ts";
import { realClock } from "../support/real-clock.ts";
import type { ResolvedImage } from "../../src/domain/index.ts";
import { paxRecord, TarBuilder } from "../support/tar-builder.ts";

const dir = mkdtempSync(join(tmpdir(), "tc-umoci-"));
const layout = join(dir, "layout");
const lister = join(import.meta.dirname, "../support/list-tree.mjs");
const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: "latin1", maxBuffer: 1e9, stdio: "pipe" });

afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

const times = { mtime: 1_600_000_000 };
/** Every kind of entry, explicit directories throughout, so that nothing is left to the clock. */
const base = () =>
  new TarBuilder()
    .directory("./", { mode: 0o755, ...times })
    .directory("usr/", { ...times })
    .directory("usr/bin/", { mtime: 1_500_000_000 })
    .symlink("bin", "usr/bin", times)
    .file("usr/bin/tool", "tool".repeat(5000), { mode: 0o4755, ...times })
    .hardlink("usr/bin/tool2", "usr/bin/tool")
    .directory("opaque", times)
    .file("opaque/gone", "1", times)
    .directory("opaque/sub", times)
    .file("opaque/sub/gone", "1", times)
    .directory("kept", { mode: 0o1777, uid: 70_000, gid: 80_000, ...times })
    .file("kept/a", "a", { uid: 3_000_000_000, gid: 4_000_000_000, ...times })
    .file("kept/hidden", "a", times)
    .directory("whole", times)
    .file("whole/hidden", "a", times)
    .file("becomes-directory", "x", times)
    .directory("becomes-file", times)
    .file("becomes-file/inner", "x", times)
    .header({ name: "null", type: "3", mode: 0o666, major: 1, minor: 3, ...times })
    .header({ name: "disk", type: "4", mode: 0o660, major: 259, minor: 70_000, ...times })
    .header({ name: "pipe", type: "6", mode: 0o600, ...times })
    .pax({ path: "caf\u00c3\u00a9", mtime: "1600000000.123456789" })
    .file("x", "unicode")
    .file("latin1-\xe9\xff", "not utf-8", times)
    .longName("long/".padEnd(5 + 255, "n"))
    .file("long", "long name", times)
    .file("long/", "", { type: "5", mode: 0o755, ...times })
    .symlink("slow-link", "t".repeat(99), times)
    .file("empty", "", times)
    .file("old", "1", { mtime: -86_400 })
    .pax({
      "SCHILY.xattr.user.note": "hello",
      "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
      "SCHILY.xattr.trusted.big": "v".repeat(2000),
    })
    .file("attributes", "x", times)
    .pax({ "SCHILY.xattr.user.on-directory": "\xff\0\x01" })
    .directory("attributed", times)
    .pax({
      "GNU.sparse.numblocks": "2",
      "GNU.sparse.map": "8192,4096,1048576,3",
      "GNU.sparse.size": "2000000",
    })
    .file("sparse01", "s".repeat(4099), times)
    .paxText(
      paxRecord("GNU.sparse.major", "1") +
        paxRecord("GNU.sparse.minor", "0") +
        paxRecord("GNU.sparse.name", "sparse10") +
        paxRecord("GNU.sparse.realsize", "300000"),
    )
    .file("s", `${"1\n100000\n5\n".padEnd(512, "\0")}hello`, times)
    .file("twice", "first", times)
    .file("twice", "second", times);

const second = () =>
  new TarBuilder()
    .directory("opaque", { mode: 0o711, mtime: 1_610_000_000 })
    .file("opaque/before", "2", times)
    .file("opaque/.wh..wh..opq")
    .file("opaque/after", "2", times)
    .file("kept/.wh.hidden")
    .file(".wh.whole")
    .directory("becomes-directory", times)
    .file("becomes-directory/inner", "2", times)
    .file("becomes-file", "2", times)
    .hardlink("kept/link-across", "/usr/bin/tool")
    .hardlink("kept/link-to-symlink", "slow-link")
    .file("bin/through-link", "2", times)
    .directory("kept/new", { mtime: 1_620_000_000 })
    .file("kept/new/file", "2", { mtime: 1_630_000_000 });

const third = () =>
  new TarBuilder()
    .file("usr/bin/.wh.tool")
    .file("usr/bin/tool2", "replaced", times)
    .pax({ mtime: "1640000000.5" })
    .directory("attributed", { mode: 0o700 })
    .symlink("opaque/before", "after", times)
    .file("kept/a", "longer than before", { mtime: 5 });

function addLayers(tag: string, layers: readonly Buffer[]): void {
  run("umoci", "new", "--image", `${layout}:${tag}`);
  layers.forEach((layer, index) => {
    const file = join(dir, `${tag}-${index}.tar`);
    writeFileSync(file, layer);
    run("umoci", "raw", "add-layer", "--image", `${layout}:${tag}`, file);
  });
}

const blob = (digest: string): Buffer =>
  readFileSync(join(layout, "blobs/sha256", digest.slice("sha256:".length)));

/** The image of a tag in the layout, as umoci stored it: gzip layers with diff ids. */
function resolve(tag: string) {
  const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8")) as {
    manifests: { digest: string; annotations?: Record<string, string> }[];
  };
  const name = "org.opencontainers.image.ref.name";
  const entry = index.manifests.find((it) => it.annotations?.[name] === tag)!;
  const manifest = JSON.parse(blob(entry.digest).toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  const diffIds: string[] = JSON.parse(blob(manifest.config.digest).toString()).rootfs.diff_ids;
  return imageOf(
    manifest.layers.map((layer, at) => ({
      blob: blob(layer.digest),
      compression: "gzip" as const,
      diffId: diffIds[at],
    })),
    entry.digest,
  ).image;
}

const list = (root: string): string[] => run(process.execPath, lister, root).split("\n");

/** The tree that we make of an image, as the kernel shows it. */
async function ourTree(tag: string, image: ResolvedImage): Promise<string[]> {
  const file = join(dir, `${tag}.ext4`);
  await createRootfsBuilder({ clock: realClock }).build(image, file, { sync: false });
  run("e2fsck", "-fn", file);
  const mount = join(dir, `${tag}-mount`);
  mkdirSync(mount);
  const script = 'mount -o loop,ro,noload "$1" "$2" && exec "$3" "$4" "$2"';
  const args = ["-m", "sh", "-c", script, "sh", file, mount, process.execPath, lister];
  return run("unshare", ...args).split("\n");
}

/** The trees that umoci and we make of a tag. */
async function compare(tag: string): Promise<{ theirs: string[]; ours: string[] }> {
  const bundle = join(dir, `${tag}-bundle`);
  run("umoci", "unpack", "--image", `${layout}:${tag}`, bundle);
  return { theirs: list(join(bundle, "rootfs")), ours: await ourTree(tag, resolve(tag)) };
}

beforeAll(() => {
  run("umoci", "init", "--layout", layout);
});

it("makes the tree that umoci unpack makes, in every property of every entry", async () => {
  addLayers("all", [base().build(), second().build(), third().build()]);
  const { theirs, ours } = await compare("all");
  // umoci leaves the root the time at which it unpacked; ours has the layer's.
  const [root = "", ...below] = ours;
  expect(JSON.parse(root).mtime).toBe("1600000000000000000");
  expect(below).toEqual(theirs.slice(1));
  expect(below.length).toBeGreaterThan(30);
});

it("makes implied directories as umoci does but for their time, which is the epoch", async () => {
  const layer = new TarBuilder().file("a/b/c", "1", times).symlink("l", "x/y").file("l/z", "2");
  addLayers("implied", [layer.build()]);
  const { theirs, ours } = await compare("implied");
  const timeless = (lines: string[]) =>
    lines.map((line) => {
      if (!line.startsWith("{")) return line;
      const entry = JSON.parse(line) as { mode: string };
      return JSON.stringify(entry.mode.startsWith("4") ? { ...entry, mtime: "" } : entry);
    });
  expect(timeless(ours)).toEqual(timeless(theirs));
  const implied = ours.filter((line) => /"path":"(a|a\/b|x\/y)"/.test(line));
  expect(implied).toHaveLength(3);
  expect(implied.every((line) => line.includes('"mtime":"0"'))).toBe(true);
});

it.each(["gnu", "posix", "ustar", "v7"])(
  "makes the tree that GNU tar extracts from its own %s archives",
  async (format) => {
    const source = join(dir, `source-${format}`);
    const deep = join(source, "deep/".repeat(format === "v7" ? 5 : 30));
    const long = format === "gnu" || format === "posix";
    mkdirSync(deep, { recursive: true });
    writeFileSync(join(deep, "n".repeat(long ? 200 : 50)), "deep");
    writeFileSync(join(source, "linked"), "x");
    run("ln", join(source, "linked"), join(source, "link"));
    if (long) run("mkfifo", join(source, "pipe"));
    const holes = join(source, "holes");
    for (let at = 0; at < 10; at++) {
      run("dd", "if=/etc/passwd", `of=${holes}`, "bs=4k", `seek=${at * 25}`, "conv=notrunc");
    }
    run("truncate", "-s", "3M", holes);
    run("setfattr", "-n", "user.note", "-v", "hello", join(source, "linked"));
    const attributes = format === "posix" ? ["--xattrs"] : [];
    const sparse = long ? ["--sparse"] : [];
    const tar = join(dir, `${format}.tar`);
    const flags = [`--format=${format}`, ...sparse, ...attributes];
    run("tar", ...flags, "-cf", tar, "-C", source, ".");
    const extracted = join(dir, `extracted-${format}`);
    mkdirSync(extracted);
    run("tar", ...attributes, "-xpf", tar, "-C", extracted);
    const { image } = imageOf([{ blob: readFileSync(tar) }]);
    expect(await ourTree(format, image)).toEqual(list(extracted));
  },
);
