import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createHttpMetrics } from "../../../src/daemon/http/middleware/metrics.ts";
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
};

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
