import { rmSync } from "node:fs";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { TreeNode } from "../../../src/daemon/build/rootfs-tree.ts";
import {
  CLEAN,
  buildImage,
  debugfs,
  fsck,
  metadata,
  putFile,
  scratchFolder,
  seededBytes,
} from "./image-builder.ts";

const scratch = scratchFolder();
afterAll(() => scratch.remove());

const NAMES = ["a", "b", "c", "d"] as const;
const step = fc.record({
  kind: fc.constantFrom("file", "file", "directory", "link", "remove", "symlink", "read"),
  folder: fc.nat(),
  other: fc.nat(),
  name: fc.constantFrom(...NAMES),
  size: fc.oneof(fc.nat(9_000), fc.nat(300_000)),
});

interface Folder {
  readonly path: string;
  readonly node: TreeNode;
}

test("random additions, links and removals give a clean image with the content that is left", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const path = scratch.path("random");
      rmSync(path, { force: true });
      const contents = new Map<TreeNode, Buffer>();
      const left = new Map<string, TreeNode>();
      await buildImage(path, async (writer) => {
        const walk = (folder: Folder, folders: Folder[], files: Map<string, TreeNode>) => {
          folders.push(folder);
          for (const [name, node] of writer.children(folder.node)) {
            const at = `${folder.path}/${name}`;
            if (node.kind === "directory") walk({ path: at, node }, folders, files);
            else if (node.kind === "file") files.set(at, node);
          }
        };
        for (const [index, { kind, folder, other, name, size }] of steps.entries()) {
          const folders: Folder[] = [];
          const files = new Map<string, TreeNode>();
          walk({ path: "", node: writer.root }, folders, files);
          const parent = folders[folder % folders.length]!.node;
          const file = [...files.values()][other % Math.max(files.size, 1)];
          if (kind === "file") {
            const bytes = seededBytes(`${index}`, size);
            contents.set(await putFile(writer, parent, name, bytes), bytes);
          } else if (kind === "directory") writer.addDirectory(parent, name, metadata());
          else if (kind === "symlink") writer.addSymlink(parent, name, metadata(), "x".repeat(90));
          else if (kind === "remove") writer.remove(parent, name);
          else if (file !== undefined && kind === "link") writer.addLink(parent, name, file);
          else if (file !== undefined) {
            expect(contents.get(file)!.equals(await writer.readFile(file))).toBe(true);
          }
        }
        walk({ path: "", node: writer.root }, [], left);
      });
      expect(fsck(path)).toEqual(CLEAN);
      for (const [at, node] of left) {
        expect(debugfs(path, `cat ${at}`).equals(contents.get(node)!)).toBe(true);
      }
    }),
    { numRuns: 20, seed: 20_261_120 },
  );
}, 120_000);
