import type {
  FileWriter,
  NodeKind,
  NodeMetadata,
  RootfsTree,
  TreeNode,
} from "../../src/daemon/build/rootfs-tree.ts";

class MemoryNode implements TreeNode {
  readonly kind: NodeKind;
  metadata: NodeMetadata;
  linkCount = 0;
  sizeBytes = 0;
  target?: string;
  device?: { major: number; minor: number };
  readonly entries = new Map<string, MemoryNode>();
  pieces: Buffer[] = [];

  constructor(kind: NodeKind, metadata: NodeMetadata) {
    this.kind = kind;
    this.metadata = metadata;
  }
}

const nodeOf = (node: TreeNode): MemoryNode => {
  if (!(node instanceof MemoryNode)) throw new Error("a node of another tree");
  return node;
};

/** The semantics of `RootfsTree` with nothing behind them: a double for tests of the reader. */
export class MemoryTree implements RootfsTree {
  readonly root = new MemoryNode("directory", {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    xattrs: new Map(),
  });
  private open = 0;

  child(directory: TreeNode, name: string): TreeNode | undefined {
    return nodeOf(directory).entries.get(name);
  }

  children(directory: TreeNode): IterableIterator<readonly [string, TreeNode]> {
    return nodeOf(directory).entries.entries();
  }

  addDirectory(parent: TreeNode, name: string, metadata: NodeMetadata): TreeNode {
    const existing = nodeOf(parent).entries.get(name);
    if (existing?.kind !== "directory") return this.put(parent, name, "directory", metadata);
    existing.metadata = metadata;
    return existing;
  }

  addFile(parent: TreeNode, name: string, metadata: NodeMetadata, sizeBytes: number): FileWriter {
    if (this.open !== 0) throw new Error("two writers are open");
    const node = this.put(parent, name, "file", metadata);
    node.sizeBytes = sizeBytes;
    this.open++;
    let at = 0;
    return {
      node,
      write: (bytes) => {
        node.pieces.push(Buffer.from(bytes));
        at += bytes.length;
      },
      skip: (bytes) => {
        if (bytes < 1e7) node.pieces.push(Buffer.alloc(bytes));
        at += bytes;
      },
      end: () => {
        this.open--;
        if (at !== sizeBytes) throw new Error(`${name}: ${at} bytes instead of ${sizeBytes}`);
      },
    };
  }

  addSymlink(parent: TreeNode, name: string, metadata: NodeMetadata, target: string): TreeNode {
    const node = this.put(parent, name, "symlink", metadata);
    node.target = target;
    node.sizeBytes = target.length;
    return node;
  }

  addDevice(
    parent: TreeNode,
    name: string,
    metadata: NodeMetadata,
    device: { kind: "chardev" | "blockdev"; major: number; minor: number },
  ): TreeNode {
    const node = this.put(parent, name, device.kind, metadata);
    node.device = { major: device.major, minor: device.minor };
    return node;
  }

  addFifo(parent: TreeNode, name: string, metadata: NodeMetadata): TreeNode {
    return this.put(parent, name, "fifo", metadata);
  }

  addLink(parent: TreeNode, name: string, node: TreeNode): void {
    this.remove(parent, name);
    nodeOf(parent).entries.set(name, nodeOf(node));
    nodeOf(node).linkCount++;
  }

  remove(parent: TreeNode, name: string): void {
    const node = nodeOf(parent).entries.get(name);
    if (node === undefined) return;
    for (const below of [...node.entries.keys()]) this.remove(node, below);
    node.linkCount--;
    nodeOf(parent).entries.delete(name);
  }

  setMetadata(node: TreeNode, metadata: NodeMetadata): void {
    nodeOf(node).metadata = metadata;
  }

  async readFile(node: TreeNode): Promise<Uint8Array> {
    return Buffer.concat(nodeOf(node).pieces);
  }

  pressure(): undefined {
    return undefined;
  }

  private put(parent: TreeNode, name: string, kind: NodeKind, metadata: NodeMetadata): MemoryNode {
    this.remove(parent, name);
    const node = new MemoryNode(kind, metadata);
    nodeOf(parent).entries.set(name, node);
    node.linkCount = 1;
    return node;
  }
}

/** Every path below `directory` with what it is, files with their text: for whole-tree compares. */
export function listTree(tree: MemoryTree, directory: TreeNode = tree.root, at = ""): string[] {
  const lines: string[] = [];
  for (const [name, node] of [...tree.children(directory)].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const path = at === "" ? name : `${at}/${name}`;
    const memory = nodeOf(node);
    if (node.kind === "directory") lines.push(`${path}/`, ...listTree(tree, node, path));
    else if (node.kind === "symlink") lines.push(`${path} -> ${node.target ?? ""}`);
    else if (node.kind === "file") lines.push(`${path}=${Buffer.concat(memory.pieces).toString()}`);
    else lines.push(`${path} ${node.kind}`);
  }
  return lines;
}

/** The node at a path without symlinks; undefined when it is not there. */
export function nodeAt(tree: RootfsTree, path: string): TreeNode | undefined {
  let node: TreeNode | undefined = tree.root;
  for (const part of path.split("/")) {
    if (node === undefined) return undefined;
    node = tree.child(node, part);
  }
  return node;
}
