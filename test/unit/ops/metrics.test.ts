import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createHttpMetrics } from "../../../src/daemon/http/middleware/metrics.ts";
import type { ClusterMeters } from "../../../src/daemon/cluster-metrics.ts";
import { createMetrics, metricsPage } from "../../../src/daemon/metrics.ts";
import type { Catalog, JobRecord, Queries } from "../../../src/domain/index.ts";

const root = join(import.meta.dirname, "../../..");

const rows: Record<string, object[]> = {
  template: [
    { status: "READY", kind: "template" },
    { status: "READY", kind: "template" },
    { status: "FAILED", kind: "snapshot" },
  ],
  replica: [{ status: "READY" }],
  job: [
    { operation: "CREATE", status: "RUNNING" },
    { operation: "CREATE", status: "READY" },
  ],
  artifact: [
    { status: "READY", ext4_size_bytes: 1_000 },
    { status: "CLEANUP_PENDING", ext4_size_bytes: 500 },
  ],
};
const state = {
  catalog: {
    list: (kind: string) => (rows[kind] ?? []).map((value) => ({ value })),
    health: () => ({ writable: false, reason: "full", entries: 7 }),
  } as unknown as Catalog,
  queries: {
    sandboxes: () => [{}, {}],
    node: () => ({ storage: { free_bytes: 4_096 } }),
  } as unknown as Queries,
  clock: { now: () => 100_000 },
  cluster: countedCluster(),
};

function countedCluster(): ClusterMeters {
  const peer = { inSync: true, comparedAt: 90_000, divergedSince: 0, lagMs: undefined };
  return {
    transport: {
      counters: () => ({ "changes:accepted": 3, "request:refused:stranger": 2 }),
      traffic: () => [
        { channel: "changes", direction: "sent", messages: 5, bytes: 640 },
        { channel: "feed", direction: "received", messages: 7, bytes: 70 },
      ],
    },
    replication: {
      counts: () => ({
        entries: { merged: 40, owner: 1 },
        comparisons: { in_sync: 8, differs: 2 },
        purged: 6,
      }),
      peers: () => [
        { ...peer, nodeId: "host-b", lagMs: 250 },
        { ...peer, nodeId: "host-c", divergedSince: 70_000 },
      ],
    },
    registers: {
      counts: () => ({
        updates: { written: 11, no_quorum: 1 },
        served: { "prepare:ok": 4, "accept:not_served": 9 },
      }),
    },
    swarm: {
      counters: () => ({
        ...{ sent_bytes: 1_000, received_bytes: 2_000 },
        ...{ chunk_mismatch: 1, wire_invalid: 0 },
      }),
    },
  };
}

function everyMetric() {
  const metrics = createMetrics("1.2.3", "v20.0.0");
  metrics.watch(state);
  createHttpMetrics(metrics.registry, () => 3);
  return metrics;
}
const values = (text: string) =>
  text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));

describe("what is counted", () => {
  test("gauges are read from the state when they are asked for", async () => {
    const { registry } = everyMetric();
    const ask = async () => values(await registry.metrics());
    const first = await ask();
    for (const line of [
      'templatecenter_build_info{version="1.2.3",node="v20.0.0"} 1',
      'templatecenter_templates{status="READY",kind="template"} 2',
      'templatecenter_templates{status="FAILED",kind="snapshot"} 1',
      'templatecenter_replicas{status="READY"} 1',
      'templatecenter_jobs{operation="CREATE",status="RUNNING"} 1',
      "templatecenter_jobs_active 1",
      "templatecenter_artifact_bytes 1000",
      "templatecenter_sandboxes 2",
      "templatecenter_catalog_entries 7",
      "templatecenter_catalog_degraded 1",
      "templatecenter_state_free_bytes 4096",
      "templatecenter_sse_streams 3",
    ]) {
      expect(first).toContain(line);
    }
    const template = rows["template"] ?? [];
    const last = template.pop() ?? {};
    expect((await ask()).filter((line) => line.includes('kind="snapshot"'))).toEqual([]);
    template.push(last);
  });

  test("what the parts of the cluster count comes out by channel, outcome and peer", async () => {
    const { registry } = everyMetric();
    const first = values(await registry.metrics());
    for (const line of [
      'p2p_messages_total{channel="changes",direction="sent"} 5',
      'p2p_bytes_total{channel="feed",direction="received"} 70',
      'p2p_outcomes_total{outcome="request:refused:stranger"} 2',
      'sync_entries_total{outcome="merged"} 40',
      'sync_entries_total{outcome="owner"} 1',
      'sync_comparisons_total{result="differs"} 2',
      "sync_tombstones_purged_total 6",
      'sync_lag_seconds{peer="host-b"} 0.25',
      'sync_diverged_seconds{peer="host-b"} 0',
      'sync_diverged_seconds{peer="host-c"} 30',
      'register_updates_total{outcome="no_quorum"} 1',
      'register_served_total{operation="accept",outcome="not_served"} 9',
      'swarm_bytes_total{direction="sent"} 1000',
      'swarm_bytes_total{direction="received"} 2000',
      'swarm_refused_total{reason="chunk_mismatch"} 1',
    ]) {
      expect(first).toContain(`templatecenter_${line}`);
    }
    // Nothing was measured from there.
    expect(first.join()).not.toContain('sync_lag_seconds{peer="host-c"}');
    // Asked again it is the same: what is read is not added up.
    const cluster = (lines: string[]) => lines.filter((line) => /_(p2p|sync|swarm)_/.test(line));
    expect(cluster(values(await registry.metrics()))).toEqual(cluster(first));
  });

  test("the delay of the event loop is that of a timer, measured by no monitor", async () => {
    const metrics = everyMetric();
    metrics.loopDelay(15);
    const lines = values(await metrics.registry.metrics());
    expect(lines).toContain("templatecenter_event_loop_delay_seconds_sum 0.015");
    expect(lines.join()).not.toContain("eventloop_lag");
  });

  test("a job's end is timed as a whole and by phase, in seconds", async () => {
    const metrics = everyMetric();
    const at = (seconds: number) => new Date(seconds * 1_000).toISOString();
    metrics.jobEnded({
      operation: "CREATE",
      status: "READY",
      created_at: at(10),
      updated_at: at(90),
      ended_at: at(25),
      phases: [
        { phase: "PULLING", started_at: at(10), ended_at: at(14) },
        { phase: "READY", started_at: at(25) },
      ],
      artifact_fresh: true,
      artifact_bytes: 77,
    } as unknown as JobRecord);
    const lines = values(await metrics.registry.metrics());
    const whole = 'templatecenter_job_duration_seconds_sum{operation="CREATE",result="READY"} 15';
    expect(lines).toContain(whole);
    expect(lines).toContain('templatecenter_job_phase_duration_seconds_sum{phase="PULLING"} 4');
    expect(lines).toContain("templatecenter_build_bytes_total 77");
    expect(lines.filter((line) => line.includes('phase="READY"'))).toEqual([]);
  });

  test("milliseconds come out as seconds", async () => {
    const metrics = everyMetric();
    metrics.sandboxStarted(250);
    metrics.resolveStage("bind", 2);
    const lines = values(await metrics.registry.metrics());
    expect(lines).toContain("templatecenter_sandbox_start_seconds_sum 0.25");
    const resolve = 'templatecenter_resolve_stage_duration_seconds_sum{stage="bind"} 0.002';
    expect(lines).toContain(resolve);
  });

  test("no label can hold an id", () => {
    const page = metricsPage(everyMetric().registry);
    const labels = [...page.matchAll(/\| ((?:`\w+`(?:, )?)+) \|/g)].flatMap(([, cell]) =>
      (cell ?? "").replaceAll("`", "").split(", "),
    );
    expect(labels).toContain("phase");
    expect(labels.filter((label) => /(^|_)(id|digest|path|url)$/.test(label))).toEqual([]);
  });
});

describe("docs/metrics.md", () => {
  test("lists every metric as it is", () => {
    const written = readFileSync(join(root, "docs/metrics.md"), "utf8");
    expect(written, "run: npm run docs").toBe(metricsPage(everyMetric().registry));
  });
});
