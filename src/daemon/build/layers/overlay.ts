/**
 * The OCI image-spec's layer rules ("layer.md", applying changesets), entry by entry as they
 * stream: each layer's entries go over what the layers below made. Where the specification leaves
 * room, `umoci unpack` decides: an entry never changes its parent's time; a whiteout hides only
 * lower layers' entries, wherever in its layer it stands; a directory over a directory keeps the
 * children.
 */
import type { DirectoryRef } from "./tree-path.ts";
import type { FileSink, TarEntry, TarHandler } from "./tar-entry.ts";
import type { LayerLimits } from "./limits.ts";
import type { NodeMetadata, RootfsTree, TreeNode } from "../rootfs-tree.ts";
import { refusal } from "./refusal.ts";
import { IMPLIED_DIRECTORY, splitName, TreePaths } from "./tree-path.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Names of aufs' own bookkeeping; other builders and runtimes skip them as well. */
const AUFS = ".wh..wh.";

export interface OverlayCounts {
  entries: number;
  /** Bytes of file data handed to the tree, holes not counted. */
  bytes: number;
}

export class Overlay implements TarHandler {
  readonly counts: OverlayCounts = { entries: 0, bytes: 0 };
  private readonly tree: RootfsTree;
  private readonly limits: LayerLimits;
  private readonly paths: TreePaths;
  /** The names this layer has put into each directory, ancestors of entries included. */
  private upper = new Map<TreeNode, Set<string>>();
  /** The last entry's parent: the next one is mostly in the same directory. */
  private lastParent: { key: string; directory: DirectoryRef } | undefined;

  constructor(tree: RootfsTree, limits: LayerLimits) {
    this.tree = tree;
    this.limits = limits;
    this.paths = new TreePaths(tree, limits);
    // The root belongs to no layer until one describes it.
    tree.setMetadata(tree.root, IMPLIED_DIRECTORY);
  }

  /** From here on, what is in the tree belongs to lower layers. */
  startLayer(): void {
    this.upper = new Map();
    this.lastParent = undefined;
  }

  /**
   * @throws AppError image_refused by name of the reason, image_too_large (too_many_entries)
   */
  entry(entry: TarEntry): FileSink | undefined {
    this.counts.entries++;
    if (this.counts.entries > this.limits.entries) {
      throw refusal("too_many_entries", `the image has more than ${this.limits.entries} entries`, {
        path: entry.name,
      });
    }
    const parts = splitName(entry.name, this.limits);
    const base = parts.pop();
    if (base === undefined) return this.describeRoot(entry);
    const reserved = parts.find((part) => part.startsWith(WHITEOUT));
    if (reserved?.startsWith(AUFS) === true) return DISCARD;
    if (reserved !== undefined) {
      throw refusal("reserved_name", "a directory in the layer has a whiteout's name", {
        path: entry.name,
      });
    }
    if (base.startsWith(WHITEOUT)) return this.whiteout(parts, base, entry.name);
    const parent = this.parentOf(parts);
    return this.put(parent, base, entry);
  }

  private describeRoot(entry: TarEntry): undefined {
    if (entry.kind !== "directory") {
      throw refusal("root_not_directory", "the layer changes the type of the root directory", {
        path: entry.name,
      });
    }
    this.tree.setMetadata(this.tree.root, metadataOf(entry));
    return undefined;
  }

  private parentOf(parts: readonly string[]): DirectoryRef {
    const key = parts.join("/");
    if (this.lastParent?.key === key) return this.lastParent.directory;
    const directory = this.paths.directory(parts, {
      create: true,
      onImplied: (made) => {
        this.markUpper(made);
      },
    });
    if (directory === undefined) {
      throw refusal("parent_not_directory", "a layer entry's parent is not a directory", {
        path: key,
      });
    }
    this.lastParent = { key, directory };
    return directory;
  }

  private put(parent: DirectoryRef, name: string, entry: TarEntry): FileSink | undefined {
    const { tree } = this;
    const existing = tree.child(parent.node, name);
    const metadata = metadataOf(entry);
    if (existing !== undefined && !(existing.kind === "directory" && entry.kind === "directory")) {
      this.forgetPaths(existing);
    }
    this.markUpper({ node: parent.node, parent, name });
    switch (entry.kind) {
      case "file": {
        const writer = tree.addFile(parent.node, name, metadata, entry.sizeBytes);
        return this.counted(writer);
      }
      case "directory":
        tree.addDirectory(parent.node, name, metadata);
        break;
      case "symlink":
        tree.addSymlink(parent.node, name, metadata, this.linkTarget(entry));
        break;
      case "hardlink":
        this.putLink(parent, name, entry);
        break;
      case "fifo":
        tree.addFifo(parent.node, name, metadata);
        break;
      default:
        tree.addDevice(parent.node, name, metadata, {
          kind: entry.kind,
          major: entry.deviceMajor,
          minor: entry.deviceMinor,
        });
    }
    return undefined;
  }

  private counted(writer: FileSink): FileSink {
    const { counts } = this;
    return {
      write(bytes) {
        counts.bytes += bytes.length;
        writer.write(bytes);
      },
      skip: (bytes) => {
        writer.skip(bytes);
      },
      end: () => {
        writer.end();
      },
    };
  }

  private linkTarget(entry: TarEntry): string {
    const { linkName: target, name: path } = entry;
    if (target === "") throw refusal("empty_link", "a symlink in the layer is empty", { path });
    if (target.includes("\0")) {
      throw refusal("nul_in_name", "a link target in the layer has a NUL byte", { path });
    }
    if (target.length > this.limits.pathBytes) {
      throw refusal("name_too_long", "a link target in the layer is too long", { path });
    }
    return target;
  }

  /** The target's own last component is not followed: a hard link to a symlink is one. */
  private putLink(parent: DirectoryRef, name: string, entry: TarEntry): void {
    const path = entry.name;
    const parts = splitName(entry.linkName, this.limits);
    const base = parts.pop();
    const directory = base === undefined ? undefined : this.lookUp(parts);
    const target =
      directory === undefined || base === undefined
        ? undefined
        : this.tree.child(directory.node, base);
    const itself = directory?.node === parent.node && base === name;
    if (base === undefined || target?.kind === "directory") {
      throw refusal("hardlink_to_directory", "a hard link in the layer names a directory", {
        path,
      });
    }
    // As with umoci, whose own removal of the old entry leaves nothing to link to.
    if (target === undefined || itself) {
      throw refusal("hardlink_missing_target", "a hard link in the layer names no entry", {
        path,
      });
    }
    const replaced = this.tree.child(parent.node, name);
    for (let at = directory; at !== undefined; at = at.parent) {
      if (at.node !== replaced) continue;
      throw refusal("hardlink_missing_target", "a hard link in the layer replaces what it names", {
        path,
      });
    }
    this.tree.addLink(parent.node, name, target);
  }

  private lookUp(parts: readonly string[]): DirectoryRef | undefined {
    return this.paths.directory(parts, { create: false });
  }

  private whiteout(parts: readonly string[], base: string, path: string): FileSink {
    if (base !== OPAQUE && base.startsWith(AUFS)) return DISCARD;
    const name = base.slice(WHITEOUT.length);
    if (base !== OPAQUE && (name === "" || name === "." || name === "..")) {
      throw refusal("bad_whiteout", "a whiteout in the layer names no entry", { path });
    }
    const directory = this.lookUp(parts);
    if (directory === undefined) return DISCARD;
    if (base === OPAQUE) this.hideLower(directory.node);
    else this.hideEntry(directory.node, name);
    return DISCARD;
  }

  private hideLower(directory: TreeNode): void {
    for (const [name] of [...this.tree.children(directory)]) this.hideEntry(directory, name);
  }

  /** Removes an entry of lower layers, and of a directory this layer has touched only the rest. */
  private hideEntry(directory: TreeNode, name: string): void {
    const node = this.tree.child(directory, name);
    if (node === undefined) return;
    if (this.upper.get(directory)?.has(name) === true) {
      if (node.kind === "directory") this.hideLower(node);
      return;
    }
    this.forgetPaths(node);
    this.tree.remove(directory, name);
  }

  /** Before a directory or link goes: what was resolved through it no longer holds. */
  private forgetPaths(node: TreeNode): void {
    if (node.kind === "directory" || node.kind === "symlink") this.lastParent = undefined;
  }

  /** `entry.name` in `entry.parent` is this layer's, and so are the directories above it. */
  private markUpper(entry: DirectoryRef): void {
    let { name } = entry;
    for (let at = entry.parent; at !== undefined; at = at.parent) {
      let names = this.upper.get(at.node);
      if (names === undefined) this.upper.set(at.node, (names = new Set()));
      if (names.has(name)) return;
      names.add(name);
      name = at.name;
    }
  }
}

/** The content of an entry that is not kept. */
const DISCARD: FileSink = {
  write: () => undefined,
  skip: () => undefined,
  end: () => undefined,
};

function metadataOf(entry: TarEntry): NodeMetadata {
  return {
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeSeconds: entry.mtimeSeconds,
    mtimeNanoseconds: entry.mtimeNanoseconds,
    xattrs: entry.xattrs,
  };
}
