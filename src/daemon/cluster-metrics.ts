/**
 * What the parts of the cluster count, for Prometheus. They count for themselves, because they know
 * no Prometheus; it is read from them when it is asked for. A `peer` is a member's name: there are
 * as many as hosts, and those of removed members go.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { Cluster } from "../gossip/index.ts";

export interface ClusterMeters {
  readonly transport: Pick<Cluster["transport"], "counters" | "traffic">;
  readonly replication: Pick<Cluster["replication"], "counts" | "peers">;
  readonly registers: Pick<Cluster["registers"], "counts">;
  readonly swarm: Pick<Cluster["swarm"], "counters">;
}

type Labels = Readonly<Record<string, string>>;
type Reading = readonly [Labels, number];

interface Meter {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly read: (meters: ClusterMeters, nowMs: number) => Iterable<Reading>;
}

const byName = (label: string, counts: Readonly<Record<string, number>>): Reading[] =>
  Object.entries(counts).map(([name, count]) => [{ [label]: name }, count]);

const COUNTERS: readonly Meter[] = [
  {
    name: "p2p_messages_total",
    help: "Messages between members, by topic or protocol; a request and its answer are two",
    labels: ["channel", "direction"],
    read: ({ transport }) =>
      transport
        .traffic()
        .map(({ channel, direction, messages }) => [{ channel, direction }, messages]),
  },
  {
    name: "p2p_bytes_total",
    help: "Bytes of these messages, without encryption and copies to several neighbours",
    labels: ["channel", "direction"],
    read: ({ transport }) =>
      transport.traffic().map(({ channel, direction, bytes }) => [{ channel, direction }, bytes]),
  },
  {
    name: "p2p_outcomes_total",
    help: "Messages and requests by what became of them, refusals with their reason",
    labels: ["outcome"],
    read: ({ transport }) => byName("outcome", transport.counters()),
  },
  {
    name: "sync_entries_total",
    help: "Entries from other members: merged, or why they were refused",
    labels: ["outcome"],
    read: ({ replication }) => byName("outcome", replication.counts().entries),
  },
  {
    name: "sync_comparisons_total",
    help: "Comparisons with another member's catalog, by result",
    labels: ["result"],
    read: ({ replication }) => byName("result", replication.counts().comparisons),
  },
  {
    name: "sync_tombstones_purged_total",
    help: "Tombstones dropped, which no member needs any more",
    labels: [],
    read: ({ replication }) => [[{}, replication.counts().purged]],
  },
  {
    name: "register_updates_total",
    help: "Updates and reads of quorum registers asked for on this node, by outcome",
    labels: ["outcome"],
    read: ({ registers }) => byName("outcome", registers.counts().updates),
  },
  {
    name: "register_served_total",
    help: "Operations that this node was asked for as a voter, by outcome",
    labels: ["operation", "outcome"],
    read: ({ registers }) =>
      Object.entries(registers.counts().served).map(([name, count]) => {
        const [operation = "", outcome = ""] = name.split(":");
        return [{ operation, outcome }, count];
      }),
  },
  {
    name: "swarm_bytes_total",
    help: "Bytes of artifacts exchanged with other members, as they went over the network",
    labels: ["direction"],
    read({ swarm }) {
      const { sent_bytes = 0, received_bytes = 0 } = swarm.counters();
      return [
        [{ direction: "sent" }, sent_bytes],
        [{ direction: "received" }, received_bytes],
      ];
    },
  },
  {
    name: "swarm_refused_total",
    help: "Chunks that did not match their hash, and requests that made no sense",
    labels: ["reason"],
    read({ swarm }) {
      const { chunk_mismatch = 0, wire_invalid = 0 } = swarm.counters();
      return byName("reason", { chunk_mismatch, wire_invalid });
    },
  },
];

const GAUGES: readonly Meter[] = [
  {
    name: "sync_lag_seconds",
    help: "From a change at that member to its being here, median of the latest",
    labels: ["peer"],
    read: ({ replication }) =>
      replication
        .peers()
        .flatMap(({ nodeId, lagMs }) =>
          lagMs === undefined ? [] : [[{ peer: nodeId }, lagMs / 1_000] as const],
        ),
  },
  {
    name: "sync_diverged_seconds",
    help: "How long the catalogs have differed from that member's; 0 while they agree",
    labels: ["peer"],
    read: ({ replication }, nowMs) =>
      replication.peers().map(({ nodeId, divergedSince }) => {
        const ms = divergedSince === 0 ? 0 : Math.max(0, nowMs - divergedSince);
        return [{ peer: nodeId }, ms / 1_000];
      }),
  },
];

/** Registers them all; `now` in milliseconds of wall clock. */
export function watchCluster(
  registry: Registry,
  prefix: string,
  meters: ClusterMeters,
  now: () => number,
): void {
  const registers = [registry];
  for (const { name, help, labels, read } of COUNTERS) {
    new Counter({
      name: `${prefix}${name}`,
      help,
      labelNames: labels,
      registers,
      collect() {
        this.reset();
        for (const [label, count] of read(meters, now())) this.inc(label, count);
      },
    });
  }
  for (const { name, help, labels, read } of GAUGES) {
    new Gauge({
      name: `${prefix}${name}`,
      help,
      labelNames: labels,
      registers,
      collect() {
        this.reset();
        for (const [label, value] of read(meters, now())) this.set(label, value);
      },
    });
  }
}
