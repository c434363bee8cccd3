/** An inode while the tree is in memory. */
import type { NodeKind, NodeMetadata, TreeNode } from "../rootfs-tree.ts";
import type { Extent } from "./allocator.ts";

export class Ext4Node implements TreeNode {
  readonly kind: NodeKind;
  metadata: NodeMetadata;
  linkCount = 0;
  sizeBytes = 0;
  target: string | undefined;
  device: { readonly major: number; readonly minor: number } | undefined;
  extents: Extent[] = [];
  /** Directories only. */
  children: Map<string, Ext4Node> | undefined;
  parent: Ext4Node | undefined;
  /** Directories: hash of the path, for the runs of small files. */
  pathHash = 0;
  /** Given when the image is finished. */
  number = 0;

  constructor(kind: NodeKind, metadata: NodeMetadata) {
    this.kind = kind;
    this.metadata = metadata;
    if (kind === "directory") this.children = new Map();
  }
}

export const entriesOf = (node: Ext4Node): Map<string, Ext4Node> => {
  if (node.children === undefined) throw new TypeError("not a directory");
  return node.children;
};
