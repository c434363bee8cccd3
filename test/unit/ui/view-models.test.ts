import { describe, expect, test } from "vitest";
import * as format from "../../../src/ui/format.ts";
import { fieldOf, parseForm } from "../../../src/ui/form.ts";
import { status } from "../../../src/ui/status.ts";
import { createSubmissions } from "../../../src/ui/submissions.ts";
import { parsePosition } from "../../../src/ui/stream.ts";
import { commandLines } from "../../../src/ui/command-lines.ts";
import {
  deletePlan,
  jobSentence,
  noticeText,
  phaseSteps,
  progressText,
  replicaViews,
  templateSentence,
} from "../../../src/ui/view-models.ts";
import { aJob, aReplica, aSandbox, aTemplate } from "../../support/fake-http-service.ts";

const START = Date.parse("2026-01-02T03:04:05.000Z");
const at = (seconds: number): string => new Date(START + seconds * 1_000).toISOString();

describe("numbers and times", () => {
  test("sizes, rates and durations are short and have a unit", () => {
    expect(format.formatBytes(1_395_864_371)).toBe("1.3 GiB");
    expect(format.formatRate(41_400_000)).toBe("41 MB/s");
    expect(format.formatRate(0)).toBe("");
    const spans = [16, 420, 12_000, 184_000, 7_500_000].map(format.formatDuration);
    expect(spans).toEqual(["16 ms", "0.4 s", "12 s", "3 min 04 s", "2 h 05 min"]);
  });
  test("a time is told from now, and a clock that runs behind says just now", () => {
    const words = [-5, 1, 12, 200, 7_300, 90_000, 200_000].map((seconds) =>
      format.relativeTime(START + seconds * 1_000, START),
    );
    expect(words).toEqual([
      "just now",
      "just now",
      "12 s ago",
      "3 min ago",
      "2 h ago",
      "1 day ago",
      "2 days ago",
    ]);
  });
  test("a command line is quoted where a shell would read it otherwise", () => {
    expect(commandLines.create("a b'c", "1Gi")).toBe(
      `templatecenter tpl create-from-image --image 'a b'\\''c' --writable-layer-size 1Gi`,
    );
  });
});

describe("jobs", () => {
  test("progress says percent, layer, speed and what is left", () => {
    const job = aJob({
      progress: 62.4,
      pull_total_layers: 8,
      pull_completed_layers: 4,
      pull_total_bytes: 1_000_000_000,
      pull_downloaded_bytes: 180_000_000,
      pull_speed_bps: 41_000_000,
    });
    expect(progressText(job)).toBe("62 % · layer 5 of 8 · 41 MB/s · about 20 s left");
  });
  test("each phase is done, running or to come, with its time", () => {
    const job = aJob({
      phases: [
        { phase: "PULLING", started_at: at(0), ended_at: at(3) },
        { phase: "UNPACKING", started_at: at(3) },
      ],
    });
    const steps = phaseSteps(job, START + 4_000);
    expect(steps.slice(0, 3)).toEqual([
      { phase: "PULLING", word: "Pulling", state: "done", duration: "3.0 s", share: 75 },
      {
        phase: "UNPACKING",
        word: "Unpacking",
        state: "now",
        duration: "1.0 s",
        share: 25,
        since: at(3),
      },
      { phase: "BUILDING_EXT4", word: "Building ext4", state: "waiting", duration: "", share: 0 },
    ]);
    expect(steps).toHaveLength(9);
  });
  test("a failed job names the phase, the time and the reason", () => {
    const job = aJob({ status: "FAILED", error_message: "no space left.", ended_at: at(12) });
    expect(jobSentence(job, 0)).toBe("Failed at unpacking after 12 s: no space left.");
    const cancelled = { ...job, error_code: "job_cancelled" };
    expect(jobSentence(cancelled, 0)).toBe("Cancelled at unpacking after 12 s.");
    expect(phaseSteps(job, 0)[1]?.state).toBe("failed");
  });
});

describe("templates", () => {
  const partial = aTemplate({
    status: "PARTIALLY_READY",
    desired_nodes: ["node-a", "node-b"],
    replicas: [
      aReplica(),
      aReplica({
        node_id: "node-b",
        status: "FAILED",
        phase: "FAILED",
        last_error_phase: "SNAPSHOTTING",
        error_message: "disk full",
      }),
    ],
  });
  test("a partially ready one says which node failed, where and why", () => {
    expect(templateSentence(partial, undefined, 0)).toBe(
      "Partially ready: 1 of 2 nodes. node-b failed at snapshotting: disk full.",
    );
  });
  test("goal and actual differ where a node still holds what it should not", () => {
    const views = replicaViews(aTemplate({ desired_nodes: ["node-b"] }));
    expect(views.map(({ nodeId, goal, actual }) => [nodeId, goal, actual.word])).toEqual([
      ["node-b", "Ready", "Pending"],
      ["node-a", "Absent", "Ready"],
    ]);
  });
  test("deleting tells what goes and who is in the way", () => {
    const plan = deletePlan(partial, [aSandbox(), aSandbox({ template_id: "tpl-other" })]);
    expect(plan.users.map((box) => box.sandbox_id)).toEqual(["sb-1"]);
    expect(plan.effects[1]).toContain("2 nodes (node-a, node-b)");
  });
});

describe("words", () => {
  test("an unknown state is said to be unknown by its shape, never left out", () => {
    expect(status("BRAND_NEW")).toEqual({ word: "Brand new", shape: "unknown", tone: "idle" });
    expect(status("").word).toBe("Unknown");
  });
  test("a notice is one of ours or none", () => {
    expect(noticeText("job-cancelled")).toBe("The job was asked to stop.");
    expect(noticeText("<b>hello</b>")).toBeUndefined();
    expect(noticeText("constructor")).toBeUndefined();
  });
  test("a position in the stream holds the event and the log", () => {
    expect(parsePosition("ab.12~7")).toEqual({ event: "ab.12", log: 7 });
    expect(parsePosition("")).toEqual({ event: "", log: 0 });
    expect(parsePosition("ab.1~x")).toEqual({ event: "ab.1", log: 0 });
  });
});

describe("the form", () => {
  test("text fields become the request of the API", () => {
    const parsed = parseForm({
      source_image_ref: " busybox:1 ",
      writable_layer_size: "1Gi",
      display_name: "",
      registry_password: "",
      exposed_ports: "8080, 9000",
      probe_port: "8080",
      envs: "A=1\nB=x=y",
      command: "sh\n-c\nsleep 1",
    });
    expect(parsed).toMatchObject({
      request: {
        source_image_ref: "busybox:1",
        writable_layer_size: "1Gi",
        exposed_ports: [8080, 9000],
        container_overrides: {
          command: ["sh", "-c", "sleep 1"],
          envs: [
            { key: "A", value: "1" },
            { key: "B", value: "x=y" },
          ],
          probe: { port: 8080, path: "/health" },
        },
      },
    });
    expect("request" in parsed && "registry_password" in parsed.request).toBe(false);
  });
  test("what is wrong is said at its field", () => {
    const parsed = parseForm({ display_name: "Not Good", exposed_ports: "http", probe_port: "0" });
    expect("problems" in parsed && Object.keys(parsed.problems).sort()).toEqual([
      "display_name",
      "exposed_ports",
      "probe_port",
      "source_image_ref",
      "writable_layer_size",
    ]);
    expect(fieldOf("/container_overrides/probe/path")).toBe("probe_path");
    expect(fieldOf("/instance_type")).toBe("form");
  });
});

describe("submissions", () => {
  test("one key acts once, even twice at the same time; a failed one can be sent again", async () => {
    const submissions = createSubmissions(2);
    let runs = 0;
    const run = async () => `result ${++runs}`;
    const both = await Promise.all([submissions.once("k", run), submissions.once("k", run)]);
    expect(both).toEqual(["result 1", "result 1"]);
    await expect(submissions.once("f", () => Promise.reject(new Error("no")))).rejects.toThrow();
    expect(await submissions.once("f", run)).toBe("result 2");
    await submissions.once("l", run);
    expect(await submissions.once("k", run)).toBe("result 4");
  });
});
