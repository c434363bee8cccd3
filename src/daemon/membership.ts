/**
 * This node's membership as it lies on the disk, brought into the catalog at start: a node that
 * enters or leaves a cluster begins without what it replicated before.
 */
import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { AppError, type Clock, type Entry, type Log, type Random } from "../domain/index.ts";
import { connectPeers, openSigner, type Signer, type Transport } from "../gossip/index.ts";
import { openCatalog, type OpenedCatalog } from "../storage/index.ts";
import {
  readClusterFile,
  removeClusterFile,
  writeClusterFile,
  type ClusterFile,
} from "./cluster-file.ts";
import type { Config } from "./config.ts";

const IDENTITY = "identity.key";
const CATALOG_ID = "catalog-id";

export interface MembershipParts {
  readonly config: Config;
  readonly catalogDir: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
}

export interface Membership {
  /** Undefined: this node is alone. */
  readonly file: ClusterFile | undefined;
  readonly catalogId: string;
  /** Hex; blank while the node is alone. */
  presharedKey(): string;
  /** Signs with this node's key, made when it has none. @throws AppError identity_copied */
  signer(): Promise<Signer>;
  /** A joining node is a new one, whatever this folder was before. */
  forgetIdentity(): Promise<void>;
  /** libp2p with that key, listening. @throws AppError config_invalid, identity_copied */
  connect(presharedKey: string, admitStrangers: () => boolean): Promise<Transport>;
}

/** The catalog's own name, made with it: cluster.json knows which one belongs to it. */
async function catalogIdOf(catalog: OpenedCatalog, random: Random): Promise<string> {
  const table = catalog.table("setting");
  const known = await table.get(CATALOG_ID);
  if (typeof known === "string") return known;
  const id = random.uuid();
  await table.put(CATALOG_ID, id);
  return id;
}

/** What tells one host and folder from another, so that a copied data directory is noticed. */
async function hostMark(dataDir: string): Promise<string> {
  const machine = await readFile("/etc/machine-id", "utf8").catch(() => "");
  return createHash("sha256")
    .update(`${machine.trim()}\0${resolve(dataDir)}`)
    .digest("hex");
}

/**
 * @throws AppError identity_copied when cluster.json and the catalog do not belong together, and
 *   what `openCatalog` throws
 */
export async function openMembership(
  parts: MembershipParts,
): Promise<{ catalog: OpenedCatalog; membership: Membership }> {
  const { config, log, clock, random } = parts;
  const dataDir = config.data_dir;
  let file = await readClusterFile(dataDir);
  const forgetReplicated = file?.state === "entering" || file?.state === "leaving";
  const catalog = await openCatalog({ dir: parts.catalogDir, log, clock, forgetReplicated });
  try {
    const catalogId = await catalogIdOf(catalog, random);
    if (file?.state === "entering") {
      await catalog.merge([file.admission as Entry]);
      const { admission: _done, ...rest } = file;
      file = { ...rest, state: "member", catalog_id: catalogId };
      await writeClusterFile(dataDir, file);
    } else if (file?.state === "leaving") {
      await rm(join(dataDir, IDENTITY), { force: true });
      await removeClusterFile(dataDir);
      file = undefined;
    } else if (file !== undefined && file.catalog_id !== catalogId) {
      throw new AppError(
        "identity_copied",
        `${dataDir}: the catalog is not the one this node was a member with. A voter that has ` +
          "forgotten what it promised must not vote: restore the catalog, or remove cluster.json " +
          "and identity.key, have the node removed from the cluster, and join anew",
      );
    }
    let key = file?.preshared_key ?? "";
    const openOwnSigner = async () =>
      openSigner({ dataDir, nodeId: config.node_id, hostMark: await hostMark(dataDir) });
    const membership: Membership = {
      file,
      catalogId,
      presharedKey: () => key,
      signer: openOwnSigner,
      forgetIdentity: () => rm(join(dataDir, IDENTITY), { force: true }),
      connect: async (presharedKey, admitStrangers) => {
        key = presharedKey;
        return connectPeers({
          dataDir,
          nodeId: config.node_id,
          hostMark: await hostMark(dataDir),
          presharedKey,
          listen: [config.p2p_listen],
          announce: config.p2p_announce,
          admitStrangers,
          log: log.child({ module: "p2p" }),
          clock,
          random,
        });
      },
    };
    return { catalog, membership };
  } catch (error) {
    await catalog.close();
    throw error;
  }
}
