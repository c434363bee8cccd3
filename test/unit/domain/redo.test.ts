import { describe, expect, test } from "vitest";
import {
  applyRedo,
  assertRedoable,
  attemptAt,
  giveUpRedo,
  isCounted,
  nextRedoGeneration,
  redoModeOf,
  redoTargets,
  resumePhaseOf,
  wantedGeneration,
  type JobPhase,
  type RedoRequest,
  type ReplicaStatus,
} from "../../../src/domain/index.ts";
import { templateValue } from "../../support/storage.ts";

const replica = (node: string, change: Partial<ReplicaStatus> = {}): ReplicaStatus => ({
  node_id: node,
  node_ip: "",
  status: "READY",
  phase: "READY",
  generation: 1,
  ...change,
});
const failed = (node: string, change: Partial<ReplicaStatus> = {}) =>
  replica(node, { status: "FAILED", phase: "FAILED", ...change });

describe("modes", () => {
  const modes: [RedoRequest, string][] = [
    [{}, "ALL"],
    [{ distribution_scope: ["a"] }, "NODES"],
    [{ failed_only: true }, "FAILED_ONLY"],
    [{ distribution_scope: ["a"], failed_only: true }, "FAILED_NODES"],
    [{ redo_mode: "FAILED_NODES", distribution_scope: ["a"] }, "FAILED_NODES"],
  ];
  test.each(modes)("%j is %s", (request, mode) => expect(redoModeOf(request)).toBe(mode));
  const wrong: RedoRequest[] = [
    { redo_mode: "NODES" },
    { redo_mode: "ALL", distribution_scope: ["a"] },
    { redo_mode: "ALL", failed_only: true },
  ];
  test.each(wrong)("%j does not go together", (request) => {
    expect(() => redoModeOf(request)).toThrow(expect.objectContaining({ code: "invalid_request" }));
  });
});

describe("targets", () => {
  const replicas = [
    replica("a"),
    failed("b"),
    replica("c", { redo: { generation: 2, phase: "FAILED" } }),
    replica("d", { cleanup_required: true }),
  ];
  test("ALL and NODES take what they are given, FAILED_* only what has failed", () => {
    const nodes = ["d", "c", "b", "a", "new"];
    expect(redoTargets("ALL", nodes, replicas)).toEqual(["a", "b", "c", "d", "new"]);
    expect(redoTargets("FAILED_ONLY", nodes, replicas)).toEqual(["b", "c", "d"]);
    expect(redoTargets("FAILED_NODES", ["a", "b"], replicas)).toEqual(["b"]);
  });
  test("row 70: given failed_only and no failed replicas, then no_failed_template_replicas", () => {
    const none = () => redoTargets("FAILED_ONLY", ["a"], [replica("a")]);
    expect(none).toThrow(expect.objectContaining({ code: "no_failed_template_replicas" }));
  });
});

describe("where it goes on", () => {
  test("row 71: given the latest job died in PULLING, then redo is refused with the explanatory text", () => {
    const latest = { operation: "CREATE", phase: "PULLING", job_id: "j" } as const;
    expect(() => assertRedoable(latest)).toThrow(
      /before source image has been pulled successfully/,
    );
    expect(() => assertRedoable({ ...latest, phase: "UNPACKING" })).not.toThrow();
    expect(() => assertRedoable({ ...latest, operation: "REDO" })).not.toThrow();
  });
  test.each([
    ["PULLING", "BUILDING_EXT4"],
    ["BUILDING_EXT4", "BUILDING_EXT4"],
    ["GENERATING_JSON", "BUILDING_EXT4"],
    ["DISTRIBUTING", "DISTRIBUTING"],
    ["CREATING_TEMPLATE", "SNAPSHOTTING"],
    ["REGISTERING", "SNAPSHOTTING"],
    ["READY", "SNAPSHOTTING"],
  ] satisfies [JobPhase, JobPhase][])("row 72: latest phase %s resumes at %s", (phase, resume) => {
    expect(resumePhaseOf({ phase }, [failed("a", { last_error_phase: "SNAPSHOTTING" })])).toBe(
      resume,
    );
  });
  test("row 72: READY with a replica that failed distributing resumes at DISTRIBUTING", () => {
    const lost = failed("b", { last_error_phase: "DISTRIBUTING" });
    const snapped = failed("a", { last_error_phase: "SNAPSHOTTING" });
    expect(resumePhaseOf({ phase: "READY" }, [snapped, lost])).toBe("DISTRIBUTING");
    const kept = replica("a", {
      redo: { generation: 2, phase: "FAILED", last_error_phase: "DISTRIBUTING" },
    });
    expect(resumePhaseOf({ phase: "READY" }, [kept])).toBe("DISTRIBUTING");
    expect(resumePhaseOf(undefined, [])).toBe("SNAPSHOTTING");
  });
});

describe("the record", () => {
  const template = { ...templateValue("tpl-1"), desired_nodes: ["a", "b"] };
  const plan = { jobId: "j2", mode: "NODES", targets: ["b", "c"], generation: 2 } as const;

  test("NODES asks its nodes for a new generation, and the others for what they have", () => {
    const asked = applyRedo(template, plan, "now");
    expect(["a", "b", "c"].map((node) => wantedGeneration(asked, node))).toEqual([1, 2, 2]);
    expect(asked).toMatchObject({ desired_nodes: ["a", "b", "c"], job_id: "j2", status: "READY" });
    expect(applyRedo(asked, plan, "now")).toEqual(asked);
    expect(nextRedoGeneration(asked, [])).toBe(3);
    // A node that failed with a generation does not try that one again.
    const tried = { node_id: "b", node_ip: "", status: "FAILED", phase: "FAILED" } as const;
    expect(nextRedoGeneration(asked, [{ ...tried, generation: 5 }])).toBe(6);
    const redo = { generation: 7, phase: "FAILED", error_message: "" } as const;
    expect(nextRedoGeneration(asked, [{ ...tried, generation: 1, redo }])).toBe(8);
  });
  test("ALL is for those that are away too, and ends what single nodes were asked for", () => {
    const before = applyRedo(template, plan, "now");
    const asked = applyRedo(before, { ...plan, mode: "ALL", targets: ["a"], generation: 3 }, "now");
    expect(asked.generations).toBeUndefined();
    expect(["a", "b", "c"].map((node) => wantedGeneration(asked, node))).toEqual([3, 3, 3]);
  });
  test("one that has FAILED is PENDING while it is made anew", () => {
    const asked = applyRedo({ ...template, status: "FAILED", last_error: "x" }, plan, "now");
    expect(asked).toMatchObject({ status: "PENDING", last_error: "" });
  });
  test("a redo that came to nothing asks each node for what it still has", () => {
    const asked = applyRedo(template, plan, "now");
    const kept = giveUpRedo(asked, [replica("a"), replica("b"), failed("c")], 2);
    expect(["a", "b", "c"].map((node) => wantedGeneration(kept, node))).toEqual([1, 1, 2]);
    expect(giveUpRedo(template, [replica("a")], undefined)).toBe(template);
  });
  test("what serves counts, whatever is being made beside it", () => {
    const asked = applyRedo(template, plan, "now");
    const old = replica("b", { redo: { generation: 2, phase: "SNAPSHOTTING" } });
    expect(isCounted(asked, old)).toBe(true);
    expect(attemptAt(old, 2)?.phase).toBe("SNAPSHOTTING");
    expect(attemptAt(old, 3)).toBeUndefined();
    expect(isCounted(asked, failed("b"))).toBe(false);
  });
});
