/**
 * `<data>/cluster.json`: which cluster this node is in, and the key that its members share. It lies
 * outside of the catalog, so that a lost catalog is noticed: a voter that has forgotten what it
 * promised must not vote.
 */
import { open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AppError } from "../domain/index.ts";

const schema = z.looseObject({
  format: z.literal(1),
  /**
   * `member`; `entering`: admitted, and what the node replicated while it was alone is to be
   * dropped at the next start; `leaving`: the same, and the identity too.
   */
  state: z.enum(["member", "entering", "leaving"]),
  cluster_id: z.string(),
  /** Hex of the 32 bytes of libp2p's pre-shared key. */
  preshared_key: z.string().regex(/^[0-9a-f]{64}$/),
  /** Of the catalog that belongs to this membership; blank until it is prepared. */
  catalog_id: z.string(),
  /** The configuration entry that came with the admission, until it is in the catalog. */
  admission: z.unknown().optional(),
});
export type ClusterFile = z.infer<typeof schema>;

const NAME = "cluster.json";

/** @throws AppError config_invalid when the file is there and cannot be used */
export async function readClusterFile(dataDir: string): Promise<ClusterFile | undefined> {
  const path = join(dataDir, NAME);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new AppError("config_invalid", `${path} cannot be read`, { cause });
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new AppError(
      "config_invalid",
      `${path} is damaged: restore it, or remove it and identity.key and join the cluster anew`,
      { cause },
    );
  }
}

/** Durable before it resolves; readable by the daemon's user only, because of the key. */
export async function writeClusterFile(dataDir: string, content: ClusterFile): Promise<void> {
  const path = join(dataDir, NAME);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  const folder = await open(dataDir, "r");
  await folder.sync().finally(() => folder.close());
}

export const removeClusterFile = (dataDir: string): Promise<void> =>
  rm(join(dataDir, NAME), { force: true });
