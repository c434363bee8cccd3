/**
 * Loads libp2p when a node has others: a node that is alone pays neither time nor memory for it.
 */
import type { Clock, Log, Random } from "../domain/index.ts";
import type { Transport } from "./ports.ts";

export interface PeerOptions {
  readonly dataDir: string;
  readonly nodeId: string;
  /** Of this host and folder: an identity that was copied is noticed by it. */
  readonly hostMark: string;
  /** 64 hex digits. */
  readonly presharedKey: string;
  readonly listen: readonly string[];
  readonly announce: readonly string[];
  readonly admitStrangers: () => boolean;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
}

/** @throws AppError identity_copied, config_invalid when this node cannot listen there */
export async function connectPeers(options: PeerOptions): Promise<Transport> {
  const { createTransport, openIdentity } = await import("./libp2p/index.ts");
  return createTransport({ ...options, privateKey: await openIdentity(options) });
}
