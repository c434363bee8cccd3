import { describe, expect, it } from "vitest";
import { applyLayers, refusalOf } from "../../support/layers.ts";
import { listTree, nodeAt } from "../../support/memory-tree.ts";
import { TarBuilder } from "../../support/tar-builder.ts";

const tar = () => new TarBuilder();
const tree = async (...layers: TarBuilder[]) =>
  listTree(await applyLayers(layers.map((layer) => layer.build())));

describe("layers over one another", () => {
  it("hides a lower file behind its whiteout, and no marker is left (spec row 49)", async () => {
    const lower = tar().file("a/x", "1").file("a/y", "2");
    expect(await tree(lower, tar().file("a/.wh.x"))).toEqual(["a/", "a/y=2"]);
  });

  it("hides a whole directory behind a whiteout", async () => {
    const lower = tar().file("a/b/c", "1").file("d", "2");
    expect(await tree(lower, tar().file(".wh.a"))).toEqual(["d=2"]);
  });

  it("keeps what the same layer adds, before or after the opaque marker", async () => {
    const lower = tar().directory("d").file("d/old", "1").file("d/sub/old", "1");
    const upper = tar().file("d/sub/new", "2").file("d/.wh..wh..opq").file("d/late", "3");
    expect(await tree(lower, upper)).toEqual(["d/", "d/late=3", "d/sub/", "d/sub/new=2"]);
  });

  it("does not let a whiteout after an entry of its own layer remove that entry", async () => {
    const lower = tar().file("x", "1");
    expect(await tree(lower, tar().file("x", "2").file(".wh.x"))).toEqual(["x=2"]);
    expect(await tree(lower, tar().file(".wh.x").file("x", "2"))).toEqual(["x=2"]);
  });

  it("ignores a whiteout of nothing and a whiteout in a directory that is not there", async () => {
    expect(await tree(tar().file("a", "1"), tar().file(".wh.b").file("no/.wh.c"))).toEqual(["a=1"]);
  });

  it("keeps the children of a directory that comes again, with its new metadata", async () => {
    const lower = tar().directory("d", { mode: 0o700, uid: 5, mtime: 7 }).file("d/x", "1");
    const made = await applyLayers([
      lower.build(),
      tar().directory("d", { mode: 0o1777, uid: 6, mtime: 9 }).build(),
    ]);
    expect(listTree(made)).toEqual(["d/", "d/x=1"]);
    expect(nodeAt(made, "d")?.metadata).toMatchObject({ mode: 0o1777, uid: 6, mtimeSeconds: 9 });
  });

  it("replaces a file by a directory, a directory by a file, a directory by a link", async () => {
    const lower = tar().file("a", "1").file("b/x", "1").file("c/x", "1").directory("t");
    const upper = tar().directory("a").file("a/y", "2").file("b", "2").symlink("c", "t");
    expect(await tree(lower, upper)).toEqual(["a/", "a/y=2", "b=2", "c -> t", "t/"]);
  });

  it("lets the last of two entries with one name win", async () => {
    expect(await tree(tar().file("x", "1").directory("x").file("x", "3"))).toEqual(["x=3"]);
  });

  it("makes the directories that children imply root's with mode 0755", async () => {
    const made = await applyLayers([tar().file("a/b/c", "1", { uid: 9 }).build()]);
    expect(nodeAt(made, "a/b")?.metadata).toMatchObject({ mode: 0o755, uid: 0, mtimeSeconds: 0 });
  });

  it("joins hard links across layers and counts them", async () => {
    const made = await applyLayers([
      tar().file("a", "1").build(),
      tar().hardlink("dir/b", "/a").hardlink("c", "dir/b").build(),
    ]);
    expect(nodeAt(made, "a")?.linkCount).toBe(3);
    expect(nodeAt(made, "dir/b")).toBe(nodeAt(made, "a"));
  });

  it("keeps an inode whose first name is hidden by a whiteout", async () => {
    const lower = tar().file("a", "1").hardlink("b", "a");
    expect(await tree(lower, tar().file(".wh.a"))).toEqual(["b=1"]);
  });

  it("hard-links a symlink itself, not what it points to", async () => {
    expect(await tree(tar().file("f", "1").symlink("s", "f").hardlink("h", "s"))).toEqual([
      "f=1",
      "h -> f",
      "s -> f",
    ]);
  });

  it("writes through a relative symlink to a directory inside the root", async () => {
    const lower = tar().directory("usr/bin").symlink("bin", "usr/bin");
    expect(await tree(lower, tar().file("bin/sh", "1"))).toEqual([
      "bin -> usr/bin",
      "usr/",
      "usr/bin/",
      "usr/bin/sh=1",
    ]);
  });

  it("replaces a symlink to a directory when a directory entry of that name comes", async () => {
    const lower = tar().file("real/x", "1").symlink("d", "real");
    expect(await tree(lower, tar().directory("d").file("d/y", "2"))).toEqual([
      "d/",
      "d/y=2",
      "real/",
      "real/x=1",
    ]);
  });

  it("resolves a parent anew after it was replaced within the layer", async () => {
    const layer = tar().file("d/a", "1").symlink("d", "e").file("d/b", "2");
    expect(await tree(layer)).toEqual(["d -> e", "e/", "e/b=2"]);
  });

  it("takes the root's metadata from its entry", async () => {
    const made = await applyLayers([tar().directory("./", { mode: 0o711, mtime: 5 }).build()]);
    expect(made.root.metadata).toMatchObject({ mode: 0o711, mtimeSeconds: 5 });
  });

  it("skips the bookkeeping of aufs", async () => {
    const layer = tar().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file("a", "1");
    expect(await tree(layer)).toEqual(["a=1"]);
  });

  it.each([
    ["path_traversal", tar().file("../evil")],
    ["path_traversal", tar().file("a/../../evil")],
    ["path_traversal", tar().file("a").hardlink("b", "../../etc/passwd")],
    ["link_parent_escapes", tar().symlink("e", "/etc").file("e/passwd")],
    ["link_parent_escapes", tar().symlink("e", "../..").file("e/passwd")],
    ["link_parent_escapes", tar().symlink("a", "b").symlink("b", "/").file("a/x")],
    ["link_parent_escapes", tar().symlink("e", "/etc").hardlink("x", "e/passwd")],
    ["link_loop", tar().symlink("a", "b").symlink("b", "a").file("a/x")],
    ["parent_not_directory", tar().file("a", "1").file("a/b")],
    ["root_not_directory", tar().symlink(".", "/")],
    ["root_not_directory", tar().file("/", "x")],
    ["hardlink_missing_target", tar().hardlink("a", "nowhere")],
    ["hardlink_missing_target", tar().file("a").hardlink("a", "a")],
    ["hardlink_missing_target", tar().file("d/f").hardlink("d", "d/f")],
    ["hardlink_to_directory", tar().directory("d").hardlink("a", "d")],
    ["hardlink_to_directory", tar().hardlink("a", "/")],
    ["bad_whiteout", tar().file("a/.wh...")],
    ["bad_whiteout", tar().file("a/.wh..")],
    ["bad_whiteout", tar().file("a/.wh.")],
    ["reserved_name", tar().file(".wh.a/b")],
    ["empty_link", tar().symlink("a", "")],
    ["empty_name", tar().file("")],
    ["name_too_long", tar().longName("x".repeat(256)).file("x")],
    ["name_too_long", tar().longName("y/".repeat(2100)).file("x")],
  ])("refuses with %s", async (reason, layer) => {
    expect(await refusalOf([layer.build()])).toBe(reason);
  });

  it("names the layer and the entry in the refusal", async () => {
    const hostile = tar().file("../evil").build();
    await expect(applyLayers([tar().build(), hostile])).rejects.toMatchObject({
      code: "image_refused",
      meta: { reason: "path_traversal", layer: 1, path: "../evil" },
    });
  });

  it("refuses more entries than the limit over all layers", async () => {
    const layer = tar().file("a").file("b").build();
    expect(await refusalOf([layer, layer], { entries: 4 })).toBe("accepted");
    expect(await refusalOf([layer, layer], { entries: 3 })).toBe("too_many_entries");
  });
});
