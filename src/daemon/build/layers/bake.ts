/**
 * What is put into the root filesystem after the image's layers: first the in-guest agent, then the
 * CubeEgress root CA (spec §3.9). Paths are resolved inside the tree with all symlinks followed
 * there, absolute ones too: Fedora's /etc/ssl/certs/ca-certificates.crt is one.
 *
 * Files written are root's, 0644 (the agent 0755); their time is the epoch, as nothing else about a
 * build is the same on every day. A bundle keeps its own time, owner and attributes.
 */
import type { BakeInputs, BakeResult } from "../../../domain/index.ts";
import type { CaCertificate } from "./ca.ts";
import type { LayerLimits } from "./limits.ts";
import type { DirectoryRef } from "./tree-path.ts";
import type { NodeMetadata, RootfsTree, TreeNode } from "../rootfs-tree.ts";
import { bundleHolds, parseCa } from "./ca.ts";
import { refusal } from "./refusal.ts";
import { IMPLIED_DIRECTORY, TreePaths } from "./tree-path.ts";

const ENVD_PATH = "usr/local/bin/envd";
const SEED_PATH = "etc/ssl/certs/ca-certificates.crt";
const BUNDLE_PATHS = [
  SEED_PATH,
  "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "etc/pki/tls/certs/ca-bundle.crt",
];
const ANCHOR_DIRECTORIES = [
  "usr/local/share/ca-certificates",
  "etc/pki/ca-trust/source/anchors",
  "etc/ca-certificates/trust-source",
];
const ANCHOR_NAME = "cube-egress-root.crt";

/** A place in the tree: the directory, the name in it, and what is there now. */
interface Spot {
  readonly directory: DirectoryRef;
  readonly name: string;
  readonly node: TreeNode | undefined;
}

/**
 * Idempotent: a second run on the same tree writes nothing. A CA that is already in the image
 * everywhere counts as baked (the predecessor reported it as a failure).
 * @throws AppError ca_invalid before anything is written
 */
export async function bake(
  tree: RootfsTree,
  inputs: BakeInputs,
  limits: LayerLimits,
): Promise<BakeResult> {
  const ca = inputs.caPem === undefined ? undefined : parseCa(inputs.caPem);
  const baker = new Baker(tree, limits);
  if (inputs.envd !== undefined) await baker.installEnvd(inputs.envd);
  const certificates =
    ca === undefined
      ? { ca_baked: false, ca_seeded: false, ca_targets_written: 0 }
      : await baker.installCa(ca);
  return { ...certificates, envd_installed: inputs.envd !== undefined };
}

class Baker {
  private readonly tree: RootfsTree;
  private readonly paths: TreePaths;
  private readonly limits: LayerLimits;

  constructor(tree: RootfsTree, limits: LayerLimits) {
    this.tree = tree;
    this.limits = limits;
    this.paths = new TreePaths(tree, limits);
  }

  async installEnvd(envd: Uint8Array): Promise<void> {
    const spot = this.find(ENVD_PATH, true);
    if (spot === undefined) throw unusable(ENVD_PATH);
    if (await this.holds(spot.node, envd, 0o755)) return;
    this.write(spot, envd, { ...IMPLIED_DIRECTORY, mode: 0o755 });
  }

  async installCa(ca: CaCertificate): Promise<Omit<BakeResult, "envd_installed">> {
    let written = 0;
    let found = 0;
    for (const path of BUNDLE_PATHS) {
      const outcome = await this.appendToBundle(path, ca);
      if (outcome === "written") written++;
      if (outcome !== "absent") found++;
    }
    for (const path of ANCHOR_DIRECTORIES) {
      const outcome = await this.writeAnchor(path, ca);
      if (outcome === "written") written++;
      if (outcome !== "absent") found++;
    }
    if (found > 0) return { ca_baked: true, ca_seeded: false, ca_targets_written: written };
    const spot = this.find(SEED_PATH, true);
    if (spot === undefined) throw unusable(SEED_PATH);
    this.write(spot, Buffer.from(ca.pem, "latin1"), { ...IMPLIED_DIRECTORY, mode: 0o644 });
    return { ca_baked: true, ca_seeded: true, ca_targets_written: 1 };
  }

  private async appendToBundle(path: string, ca: CaCertificate): Promise<Outcome> {
    const spot = this.find(path, false);
    if (spot?.node?.kind !== "file") return "absent";
    const bundle = await this.tree.readFile(spot.node);
    if (bundleHolds(bundle, ca.der)) return "present";
    const newline = bundle.length > 0 && bundle[bundle.length - 1] !== 10 ? "\n" : "";
    const content = Buffer.concat([bundle, Buffer.from(newline + ca.pem, "latin1")]);
    this.write(spot, content, { ...spot.node.metadata, mode: 0o644 });
    return "written";
  }

  private async writeAnchor(path: string, ca: CaCertificate): Promise<Outcome> {
    const directory = this.paths.directory(path.split("/"), LOOK);
    if (directory === undefined) return "absent";
    const content = Buffer.from(ca.pem, "latin1");
    const node = this.tree.child(directory.node, ANCHOR_NAME);
    if (await this.holds(node, content)) return "present";
    const spot = { directory, name: ANCHOR_NAME, node };
    this.write(spot, content, { ...IMPLIED_DIRECTORY, mode: 0o644 });
    return "written";
  }

  /** The file at the end of the path, final symlinks followed. */
  private find(path: string, create: boolean): Spot | undefined {
    let parts = path.split("/");
    for (let hop = 0; hop < this.limits.linkHops; hop++) {
      const name = parts.at(-1) ?? "";
      const directory = this.paths.directory(parts.slice(0, -1), { ...LOOK, create });
      if (directory === undefined) return undefined;
      const node = this.tree.child(directory.node, name);
      if (node?.kind === "directory") return undefined;
      if (node?.kind !== "symlink") return { directory, name, node };
      const target = node.target ?? "";
      const base = target.startsWith("/") ? [] : pathOf(directory);
      const joined = lexicalJoin(base, target);
      if (joined.length === 0) return undefined;
      parts = joined;
    }
    return undefined;
  }

  private async holds(
    node: TreeNode | undefined,
    content: Uint8Array,
    mode?: number,
  ): Promise<boolean> {
    if (node?.kind !== "file" || node.sizeBytes !== content.length) return false;
    if (mode !== undefined && node.metadata.mode !== mode) return false;
    return Buffer.from(content).equals(await this.tree.readFile(node));
  }

  private write(spot: Spot, content: Uint8Array, metadata: NodeMetadata): void {
    const writer = this.tree.addFile(spot.directory.node, spot.name, metadata, content.length);
    writer.write(content);
    writer.end();
  }
}

type Outcome = "absent" | "present" | "written";

const LOOK = { create: false, followAbsolute: true } as const;

function pathOf(directory: DirectoryRef): string[] {
  const parts: string[] = [];
  for (let at: DirectoryRef | undefined = directory; at?.parent !== undefined; at = at.parent) {
    parts.unshift(at.name);
  }
  return parts;
}

/**
 * A symlink's target seen from the real directory it is in; `..` stops at the root. Its components
 * before a `..` are not looked at: a link behind such a detour is out of the ordinary enough.
 */
function lexicalJoin(base: readonly string[], target: string): string[] {
  const parts = [...base];
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return parts;
}

const unusable = (path: string) =>
  refusal("parent_not_directory", `/${path} cannot be written into the image`, { path });
