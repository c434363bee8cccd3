import { describe, expect, it } from "vitest";
import {
  assertMayRollback,
  assertNoOther,
  assertSameRequest,
  lineage,
  listSnapshots,
  readyNodes,
  snapshotInfo,
  snapshotOperation,
  type NodeFact,
  type ReplicaStatus,
} from "../../../src/domain/index.ts";
import { aSnapshot, aSnapshotJob } from "../../support/fake-snapshots.ts";

const ids = (page: { items: readonly { template_id: string }[] }) =>
  page.items.map((one) => one.template_id);

describe("the list of snapshots", () => {
  const later = "2026-01-03T00:00:00.000Z";
  const records = [
    aSnapshot("snap-a", { display_name: "Before" }),
    aSnapshot("snap-b", { updated_at: later, origin_sandbox_id: "sb-2" }),
    aSnapshot("snap-c", { status: "DELETING" }),
    aSnapshot("tpl-d", { kind: "template" }),
  ];

  it("has snapshots only, the one that changed last first", () => {
    expect(ids(listSnapshots(records, {}))).toEqual(["snap-b", "snap-a"]);
  });

  it("filters by id, sandbox, name and status, whatever the case", () => {
    expect(ids(listSnapshots(records, { snapshot_id: "SNAP-A" }))).toEqual(["snap-a"]);
    expect(ids(listSnapshots(records, { sandbox_id: "sb-2" }))).toEqual(["snap-b"]);
    expect(ids(listSnapshots(records, { name: "before" }))).toEqual(["snap-a"]);
    expect(ids(listSnapshots(records, { status: "ready", name: "" }))).toEqual([
      "snap-b",
      "snap-a",
    ]);
  });

  it("row 113: next_token x or -1 is invalid, beyond the end is an empty page, 500 is 100", () => {
    const many = Array.from({ length: 150 }, (_, i) =>
      aSnapshot(`snap-${String(i).padStart(3, "0")}`),
    );
    for (const next_token of ["x", "-1"]) {
      expect(() => listSnapshots(many, { next_token })).toThrow("invalid next_token");
    }
    expect(listSnapshots(many, { next_token: "150" })).toEqual({ items: [] });
    expect(listSnapshots(many, { limit: 500 }).items).toHaveLength(100);
    expect(listSnapshots(many, {}).items).toHaveLength(20);
    const second = listSnapshots(many, { limit: 100, next_token: "100" });
    expect(second.items).toHaveLength(50);
    expect(second.next_token).toBeUndefined();
    expect(listSnapshots(many, { limit: 100 }).next_token).toBe("100");
  });

  it("row 113: DELETING is hidden unless it is asked for", () => {
    expect(ids(listSnapshots(records, { snapshot_id: "snap-c" }))).toEqual([]);
    expect(ids(listSnapshots(records, { status: "deleting" }))).toEqual(["snap-c"]);
  });
});

describe("a snapshot's view", () => {
  it("has the request only when it is asked for", () => {
    const refs = { count: 2, sandboxes: ["sb-7", "sb-8"] };
    expect(snapshotInfo(aSnapshot("snap-a"), [], refs)).toMatchObject({
      snapshot_id: "snap-a",
      origin_sandbox_id: "sb-1",
      parent_id: "tpl-1",
      runtime_ref_count: 2,
      runtime_ref_sandboxes: ["sb-7", "sb-8"],
    });
    expect(snapshotInfo(aSnapshot("snap-a"), [], refs)).not.toHaveProperty("create_request");
    const whole = snapshotInfo(aSnapshot("snap-a"), [], refs, { includeRequest: true });
    expect(whole.create_request).toEqual({ template_id: "snap-a" });
  });

  it("row 114: a job of a template is no operation on a snapshot", () => {
    expect(snapshotOperation(aSnapshotJob({ operation: "CREATE" }))).toBeUndefined();
    expect(snapshotOperation(aSnapshotJob({ operation: "SNAPSHOT_ROLLBACK" }))).toMatchObject({
      operation_id: "op-1",
      operation: "ROLLBACK",
      status: "READY",
      retry_of_job_id: "",
    });
  });
});

describe("requests with one id", () => {
  const wanted = aSnapshotJob({ status: "PENDING", resource_id: "snap-new" });

  it("row 26: are equal when only the made-up id of the snapshot differs", () => {
    expect(() => assertSameRequest(aSnapshotJob(), wanted)).not.toThrow();
  });

  it.each([
    ["another sandbox", { sandbox_id: "sb-2" }],
    ["another name", { display_name: "other" }],
    ["row 27: another operation", { operation: "SNAPSHOT_DELETE" as const }],
  ])("are refused for %s", (_, change) => {
    expect(() => assertSameRequest(aSnapshotJob(change), wanted)).toThrow(
      expect.objectContaining({
        code: "request_id_conflict",
        meta: { operation_id: "op-1", operation: aSnapshotJob(change).operation },
      }),
    );
  });

  it("are refused for a rollback to another snapshot", () => {
    const rollback = { operation: "SNAPSHOT_ROLLBACK" } as const;
    const earlier = aSnapshotJob(rollback);
    expect(() => assertSameRequest(earlier, aSnapshotJob(rollback))).not.toThrow();
    expect(() =>
      assertSameRequest(earlier, aSnapshotJob({ ...rollback, resource_id: "snap-2" })),
    ).toThrow("used before");
  });
});

describe("one operation at a time", () => {
  const wanted = aSnapshotJob({ job_id: "op-2", resource_id: "snap-2" });
  const active = { status: "RUNNING" } as const;

  it.each([
    ["the sandbox", aSnapshotJob(active), true],
    ["the snapshot", aSnapshotJob({ ...active, sandbox_id: "sb-9", resource_id: "snap-2" }), true],
    ["neither", aSnapshotJob({ ...active, sandbox_id: "sb-9" }), false],
    ["the sandbox, but has ended", aSnapshotJob(), false],
    ["the sandbox, but is this one", aSnapshotJob({ ...active, job_id: "op-2" }), false],
    ["the sandbox, but makes a template", aSnapshotJob({ ...active, operation: "REDO" }), false],
  ])("one that is at %s", (_, job, isRefused) => {
    const attempt = () => assertNoOther([job], wanted);
    if (isRefused) expect(attempt).toThrow("still bound to operation op-1");
    else expect(attempt).not.toThrow();
  });
});

describe("going back", () => {
  const sandbox = { sandbox_id: "sb-1", node_id: "node-a" };
  const here: ReplicaStatus = { node_id: "node-a", node_ip: "", status: "READY", phase: "READY" };
  const attempt = (more: Parameters<typeof aSnapshot>[1], replicas = [here]) =>
    assertMayRollback(aSnapshot("snap-1", more), sandbox, replicas);

  it("is allowed to a READY snapshot of the sandbox itself, which is on its node", () => {
    expect(attempt({}).template_id).toBe("snap-1");
  });

  it.each([
    ["a template", { kind: "template" as const }, "snapshot_not_found"],
    ["one that is being deleted", { status: "DELETING" as const }, "snapshot_deleting"],
    ["one that is being made", { status: "CREATING" as const }, "wrong_status"],
    ["row 109: one of another sandbox", { origin_sandbox_id: "sb-2" }, "snapshot_foreign"],
  ])("is refused to %s", (_, more, code) => {
    expect(() => attempt(more)).toThrow(expect.objectContaining({ code }));
  });

  it("is refused without a ready replica on the sandbox's node", () => {
    const code = "template_has_no_ready_replica";
    expect(() => attempt({}, [])).toThrow(expect.objectContaining({ code }));
    expect(() => attempt({}, [{ ...here, node_id: "node-b" }])).toThrow(
      expect.objectContaining({ code }),
    );
    expect(() => attempt({}, [{ ...here, status: "FAILED" }])).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe("nodes that a snapshot can be started on", () => {
  const node = (node_id: string, healthy = true) => ({ node_id, healthy }) as NodeFact;
  const replica = (node_id: string): ReplicaStatus => ({
    node_id,
    node_ip: "",
    status: "READY",
    phase: "READY",
  });
  const attempt = (nodes: readonly NodeFact[]) =>
    readyNodes({
      template: aSnapshot("snap-1"),
      replicas: [replica("b"), replica("a")],
      nodes: new Map(nodes.map((one) => [one.node_id, one])),
      selfId: "a",
    });

  it("are those that are up and hold it, or none is an error", () => {
    expect(attempt([node("a"), node("b"), node("c")])).toEqual(["a", "b"]);
    expect(attempt([node("a", false), node("b")])).toEqual(["b"]);
    expect(() => attempt([node("c")])).toThrow("no ready replica");
  });
});

describe("lineage", () => {
  const at = (day: number) => ({ created_at: `2026-01-0${day}T00:00:00.000Z` });
  const records = [
    aSnapshot("snap-b", { parent_id: "tpl-1", ...at(3) }),
    aSnapshot("snap-a", { parent_id: "tpl-1", ...at(2) }),
    aSnapshot("snap-c", { parent_id: "snap-a", ...at(4) }),
    aSnapshot("tpl-1", { kind: "template", parent_id: "", ...at(1) }),
    aSnapshot("tpl-2", { kind: "template", parent_id: "" }),
    aSnapshot("snap-d", { parent_id: "tpl-gone" }),
  ];
  const shape = (id?: string) => lineage(records, id).map((one) => [one.depth, one.id, one.kind]);

  it("has parents before children, the oldest child first", () => {
    expect(shape("snap-c")).toEqual([
      [0, "tpl-1", "template"],
      [1, "snap-a", "snapshot"],
      [2, "snap-c", "snapshot"],
      [1, "snap-b", "snapshot"],
    ]);
  });

  it("shows a parent that was deleted, and no template without snapshots unless asked for", () => {
    const ids = shape().map(([, id]) => id);
    expect(ids).toEqual(["tpl-1", "snap-a", "snap-c", "snap-b", "tpl-gone", "snap-d"]);
    expect(shape("snap-d")[0]).toEqual([0, "tpl-gone", "gone"]);
    expect(shape("tpl-2")).toEqual([[0, "tpl-2", "template"]]);
  });

  it("ends when records name each other as parents", () => {
    const circle = [
      aSnapshot("snap-x", { parent_id: "snap-y" }),
      aSnapshot("snap-y", { parent_id: "snap-x" }),
    ];
    expect(lineage(circle, "snap-x").length).toBeLessThanOrEqual(2);
  });
});
