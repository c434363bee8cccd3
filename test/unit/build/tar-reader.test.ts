import { describe, expect, it } from "vitest";
import { applyLayers, refusalOf } from "../../support/layers.ts";
import { listTree, nodeAt, type MemoryTree } from "../../support/memory-tree.ts";
import { paxRecord, tarHeader, TarBuilder } from "../../support/tar-builder.ts";

const tar = () => new TarBuilder();
const read = (layer: TarBuilder | Buffer, pieceBytes?: number): Promise<MemoryTree> =>
  applyLayers([{ blob: Buffer.isBuffer(layer) ? layer : layer.build(), pieceBytes }]);
const content = async (tree: MemoryTree, path: string) =>
  Buffer.from(await tree.readFile(nodeAt(tree, path)!)).toString("latin1");

describe("entries of every form", () => {
  it("reads the same tree whatever pieces the archive comes in", async () => {
    const layer = tar()
      .directory("d")
      .file("d/a", "x".repeat(1300))
      .longName(`d/${"n".repeat(200)}`)
      .file("short", "y".repeat(512))
      .pax({ path: "d/pax", mtime: "1.5" })
      .file("p", "z")
      .build();
    const whole = listTree(await read(layer));
    for (const pieceBytes of [1, 7, 511, 512, 513, 4096]) {
      expect(listTree(await read(layer, pieceBytes))).toEqual(whole);
    }
    expect(whole).toHaveLength(4);
  });

  it("takes GNU long names and long link targets", async () => {
    const name = `${"d".repeat(120)}/${"f".repeat(255)}`;
    const target = "t".repeat(300);
    const layer = tar().longName(target, "K").longName(name).symlink("x", "t");
    expect(nodeAt(await read(layer), name)?.target).toBe(target);
  });

  it("joins the ustar prefix, but not where GNU keeps times in its place", async () => {
    const gnu = { at: 345, bytes: "14712345671\x0014712345671\0" };
    const layer = tar()
      .file("f", "1", { prefix: "a/b" })
      .file("g", "2", { magic: "ustar  \0", raw: [gnu] });
    expect(listTree(await read(layer))).toEqual(["a/", "a/b/", "a/b/f=1", "g=2"]);
  });

  it("takes PAX names, owners and times over those of the header", async () => {
    const layer = tar()
      .pax({ path: "caf\u00c3\u00a9", uid: "3000000", gid: "4000000", mtime: "-1.25" })
      .file("x", "1", { uid: 5 });
    const node = nodeAt(await read(layer), "caf\u00c3\u00a9");
    expect(node?.metadata).toMatchObject({
      uid: 3_000_000,
      gid: 4_000_000,
      mtimeSeconds: -2,
      mtimeNanoseconds: 750_000_000,
    });
  });

  it("lets a global header hold until the next, a local one only for its entry", async () => {
    const layer = tar()
      .pax({ uid: "7", mtime: "9" }, "g")
      .pax({ uid: "8" })
      .file("a")
      .file("b")
      .pax({ uid: "" }, "g")
      .file("c", "", { uid: 1 });
    const tree = await read(layer);
    const of = (name: string) => nodeAt(tree, name)?.metadata;
    expect([of("a")?.uid, of("b")?.uid, of("c")?.uid]).toEqual([8, 7, 1]);
    expect([of("a"), of("b"), of("c")].map((it) => it?.mtimeSeconds)).toEqual([9, 9, 9]);
  });

  it("takes attributes in both spellings, values with NUL and newline included", async () => {
    const layer = tar()
      .pax({
        "SCHILY.xattr.security.capability": "\x01\0\0\x02\n\0\0=\0",
        "LIBARCHIVE.xattr.user.a%3Db": Buffer.from("\xff\0").toString("base64"),
        "SCHILY.xattr.security.selinux": "host's own",
      })
      .file("x");
    const xattrs = nodeAt(await read(layer), "x")?.metadata.xattrs;
    expect(
      [...(xattrs ?? [])].map(([key, value]) => [key, Buffer.from(value).toString("hex")]),
    ).toEqual([
      ["security.capability", "010000020a00003d00"],
      ["user.a=b", "c3bf00"],
    ]);
  });

  it("takes base-256 numbers and times before 1970", async () => {
    const layer = tar().file("x", "1", { uid: 3_000_000_000, mtime: -5 });
    expect(nodeAt(await read(layer), "x")?.metadata).toMatchObject({
      uid: 3_000_000_000,
      mtimeSeconds: -5,
    });
  });

  it("takes devices and fifos", async () => {
    const layer = tar()
      .header({ name: "null", type: "3", major: 1, minor: 3 })
      .header({ name: "sda", type: "4", major: 8, minor: 0 })
      .header({ name: "pipe", type: "6" });
    expect(listTree(await read(layer))).toEqual(["null chardev", "pipe fifo", "sda blockdev"]);
  });

  it("takes a V7 header, whose trailing slash makes a directory", async () => {
    const v7 = { magic: "\0\0\0\0\0\0\0\0", type: "\0" };
    const layer = tar()
      .header({ name: "d/", ...v7 })
      .file("d/f", "1", v7);
    expect(listTree(await read(layer))).toEqual(["d/", "d/f=1"]);
  });

  it("accepts an archive without its two zero blocks, an empty one, and bytes after them", async () => {
    const bare = tar().file("a", "1").build({ end: false });
    expect(listTree(await read(bare))).toEqual(["a=1"]);
    expect(listTree(await read(Buffer.alloc(0)))).toEqual([]);
    const after = Buffer.concat([tar().file("a", "1").build(), tar().file("b", "2").build()]);
    expect(listTree(await read(after))).toEqual(["a=1"]);
  });
});

describe("sparse files", () => {
  const expanded = `\0\0abc\0\0\0de\0`;

  it("reads the PAX 0.0 form", async () => {
    const text =
      paxRecord("GNU.sparse.size", "11") +
      [
        ["2", "3"],
        ["8", "2"],
      ]
        .map(
          ([offset, bytes]) =>
            paxRecord("GNU.sparse.offset", offset!) + paxRecord("GNU.sparse.numbytes", bytes!),
        )
        .join("");
    const tree = await read(tar().paxText(text).file("s", "abcde"));
    expect(await content(tree, "s")).toBe(expanded);
  });

  it("reads the PAX 0.1 form", async () => {
    const records = {
      "GNU.sparse.map": "2,3,8,2",
      "GNU.sparse.size": "11",
      "GNU.sparse.name": "real",
    };
    expect(await content(await read(tar().pax(records).file("s", "abcde")), "real")).toBe(expanded);
  });

  it("reads the PAX 1.0 form", async () => {
    const records = {
      "GNU.sparse.major": "1",
      "GNU.sparse.minor": "0",
      "GNU.sparse.name": "real",
      "GNU.sparse.realsize": "11",
    };
    const data = `${"2\n2\n3\n8\n2\n".padEnd(512, "\0")}abcde`;
    expect(await content(await read(tar().pax(records).file("s", data)), "real")).toBe(expanded);
  });

  it("reads the old GNU form, with regions that go on in a block of their own", async () => {
    const number = (value: number) => `${value.toString(8).padStart(11, "0")}\0`;
    const pair = (offset: number) => number(offset) + number(1);
    const inHeader = [0, 2, 4, 6].map(pair).join("");
    const header = tarHeader({
      name: "s",
      type: "S",
      size: 5,
      magic: "ustar  \0",
      raw: [{ at: 386, bytes: `${inHeader}\x01${number(11)}` }],
    });
    const more = Buffer.alloc(512);
    more.write(pair(8), "latin1");
    const data = Buffer.alloc(512);
    data.write("abcde");
    const layer = tar().raw(header).raw(more).raw(data).file("after", "1");
    const tree = await read(layer);
    expect(await content(tree, "s")).toBe("a\0b\0c\0d\0e\0\0");
    expect(await content(tree, "after")).toBe("1");
  });

  it("keeps a huge hole a hole", async () => {
    const records = { "GNU.sparse.map": `${2 ** 40},1`, "GNU.sparse.size": String(2 ** 40 + 1) };
    const tree = await read(tar().pax(records).file("s", "x"));
    expect(nodeAt(tree, "s")?.sizeBytes).toBe(2 ** 40 + 1);
  });

  it.each([
    ["overlapping regions", { map: "0,3,2,2", size: "9" }],
    ["regions past the end", { map: "0,3,8,2", size: "9" }],
    ["more bytes than archived", { map: "0,3,4,1", size: "9" }],
    ["an odd count", { map: "0,3,4", size: "9" }],
    ["a negative number", { map: "-1,5", size: "9" }],
    ["a size beyond ext4", { map: "0,5", size: String(2 ** 45) }],
  ])("refuses a map with %s", async (_, { map, size }) => {
    const layer = tar().pax({ "GNU.sparse.map": map, "GNU.sparse.size": size }).file("s", "abcde");
    expect(await refusalOf([layer.build()])).toBe("bad_sparse_map");
  });
});

describe("hostile and broken archives", () => {
  const huge = String(8 * 1024 ** 3 + 1);
  it.each<[string, TarBuilder | Buffer]>([
    ["not_a_tar", Buffer.from("this is no archive at all. ".repeat(40))],
    ["not_a_tar", Buffer.from("short")],
    ["not_a_tar", Buffer.concat([Buffer.alloc(512), tarHeader({ name: "a" })])],
    ["truncated_tar", tar().file("a", "x".repeat(2000)).build().subarray(0, 1200)],
    ["truncated_tar", tar().file("a", "x").build().subarray(0, 700)],
    ["truncated_tar", Buffer.concat([tar().file("a").build({ end: false }), Buffer.alloc(100, 1)])],
    ["truncated_tar", tar().pax({ path: "a" })],
    ["truncated_tar", tar().longName("a").build({ end: false })],
    [
      "bad_checksum",
      tar()
        .file("a")
        .header({ name: "b", after: [{ at: 0, bytes: "c" }] }),
    ],
    ["nul_in_name", tar().file("evil\0.txt")],
    ["nul_in_name", tar().symlink("a", "b\0c")],
    ["nul_in_name", tar().pax({ path: "a\0b" }).file("x")],
    ["nul_in_name", tar().longName("a\0b").file("x")],
    ["pax_size_smuggling", tar().pax({ size: "0" }).file("a", "x".repeat(512))],
    ["pax_size_smuggling", tar().pax({ size: "1024" }).file("a", "", { size: 0 })],
    ["pax_size_smuggling", tar().pax({ size: "5" }).directory("a")],
    ["bad_pax_record", tar().pax({ size: "-5" }).file("a")],
    ["bad_pax_record", tar().pax({ size: "0x10" }).file("a")],
    ["bad_pax_record", tar().pax({ size: huge }, "g").file("a")],
    ["bad_pax_record", tar().pax({ path: "b" }, "g").file("a")],
    ["bad_pax_record", tar().paxText("99 path=x\n").file("a")],
    ["bad_pax_record", tar().paxText("9 path=xx").file("a")],
    ["bad_pax_record", tar().paxText("0 path=x\n").file("a")],
    ["bad_pax_record", tar().paxText("nonsense").file("a")],
    ["bad_pax_record", tar().paxText("5 =x\n").file("a")],
    ["bad_pax_record", tar().pax({ path: "a" }).pax({ path: "b" }).file("c")],
    ["bad_pax_record", tar().longName("a").pax({ path: "b" }).file("c")],
    ["bad_pax_record", tar().pax({ mtime: "noon" }).file("c")],
    ["pax_header_too_large", tar().header({ name: "x", type: "x", size: 2 ** 30 })],
    ["name_too_long", tar().header({ name: "x", type: "L", size: 2 ** 30 })],
    ["bad_number", tar().header({ name: "x", type: "x", size: -1 })],
    ["bad_number", tar().file("a", "", { size: -512 })],
    ["bad_number", tar().file("a", "", { raw: [{ at: 124, bytes: "9lives" }] })],
    ["bad_number", tar().file("a", "", { raw: [{ at: 124, bytes: "\x80".padEnd(12, "\xff") }] })],
    ["bad_number", tar().file("a", "", { uid: -1 })],
    ["bad_number", tar().pax({ gid: "4294967295" }).file("a")],
    ["bad_number", tar().header({ name: "d", type: "3", major: 1 << 12, minor: 0 })],
    ["ambiguous_size", tar().symlink("a", "b", { size: 512 })],
    ["ambiguous_size", tar().directory("a", { size: 512 })],
    ["ambiguous_size", tar().file("a").hardlink("b", "a", { size: 512 })],
    ["unsupported_entry_type", tar().header({ name: "a", type: "V" })],
    ["unsupported_entry_type", tar().header({ name: "a", type: "\xff" })],
    ["xattr_invalid", tar().pax({ "SCHILY.xattr.nonsense": "1" }).file("a")],
    ["xattr_invalid", tar().pax({ "SCHILY.xattr.user.": "1" }).file("a")],
    ["xattr_invalid", tar().pax({ "SCHILY.xattr.system.data": "1" }).file("a")],
    [
      "xattr_invalid",
      tar()
        .pax({ "SCHILY.xattr.user.a": "x".repeat(65_537) })
        .file("a"),
    ],
  ])("refuses with %s", async (reason, layer) => {
    const blob = Buffer.isBuffer(layer) ? layer : layer.build();
    expect(await refusalOf([blob])).toBe(reason);
    expect(await refusalOf([{ blob, pieceBytes: 100 }])).toBe(reason);
  });

  it("follows a PAX size that the plain field cannot hold", async () => {
    const big = tar().pax({ size: huge }).header({ name: "a", size: 0 });
    expect(await refusalOf([big.build({ end: false })])).toBe("truncated_tar");
  });
});
