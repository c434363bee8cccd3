/** The cluster side of a node. libp2p itself is loaded only by a node that has others. */
export type { Admission } from "./admission.ts";
export { createCluster, type Cluster, type ClusterOptions } from "./cluster.ts";
export { connectPeers, type PeerOptions } from "./connect.ts";
export { decodeJson, encodeJson } from "./json-body.ts";
export { openSigner, verifySigned, type Signer } from "./signing.ts";
export { fenced } from "./leaders.ts";
export { decodeJoinToken } from "./join-token.ts";
export { zlibCompressor } from "./swarm.ts";
export type {
  Leadership,
  Lease,
  Liveness,
  Members,
  Registers,
  Replication,
  Swarm,
  Transport,
} from "./ports.ts";
