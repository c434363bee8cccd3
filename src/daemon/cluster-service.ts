/**
 * Entering and leaving a cluster, and what is asked of it as such. A node changes sides by a
 * restart of everything inside the process: what it replicated before must not meet what it
 * replicates then.
 */
import { createHash } from "node:crypto";
import {
  AppError,
  isActiveJob,
  isAppError,
  type Clock,
  type ClusterView,
  type Log,
  type Random,
} from "../domain/index.ts";
import { decodeJoinToken, type Cluster, type Transport } from "../gossip/index.ts";
import { readClusterFile, removeClusterFile, writeClusterFile } from "./cluster-file.ts";
import type { ClusterCommands } from "./commands.ts";
import type { Records } from "./records.ts";

export interface ClusterServiceParts {
  readonly records: Records;
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly dataDir: string;
  readonly nodeId: string;
  /** Of this node's catalog, see cluster-file.ts. */
  readonly catalogId: string;
  /** A joining node is a new one, whatever this folder was before. */
  readonly forgetIdentity: () => Promise<void>;
  /** libp2p with that key, listening. @throws AppError config_invalid, identity_copied */
  readonly connect: (presharedKey: string) => Promise<Transport>;
  /** Starts everything in the process anew, soon after the answer has gone out. */
  readonly restart: (reason: string) => void;
  readonly view: () => ClusterView;
}

const sha256Hex = (text: string): string => createHash("sha256").update(text).digest("hex");
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

export function createClusterService(parts: ClusterServiceParts): ClusterCommands {
  const { records, cluster, dataDir, nodeId, log } = parts;
  let entering: Promise<unknown> = Promise.resolve();
  /** One entering or leaving at a time. */
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const result = entering.then(work);
    entering = result.catch(() => undefined);
    return result;
  };

  const found = async (): Promise<void> => {
    if (cluster.members.config() !== undefined) return;
    const file = {
      format: 1,
      state: "member",
      cluster_id: parts.random.uuid(),
      preshared_key: hex(parts.random.bytes(32)),
      catalog_id: parts.catalogId,
    } as const;
    const transport = await parts.connect(file.preshared_key);
    try {
      await writeClusterFile(dataDir, file);
      cluster.attach(transport);
      await cluster.admission.bootstrap({
        clusterId: file.cluster_id,
        nodeId,
        peerId: transport.peerId,
        addresses: transport.addresses(),
      });
    } catch (error) {
      await cluster.transport.detach();
      await removeClusterFile(dataDir);
      throw error;
    }
    log.info("this node is now a cluster of its own", { cluster_id: file.cluster_id });
  };

  const assertMayJoin = async (discard: boolean): Promise<void> => {
    if (cluster.members.config() !== undefined || (await readClusterFile(dataDir)) !== undefined) {
      throw new AppError("already_clustered", `${nodeId} is in a cluster already: leave it first`);
    }
    const templates = [...records.list("template")].length;
    const jobs = [...records.list("job")].filter(isActiveJob).length;
    if (discard || templates + jobs === 0) return;
    throw new AppError(
      "node_has_templates",
      `${nodeId} has ${templates} templates and ${jobs} active jobs of its own, which the cluster ` +
        "does not know: join with discard to drop them (their artifacts stay), or join from the " +
        "other side",
    );
  };

  const join = async (token: string, discard: boolean): Promise<void> => {
    const wanted = decodeJoinToken(token, sha256Hex);
    const presharedKey = hex(Buffer.from(wanted.psk, "base64url"));
    await assertMayJoin(discard);
    await parts.forgetIdentity();
    const transport = await parts.connect(presharedKey);
    cluster.attach(transport);
    try {
      const admission = await cluster.admission.join(token, {
        nodeId,
        peerId: transport.peerId,
        addresses: transport.addresses(),
      });
      await writeClusterFile(dataDir, {
        format: 1,
        state: "entering",
        cluster_id: wanted.cluster_id,
        preshared_key: presharedKey,
        catalog_id: "",
        admission,
      });
    } finally {
      await cluster.transport.detach();
    }
    log.info("admitted to the cluster", { cluster_id: wanted.cluster_id });
    parts.restart("this node has joined a cluster");
  };

  /** True when one of the members says that this node is none any more. */
  const wasRemoved = async (): Promise<boolean> => {
    const asked = cluster.members.others().map(async (other) => {
      const peer = cluster.members.peerOf(other);
      if (peer === undefined) return false;
      try {
        await cluster.admission.hello(peer);
        return false;
      } catch (error) {
        return isAppError(error, "node_removed");
      }
    });
    return (await Promise.all(asked)).includes(true);
  };

  const leave = async (): Promise<void> => {
    const file = await readClusterFile(dataDir);
    if (file === undefined) throw new AppError("not_clustered", `${nodeId} is in no cluster`);
    // What cannot be handed over ends with this node's session.
    await cluster.leadership.releaseAll().catch(() => undefined);
    try {
      if (cluster.members.others().length > 0) await cluster.admission.leave();
    } catch (error) {
      // Taken out by the others already: what is left is to forget them.
      if (!isAppError(error, "no_quorum") || !(await wasRemoved())) throw error;
    }
    await writeClusterFile(dataDir, { ...file, state: "leaving", admission: undefined });
    log.info("this node has left the cluster", { cluster_id: file.cluster_id });
    parts.restart("this node has left its cluster");
  };

  const assertClustered = () => {
    if (cluster.members.config() === undefined) {
      throw new AppError("not_clustered", `${nodeId} is in no cluster`);
    }
  };

  return {
    createJoinToken: (request) =>
      alone(async () => {
        await found();
        return cluster.admission.createToken({
          ttlSeconds: request.ttl_seconds ?? 3_600,
          uses: request.uses ?? 1,
        });
      }),
    async revokeJoinToken(tokenId) {
      assertClustered();
      await cluster.admission.revokeToken(tokenId);
    },
    joinCluster: (request) =>
      alone(async () => {
        await join(request.token, request.discard === true);
        return parts.view();
      }),
    leaveCluster: () => alone(leave),
    async removeNode(wanted) {
      assertClustered();
      if (wanted === nodeId) {
        throw new AppError("invalid_request", `${nodeId} is this node: let it leave instead`);
      }
      await cluster.admission.removeMember(wanted);
    },
    async drainNode(wanted, drained) {
      assertClustered();
      await cluster.admission.setDrained(wanted, drained);
      if (wanted === nodeId && drained) await cluster.leadership.releaseAll();
    },
  };
}
