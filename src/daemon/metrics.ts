/**
 * What the daemon counts, for Prometheus: base units, no ids as labels (but members' names).
 * docs/metrics.md lists them.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import {
  STORAGE_MODES,
  isActiveJob,
  type Catalog,
  type Clock,
  type JobRecord,
  type Queries,
} from "../domain/index.ts";
import { watchCluster, type ClusterMeters } from "./cluster-metrics.ts";

const PREFIX = "templatecenter_";
const HARDLY_EVER_MS = 3_600_000;
const SECONDS = {
  job: [0.5, 1, 2, 5, 10, 20, 60, 120, 300, 900, 3_600],
  sandbox: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5],
  loop: [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5],
  resolve: [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.05],
};

export interface Metrics {
  readonly registry: Registry;
  resolveStage(stage: string, milliseconds: number): void;
  sandboxStarted(milliseconds: number): void;
  jobEnded(job: JobRecord): void;
  loopDelay(milliseconds: number): void;
  /** A big write found no room. */
  writeRefused(what: string): void;
  /** Files that nothing knew were removed. */
  orphanSwept(folder: string, bytes: number): void;
  /** A copy went because the disk was short of room. */
  evicted(kind: string, bytes: number): void;
  /** What the last look for orphan files found. */
  watchOrphans(latest: () => readonly { readonly bytes: number }[]): void;
  /** What is read from the state when it is asked for. */
  watch(state: WatchedState): void;
}

export interface WatchedState {
  readonly catalog: Catalog;
  readonly queries: Queries;
  readonly cluster: ClusterMeters;
  readonly clock: Pick<Clock, "now">;
}

/**
 * The process's own metrics, without those of the event loop: their monitor wakes the process a
 * hundred times a second, and what they tell is told by `event_loop_delay_seconds`.
 */
function collectOwn(registry: Registry): void {
  collectDefaultMetrics({
    register: registry,
    prefix: PREFIX,
    eventLoopMonitoringPrecision: HARDLY_EVER_MS,
  });
  for (const { name } of registry.getMetricsAsArray()) {
    if (name.includes("eventloop_lag")) registry.removeSingleMetric(name);
  }
}

export function createMetrics(version: string, node: string): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectOwn(registry);
  new Gauge({
    name: `${PREFIX}build_info`,
    help: "Version of the daemon and of Node.js; always 1",
    labelNames: ["version", "node"],
    registers,
  }).set({ version, node }, 1);
  const resolve = new Histogram({
    name: `${PREFIX}resolve_stage_duration_seconds`,
    help: "Time of each stage of resolving a template (spec 2.14)",
    labelNames: ["stage"],
    buckets: SECONDS.resolve,
    registers,
  });
  const sandbox = new Histogram({
    name: `${PREFIX}sandbox_start_seconds`,
    help: "Time from the request to a running sandbox",
    buckets: SECONDS.sandbox,
    registers,
  });
  const job = new Histogram({
    name: `${PREFIX}job_duration_seconds`,
    help: "Time from a job's creation to its end",
    labelNames: ["operation", "result"],
    buckets: SECONDS.job,
    registers,
  });
  const phase = new Histogram({
    name: `${PREFIX}job_phase_duration_seconds`,
    help: "Time of each phase of a job",
    labelNames: ["phase"],
    buckets: SECONDS.job,
    registers,
  });
  const loop = new Histogram({
    name: `${PREFIX}event_loop_delay_seconds`,
    help: "How late the event loop came to a timer, once a second, ten times after it was late",
    buckets: SECONDS.loop,
    registers,
  });
  const pulled = new Counter({
    name: `${PREFIX}build_bytes_total`,
    help: "Bytes of root filesystems built",
    registers,
  });
  const refused = new Counter({
    name: `${PREFIX}storage_refused_total`,
    help: "Builds, fetches and snapshots that found no room on this node's disk",
    labelNames: ["what"],
    registers,
  });
  const waste = countWaste(registry);
  return {
    registry,
    ...waste,
    writeRefused: (what) => refused.inc({ what }),
    resolveStage: (stage, milliseconds) => resolve.observe({ stage }, milliseconds / 1_000),
    sandboxStarted: (milliseconds) => sandbox.observe(milliseconds / 1_000),
    loopDelay: (milliseconds) => loop.observe(milliseconds / 1_000),
    jobEnded(ended) {
      const seconds = (from: string, to: string) => (Date.parse(to) - Date.parse(from)) / 1_000;
      const end = ended.ended_at ?? ended.updated_at;
      const labels = { operation: ended.operation, result: ended.status };
      job.observe(labels, Math.max(0, seconds(ended.created_at, end)));
      for (const { phase: name, started_at, ended_at } of ended.phases) {
        if (ended_at !== undefined) phase.observe({ phase: name }, seconds(started_at, ended_at));
      }
      if (ended["artifact_fresh"] === true) pulled.inc(Number(ended["artifact_bytes"] ?? 0));
    },
    watch(state) {
      watchState(registry, state);
      watchCluster(registry, PREFIX, state.cluster, () => state.clock.now());
    },
  };
}

/** Orphan files and evictions on this node. */
function countWaste(registry: Registry) {
  const registers = [registry];
  const counter = (name: string, help: string, label: string) =>
    new Counter({ name: `${PREFIX}${name}`, help, labelNames: [label], registers });
  const swept = counter("orphans_swept_total", "Files nothing knew that were removed", "folder");
  const sweptBytes = counter("orphan_bytes_swept_total", "Their bytes on disk", "folder");
  const evicted = counter("evictions_total", "Copies that went for want of room", "kind");
  const evictedBytes = counter("evicted_bytes_total", "Bytes of files in them", "kind");
  let latest: () => readonly { readonly bytes: number }[] = () => [];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `${PREFIX}${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge("orphans", "Files nothing knows, at the last look (spec 2.14)", () => latest().length);
  gauge("orphan_bytes", "Their bytes on disk", () =>
    latest().reduce((sum, { bytes }) => sum + bytes, 0),
  );
  return {
    orphanSwept(folder: string, bytes: number) {
      swept.inc({ folder });
      sweptBytes.inc({ folder }, bytes);
    },
    evicted(kind: string, bytes: number) {
      evicted.inc({ kind });
      evictedBytes.inc({ kind }, bytes);
    },
    watchOrphans: (found: typeof latest) => void (latest = found),
  };
}

function watchState(registry: Registry, { catalog, queries }: WatchedState) {
  const gauge = (name: string, help: string, labels: string[], read: (gauge: Gauge) => void) =>
    new Gauge({
      name: `${PREFIX}${name}`,
      help,
      labelNames: labels,
      registers: [registry],
      collect() {
        this.reset();
        read(this);
      },
    });
  gauge("templates", "Templates by status and kind", ["status", "kind"], (it) => {
    for (const { value } of catalog.list("template")) {
      if (value !== undefined) it.inc({ status: value.status, kind: value.kind });
    }
  });
  gauge("replicas", "Replicas by status", ["status"], (it) => {
    for (const { value } of catalog.list("replica")) if (value) it.inc({ status: value.status });
  });
  gauge("jobs", "Jobs by operation and status", ["operation", "status"], (it) => {
    for (const { value } of catalog.list("job")) {
      if (value !== undefined) it.inc({ operation: value.operation, status: value.status });
    }
  });
  gauge("jobs_active", "Jobs that are pending or running", [], (it) => {
    let active = 0;
    for (const { value } of catalog.list("job")) if (value && isActiveJob(value)) active++;
    it.set(active);
  });
  gauge("artifacts", "Artifacts by status", ["status"], (it) => {
    for (const { value } of catalog.list("artifact")) if (value) it.inc({ status: value.status });
  });
  gauge("artifact_bytes", "Size of the READY artifacts, holes included", [], (it) => {
    let bytes = 0;
    for (const { value } of catalog.list("artifact")) {
      if (value?.status === "READY") bytes += value.ext4_size_bytes;
    }
    it.set(bytes);
  });
  gauge("sandboxes", "Sandboxes on this host", [], (it) => it.set(queries.sandboxes().length));
  gauge("catalog_entries", "Replicated entries in memory", [], (it) =>
    it.set(catalog.health().entries),
  );
  gauge("catalog_degraded", "1 while the catalog cannot be written", [], (it) =>
    it.set(catalog.health().writable ? 0 : 1),
  );
  const storage = () => queries.node("self").storage;
  gauge("state_free_bytes", "Free space of the data directory's filesystem", [], (it) =>
    it.set(storage().free_bytes),
  );
  gauge("storage_used_ratio", "Share of that filesystem that is in use, 0 to 1", [], (it) =>
    it.set(storage().usage_pct / 100),
  );
  gauge(
    "storage_mode",
    "1 for the mode that this node's storage is in (spec 2.14)",
    ["mode"],
    (it) => STORAGE_MODES.forEach((mode) => it.set({ mode }, mode === storage().mode ? 1 : 0)),
  );
}

/** docs/metrics.md: what the registry holds, by name. */
export function metricsPage(registry: Registry): string {
  const all = registry.getMetricsAsArray() as unknown as readonly {
    name: string;
    help: string;
    type: string;
    labelNames: readonly string[];
  }[];
  const isOwn = (name: string) => !/^templatecenter_(process|nodejs)_/.test(name);
  const table = (own: boolean) => [
    "| name | type | labels | meaning |",
    "| --- | --- | --- | --- |",
    ...all
      .filter(({ name }) => isOwn(name) === own)
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, type, labelNames, help }) => {
        const labels = labelNames.map((label) => `\`${label}\``).join(", ");
        return `| \`${name}\` | ${type} | ${labels} | ${help.replace(/\.$/, "")} |`;
      }),
  ];
  return [
    "# Metrics",
    "",
    "What `GET /metrics` answers in Prometheus' text format. Base units; no ids as labels: `peer` is",
    "the name of a member.",
    "Generated by `npm run docs`.",
    "",
    ...table(true),
    "",
    "## The process",
    "",
    ...table(false),
    "",
  ].join("\n");
}
