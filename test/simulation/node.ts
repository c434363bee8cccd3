/** One simulated member: what ships, over the simulated host, disk and network. */
import {
  CLUSTER,
  CONFIG_ID,
  type Catalog,
  type ClusterConfig,
  type Entry,
} from "../../src/domain/index.ts";
import { createFence, type Fence } from "../../src/gossip/fence.ts";
import { createLeadership } from "../../src/gossip/leaders.ts";
import { createMembers } from "../../src/gossip/members.ts";
import type { Leadership, Liveness, Registers, Transport } from "../../src/gossip/ports.ts";
import { createRegisters } from "../../src/gossip/registers.ts";
import { createReplication } from "../../src/gossip/sync/index.ts";
import { Disk, openSimulatedCatalog, type OnMerge } from "./disk.ts";
import { Host, Network, peerOf, type World } from "./world.ts";

const AT = "2026-01-01T00:00:00.000Z";
export const TERM_MS = 2_000;
/** Above what a message takes at most, a host that was stopped meanwhile included. */
const PURGE = { ageMs: 18_000, roundMs: 3_000 };

export function configOf(names: readonly string[], voters: readonly string[]): ClusterConfig {
  const members = names.map((node_id) => [
    node_id,
    { node_id, peer_id: peerOf(node_id), addresses: [], joined_at: AT, drained: false },
  ]);
  return {
    cluster_id: "sim",
    created_at: AT,
    members: Object.fromEntries(members) as ClusterConfig["members"],
    voters: { number: 1, nodes: [...voters], previous: [] },
    removed: {},
    tokens: {},
  };
}

/** Everything of one life; thrown away as a whole by a crash. */
export interface Life {
  readonly catalog: Catalog;
  readonly transport: Transport;
  readonly registers: Registers;
  readonly leadership: Leadership;
  readonly fence: Fence;
}

export class SimNode {
  readonly host: Host;
  readonly disk = new Disk();
  protected readonly network: Network;
  protected readonly onMerge: OnMerge;
  readonly #peers: () => readonly SimNode[];
  life: Life | undefined;

  constructor(
    world: World,
    network: Network,
    name: string,
    config: ClusterConfig,
    onMerge: OnMerge,
    peers: () => readonly SimNode[],
  ) {
    this.host = new Host(world, name);
    this.network = network;
    this.onMerge = onMerge;
    this.#peers = peers;
    const entry = { owner: CLUSTER, kind: "cluster", id: CONFIG_ID, version: 1, value: config };
    this.disk.rows.entries.set(`cluster\0${CONFIG_ID}\0${CLUSTER}`, {
      entry: entry as Entry,
      sequence: ++this.disk.sequence,
    });
  }

  get name(): string {
    return this.host.name;
  }

  /** @param begin the node's own work, for this life */
  async start(begin: (node: SimNode, life: Life) => void): Promise<void> {
    const { host } = this;
    host.up = true;
    const catalog = openSimulatedCatalog(host, this.disk, this.onMerge);
    const members = createMembers(catalog, host.name);
    const transport = this.network.transport(host);
    const clock = host.clock();
    const parts = { catalog, members, transport, clock, random: host.random(), log: host.log() };
    const liveness = this.#liveness();
    const registers = createRegisters({ ...parts, liveness });
    const leadership = createLeadership({ ...parts, registers, liveness, termMs: TERM_MS });
    const replication = createReplication({ ...parts, registers, liveness, purge: PURGE });
    const life = { catalog, transport, registers, leadership, fence: createFence(catalog) };
    this.life = life;
    const started = host.life;
    await registers.start();
    if (host.life !== started) return;
    leadership.start();
    replication.start();
    begin(this, life);
  }

  crash(): void {
    this.host.crash();
    this.life = undefined;
  }

  /** An opinion that is often late and sometimes wrong, as a failure detector's is. */
  #liveness(): Liveness {
    const { host } = this;
    const isUp = (name: string) => {
      const other = this.#peers().find((node) => node.name === name);
      if (other === undefined || name === host.name) return true;
      return other.host.up && other.host.pausedUntil < host.world.now + 3_000;
    };
    return {
      stateOf: (name) => (isUp(name) ? "alive" : "dead"),
      since: () => 0,
      isUp,
      onChange: () => () => undefined,
      carry: () => undefined,
    };
  }
}
