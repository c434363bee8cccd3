/**
 * The parts of a cluster member, joined: who is there, what they agree on, how changes spread, who
 * leads, and how artifacts travel. On a node that is alone the same parts run without a transport:
 * it is its own quorum, and everything is decided on the spot.
 */
import { createHash } from "node:crypto";
import type { AppError, Catalog, Clock, Entry, Holding, Log, Random } from "../domain/index.ts";
import { createAdmission, type Admission } from "./admission.ts";
import { createChores } from "./chores.ts";
import { createLeadership } from "./leaders.ts";
import { createLiveness } from "./liveness.ts";
import { createMembers } from "./members.ts";
import type {
  Leadership,
  Liveness,
  Members,
  Registers,
  Replication,
  Swarm,
  Transport,
} from "./ports.ts";
import { createRegisters } from "./registers.ts";
import { createReplication } from "./sync/index.ts";
import { createSwarm, type Compressor, type SwarmStore } from "./swarm.ts";
import { createTransportSwitch, type TransportSwitch } from "./switch.ts";
import { createWarnings, type Warnings } from "./warnings.ts";
import { createWelcome } from "./welcome.ts";

export interface ClusterOptions {
  readonly nodeId: string;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly sessionTermMs: number;
  readonly store: SwarmStore;
  /** Absent: chunks are sent as they are. */
  readonly compress?: Compressor;
  /** Hex of the key that members share; asked for when a token is made. */
  readonly presharedKey: () => string;
  /** Bytes a second that are sent of artifacts; 0: no limit. */
  readonly uploadLimitBps: number;
  /** An own fact that others hold in a later version: it is written above that. */
  readonly onForgotten: (heard: Pick<Entry, "kind" | "id" | "version">) => void;
  readonly publishHolding: (artifactId: string, holding: Holding | undefined) => Promise<void>;
}

export interface Cluster {
  readonly transport: TransportSwitch;
  readonly members: Members;
  readonly liveness: Liveness;
  readonly registers: Registers;
  readonly leadership: Leadership;
  readonly replication: Replication;
  readonly admission: Admission;
  readonly swarm: Swarm;
  readonly warnings: Warnings;
  /** Resolves when another daemon is found that ran with this identity before this one started. */
  readonly copied: Promise<AppError>;
  /** Gives the node its connections; it is a member, or about to be one. */
  attach(real: Transport): void;
  start(): Promise<void>;
  /** Hands leaderships over, then stops; the transport is closed. */
  stop(): Promise<void>;
}

export function createCluster(options: ClusterOptions): Cluster {
  const { nodeId, catalog, clock, random, log } = options;
  const transport = createTransportSwitch();
  const members = createMembers(catalog, nodeId);
  const parts = { transport, members, catalog, clock, random, log };
  const liveness = createLiveness(parts);
  const registers = createRegisters({ ...parts, liveness });
  const leadership = createLeadership({
    ...parts,
    registers,
    liveness,
    termMs: options.sessionTermMs,
  });
  const { onForgotten } = options;
  const replication = createReplication({ ...parts, registers, liveness, onForgotten });
  const admission = createAdmission({
    ...parts,
    registers,
    sha256Hex: (text) => createHash("sha256").update(text).digest("hex"),
    bootId: random.uuid(),
    psk: () => Buffer.from(options.presharedKey(), "hex").toString("base64url"),
  });
  const swarm = createSwarm({
    ...parts,
    liveness,
    store: options.store,
    ...(options.compress === undefined ? {} : { compress: options.compress }),
    uploadLimitBps: options.uploadLimitBps,
    publishHolding: options.publishHolding,
  });
  const chores = createChores({ ...parts, registers, leadership, liveness });
  const warnings = createWarnings(parts);
  let onCopy: (error: AppError) => void = () => undefined;
  const copied = new Promise<AppError>((resolve) => (onCopy = resolve));
  const welcome = createWelcome({ ...parts, admission, warnings, onCopy });

  const tellTransport = () => {
    const config = members.config();
    const peers = Object.values(config?.members ?? {}).map(
      ({ peer_id, addresses }) => [peer_id, addresses] as const,
    );
    const removed = Object.entries(config?.removed ?? {}).map(
      ([peer, { node_id, at }]) => [peer, `${node_id} was removed at ${at}`] as const,
    );
    transport.setMembers(new Map(peers), new Map(removed));
  };
  const unsubscribe = members.onChange(tellTransport);

  return {
    transport,
    members,
    liveness,
    registers,
    leadership,
    replication,
    admission,
    swarm,
    warnings,
    copied,
    attach(real) {
      transport.attach(real);
      tellTransport();
    },
    async start() {
      tellTransport();
      await registers.start();
      liveness.start();
      leadership.start();
      replication.start();
      swarm.start();
      welcome.start();
      chores.start();
    },
    async stop() {
      chores.stop();
      welcome.stop();
      await leadership.stop();
      await swarm.stop();
      await replication.stop();
      liveness.stop();
      await registers.stop();
      unsubscribe();
      members.stop();
      await transport.detach();
    },
  };
}
