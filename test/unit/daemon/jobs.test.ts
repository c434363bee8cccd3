import { describe, expect, test } from "vitest";
import { createEventHub } from "../../../src/daemon/events.ts";
import { jobEnd } from "../../../src/daemon/job-end.ts";
import { enterPhase, failJob, finishJob } from "../../../src/daemon/job-record.ts";
import { imageInfo } from "../../../src/daemon/queries.ts";
import { createProgress } from "../../../src/daemon/workers/progress.ts";
import { LIMITS, type JobProgress, type JobRecord } from "../../../src/domain/index.ts";
import { fakeClock, steadyRandom } from "../../support/source-ports.ts";

const AT = "2026-01-01T00:00:00.000Z";
const LATER = "2026-01-01T00:00:05.000Z";
const job = (change: Partial<JobRecord> = {}): JobRecord => ({
  job_id: "j1",
  template_id: "tpl-1",
  request_id: "r1",
  resource_type: "template",
  resource_id: "tpl-1",
  attempt_no: 1,
  operation: "CREATE",
  instance_type: "cubebox",
  status: "PENDING",
  phase: "PULLING",
  progress: 0,
  error_message: "",
  expected_node_count: 0,
  ready_node_count: 0,
  failed_node_count: 0,
  runs: 0,
  phases: [],
  deadline_at: LATER,
  created_at: AT,
  updated_at: AT,
  ...change,
});

describe("a job's record", () => {
  test("a phase begins where the one before ends, and progress never goes back", () => {
    const pulling = enterPhase(job(), "PULLING", AT);
    expect(pulling).toMatchObject({ status: "RUNNING", progress: 5 });
    const building = enterPhase({ ...pulling, progress: 60 }, "BUILDING_EXT4", LATER);
    expect(building.phases).toEqual([
      { phase: "PULLING", started_at: AT, ended_at: LATER },
      { phase: "BUILDING_EXT4", started_at: LATER },
    ]);
    expect(building.progress).toBe(60);
  });
  test("entering the phase it is in keeps its start", () => {
    const pulling = enterPhase(job(), "PULLING", AT);
    expect(enterPhase(pulling, "PULLING", LATER).phases).toEqual(pulling.phases);
  });
  test("an end closes the open phase, with 100 percent and, on failure, an error", () => {
    const running = enterPhase(job(), "SNAPSHOTTING", AT);
    expect(finishJob(running, LATER)).toMatchObject({
      status: "READY",
      phase: "READY",
      progress: 100,
    });
    const failed = failJob(running, "fail", { message: "", code: "internal" }, LATER);
    expect(failed).toMatchObject({ status: "FAILED", phase: "SNAPSHOTTING", progress: 100 });
    expect(failed.error_message).not.toBe("");
    expect(failed.phases[0]?.ended_at).toBe(LATER);
  });
  test("an ended job takes nothing more", () => {
    const ended = finishJob(enterPhase(job(), "REGISTERING", AT), LATER);
    expect(() => enterPhase(ended, "PULLING", LATER)).toThrow(/READY/);
    expect(() => failJob(ended, "cancel", { message: "m", code: "c" }, LATER)).toThrow(/READY/);
  });
});

describe("waiting for a job's end", () => {
  const setup = () => {
    let known: JobRecord | undefined = job({ status: "RUNNING" });
    const listeners = new Set<(change: { kind: string; id: string }) => void>();
    const set = (next: JobRecord | undefined) => {
      known = next;
      for (const listener of listeners) listener({ kind: "job", id: "j1" });
    };
    const parts = {
      catalog: {
        subscribe: (listener: (change: { kind: string; id: string }) => void) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
      records: { get: () => known },
      // Sleeps for ever: only what is told of the job, or the signal, ends the wait.
      clock: {
        sleep: (_ms: number, { signal }: { signal: AbortSignal }) =>
          new Promise<void>((_resolve, reject) => {
            signal.addEventListener("abort", () => {
              reject(new Error("woken"));
            });
          }),
      },
    } as unknown as Parameters<typeof jobEnd>[0];
    return { parts, set, listeners };
  };
  test("the record as it ended, without waiting on", async () => {
    const { parts, set, listeners } = setup();
    const end = jobEnd(parts, job(), 1000);
    set(job({ status: "RUNNING", progress: 50 }));
    set(job({ status: "READY" }));
    expect((await end).status).toBe("READY");
    expect(listeners.size).toBe(0);
    expect((await jobEnd(parts, job(), 1000)).status).toBe("READY");
  });
  test("a job that goes with its template ends the wait, and says so", async () => {
    const { parts, set } = setup();
    const end = jobEnd(parts, job(), 1000);
    set(undefined);
    await expect(end).rejects.toMatchObject({ code: "job_not_found" });
  });
  test("a caller who leaves does not wait for it", async () => {
    const { parts, listeners } = setup();
    const leaves = new AbortController();
    const end = jobEnd(parts, job(), 1000, leaves.signal);
    leaves.abort(new Error("the caller left"));
    await expect(end).rejects.toThrow("the caller left");
    expect(listeners.size).toBe(0);
  });
});

describe("progress (spec §11 row 117)", () => {
  const setup = () => {
    const written: JobProgress[] = [];
    const clock = fakeClock();
    const timers: (() => void)[] = [];
    const facts = {
      nodeId: "n",
      get: () => undefined,
      put: async (_kind: string, _id: string, value: unknown) => {
        written.push(value as JobProgress);
      },
    };
    const reporter = createProgress({
      facts: facts as never,
      clock: {
        ...clock,
        after: (_ms, callback) => {
          timers.push(callback);
          return { cancel: () => undefined };
        },
      },
      jobId: "j1",
    });
    const build = (downloadedBytes: number) =>
      reporter.build({
        downloadedBytes,
        totalBytes: 1_000,
        completedLayers: 0,
        totalLayers: 2,
        entries: 0,
        writtenBytes: 0,
        phase: "UNPACKING",
      });
    return { written, clock, timers, reporter, build };
  };
  test("bytes that go backwards have speed 0", () => {
    const { clock, timers, build, written } = setup();
    build(0);
    clock.advance(1_000);
    build(500);
    timers.at(-1)?.();
    expect(written.at(-1)?.pull_speed_bps).toBe(500);
    clock.advance(1_000);
    build(100);
    timers.at(-1)?.();
    expect(written.at(-1)).toMatchObject({ pull_speed_bps: 0, pull_downloaded_bytes: 100 });
  });
  test("many reports become one write an interval, and the last one is kept", () => {
    const { written, build, reporter } = setup();
    for (let bytes = 0; bytes <= 1_000; bytes += 10) build(bytes);
    expect(written).toHaveLength(1);
    reporter.end();
    expect(written.at(-1)).toMatchObject({ pull_downloaded_bytes: 1_000, pull_speed_bps: 0 });
    build(5);
    expect(written).toHaveLength(2);
  });
});

describe("events", () => {
  test("a reader goes on after the last id it has seen", () => {
    const hub = createEventHub(fakeClock(), steadyRandom);
    hub.publish("job", "j1", {});
    const seen = hub.lastId();
    hub.publish("job", "j2", {});
    expect(hub.since(seen)?.map((event) => event.subject)).toEqual(["j2"]);
    expect(hub.since(hub.lastId())).toEqual([]);
  });
  test("an id of another start, or one that is too old, is unknown", () => {
    const hub = createEventHub(fakeClock(), steadyRandom);
    hub.publish("job", "j1", {});
    const first = hub.lastId();
    expect(hub.since("elsewhere.1")).toBeUndefined();
    expect(hub.since("nonsense")).toBeUndefined();
    for (let i = 0; i <= LIMITS.eventRing; i++) hub.publish("job", "j", {});
    expect(hub.since(first)).toBeUndefined();
  });
});

describe("small rules", () => {
  test("image info has one @ (spec §2.5)", () => {
    expect(imageInfo("app:1", "sha256:a")).toBe("app:1@sha256:a");
    expect(imageInfo("app:1", "repo/app@sha256:a")).toBe("app:1@sha256:a");
    expect(imageInfo("app@sha256:a", "sha256:a")).toBe("app@sha256:a");
    expect(imageInfo("app:1", "")).toBe("app:1");
  });
});
