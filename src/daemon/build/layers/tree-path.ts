/**
 * Paths of archive entries, resolved inside the tree that is being built. Nothing is ever created
 * on the host, so the worst a path could do is to land somewhere else in the image than its
 * author's tools would show; names that try are refused.
 */
import type { LayerLimits } from "./limits.ts";
import type { NodeMetadata, RootfsTree, TreeNode } from "../rootfs-tree.ts";
import { refusal } from "./refusal.ts";

/** A directory and how it was reached; the root has no parent. */
export interface DirectoryRef {
  readonly node: TreeNode;
  readonly parent: DirectoryRef | undefined;
  readonly name: string;
}

/**
 * What a directory gets that no layer describes, only its children imply: root's, 0755 (as umoci).
 * umoci leaves the time of unpacking; here it is the epoch, so that builds are reproducible.
 */
export const IMPLIED_DIRECTORY: NodeMetadata = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
  xattrs: new Map(),
};

/**
 * The components of an entry's name: leading "/" and "." components drop out, as with umoci.
 * Empty for the root itself.
 * @throws AppError image_refused (empty_name, nul_in_name, name_too_long, path_traversal)
 */
export function splitName(name: string, limits: LayerLimits): string[] {
  if (name === "") throw refusal("empty_name", "a layer entry has no name");
  if (name.includes("\0")) {
    throw refusal("nul_in_name", "a name in the layer has a NUL byte", { path: name });
  }
  if (name.length > limits.pathBytes) {
    throw refusal("name_too_long", "a path in the layer is too long", { path: name });
  }
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      throw refusal("path_traversal", "a name in the layer has a .. component", { path: name });
    }
    if (part.length > limits.nameBytes) {
      throw refusal("name_too_long", "a name in the layer is too long", { path: name });
    }
    parts.push(part);
  }
  return parts;
}

export interface LookupOptions {
  /** Makes missing directories (and what a dangling link points to); else answers undefined. */
  readonly create: boolean;
  /**
   * Absolute link targets start at the image's root and `..` stops there. Only for paths of ours
   * (baking): a layer entry that goes through such a link is refused.
   */
  readonly followAbsolute?: boolean;
  /** Called for each directory made. */
  readonly onImplied?: (directory: DirectoryRef) => void;
}

export class TreePaths {
  private readonly tree: RootfsTree;
  private readonly limits: LayerLimits;
  readonly root: DirectoryRef;

  constructor(tree: RootfsTree, limits: LayerLimits) {
    this.tree = tree;
    this.limits = limits;
    this.root = { node: tree.root, parent: undefined, name: "" };
  }

  /**
   * The directory that `parts` names, symlinks followed inside the tree.
   * @returns undefined when it is not there and not to be made, or is not a directory.
   * @throws AppError image_refused (link_parent_escapes, parent_not_directory, link_loop)
   */
  directory(parts: readonly string[], options: LookupOptions): DirectoryRef | undefined {
    let at = this.root;
    let hops = 0;
    const todo = parts.slice().reverse();
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === "" || part === ".") continue;
      if (part === "..") {
        if (at.parent === undefined && options.followAbsolute !== true) throw this.escapes(parts);
        at = at.parent ?? at;
        continue;
      }
      const child = this.tree.child(at.node, part);
      if (child === undefined) {
        if (!options.create) return undefined;
        at = this.implied(at, part, options);
      } else if (child.kind === "directory") at = { node: child, parent: at, name: part };
      else if (child.kind === "symlink") {
        if (++hops > this.limits.linkHops) throw this.loop(parts);
        const target = child.target ?? "";
        if (target.startsWith("/")) {
          if (options.followAbsolute !== true) throw this.escapes(parts);
          at = this.root;
        }
        todo.push(...target.split("/").reverse());
      } else if (!options.create) return undefined;
      else throw this.notDirectory(parts);
    }
    return at;
  }

  private implied(parent: DirectoryRef, name: string, options: LookupOptions): DirectoryRef {
    const path = { path: name };
    if (name.length > this.limits.nameBytes) {
      throw refusal("name_too_long", "a link in the layer has too long a target", path);
    }
    const node = this.tree.addDirectory(parent.node, name, IMPLIED_DIRECTORY);
    const directory = { node, parent, name };
    options.onImplied?.(directory);
    return directory;
  }

  private escapes(parts: readonly string[]) {
    return refusal(
      "link_parent_escapes",
      "a layer entry's parent is a symlink that leads out of the image's root",
      { path: parts.join("/") },
    );
  }

  private loop(parts: readonly string[]) {
    const path = parts.join("/");
    return refusal("link_loop", "the symlinks above a layer entry do not end", { path });
  }

  private notDirectory(parts: readonly string[]) {
    const path = parts.join("/");
    return refusal("parent_not_directory", "a layer entry's parent is not a directory", { path });
  }
}
