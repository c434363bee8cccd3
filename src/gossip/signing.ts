/**
 * What a node signs with its key, for readers outside of the cluster's connections. The key's peer
 * id holds the public key itself, so that it is both the signer's name and what to check with.
 * libp2p's parts are loaded on the first use: a node that is alone may never need them.
 */
export interface Signer {
  /** The peer id of the node's key. */
  readonly key: string;
  sign(bytes: Uint8Array): Promise<Uint8Array>;
}

/** @throws AppError identity_copied, config_invalid */
export async function openSigner(options: {
  readonly dataDir: string;
  readonly nodeId: string;
  /** Of this host and folder. */
  readonly hostMark: string;
}): Promise<Signer> {
  const { openIdentity, peerIdOf } = await import("./libp2p/identity.ts");
  const key = await openIdentity(options);
  return { key: peerIdOf(key), sign: async (bytes) => key.sign(bytes) };
}

/** False also for what is no peer id of an Ed25519 key. */
export async function verifySigned(
  key: string,
  bytes: Uint8Array,
  signature: Uint8Array,
): Promise<boolean> {
  const { publicKeyOf } = await import("./libp2p/identity.ts");
  return (await publicKeyOf(key)?.verify(bytes, signature)) === true;
}
