/** The node's key: what its peer id is made from, and what signs its messages. */
import "./polyfill.ts";
import { chmod, open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from "@libp2p/crypto/keys";
import type { PrivateKey, PublicKey } from "@libp2p/interface";
import { peerIdFromPrivateKey, peerIdFromString } from "@libp2p/peer-id";
import { z } from "zod";
import { AppError } from "../../domain/index.ts";

const NAME = "identity.key";
const MODE = 0o600;

const schema = z.looseObject({
  version: z.literal(1),
  node_id: z.string(),
  /** Of the host and folder it was made in. */
  host_mark: z.string(),
  key: z.string(),
});

export interface IdentityInput {
  readonly dataDir: string;
  readonly nodeId: string;
  readonly hostMark: string;
}

/**
 * The key in `<data>/identity.key`, made when it is missing.
 * @throws AppError identity_copied when the file belongs to another node, host or folder;
 *   config_invalid when it does not read
 */
export async function openIdentity(input: IdentityInput): Promise<PrivateKey> {
  const path = join(input.dataDir, NAME);
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new AppError("config_invalid", `${path} cannot be read`, { cause: error });
  });
  if (text === undefined) return makeIdentity(path, input);
  if (((await stat(path)).mode & 0o777) !== MODE) await chmod(path, MODE);
  let stored;
  try {
    stored = schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new AppError("config_invalid", `${path} is damaged`, { cause });
  }
  const other =
    stored.node_id !== input.nodeId
      ? `node ${stored.node_id}, and this one is ${input.nodeId}`
      : stored.host_mark !== input.hostMark
        ? "a node of that name on another host or in another folder"
        : undefined;
  if (other !== undefined) {
    throw new AppError(
      "identity_copied",
      `${path} belongs to ${other}: two nodes must not run with one identity. To make a new node ` +
        "of this folder remove identity.key and cluster.json, and join the cluster anew",
    );
  }
  try {
    return privateKeyFromProtobuf(Buffer.from(stored.key, "base64"));
  } catch (cause) {
    throw new AppError("config_invalid", `${path} is damaged`, { cause });
  }
}

async function makeIdentity(path: string, input: IdentityInput): Promise<PrivateKey> {
  const key = await generateKeyPair("Ed25519");
  const content = {
    version: 1,
    node_id: input.nodeId,
    host_mark: input.hostMark,
    key: Buffer.from(privateKeyToProtobuf(key)).toString("base64"),
  };
  const file = await open(`${path}.new`, "w", MODE);
  try {
    await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  return key;
}

export const peerIdOf = (key: PrivateKey): string => peerIdFromPrivateKey(key).toString();

/** The key that a peer id is made of; undefined when it is no peer id of an Ed25519 key. */
export function publicKeyOf(peerId: string): PublicKey | undefined {
  try {
    const peer = peerIdFromString(peerId);
    return peer.type === "Ed25519" && peer.toString() === peerId ? peer.publicKey : undefined;
  } catch {
    return undefined;
  }
}
