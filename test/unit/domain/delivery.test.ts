import { describe, expect, it } from "vitest";
import {
  abandonedDelivery,
  askedNodes,
  assertNoOther,
  assertSameRequest,
  deliverSnapshotSchema,
  deliveryError,
  deliveryProgress,
  planDelivery,
  snapshotOperation,
  snapshotStatus,
  type DeliverySight,
  type NodeFact,
  type ReplicaStatus,
} from "../../../src/domain/index.ts";
import { aSnapshot, aSnapshotJob } from "../../support/fake-snapshots.ts";

const versions = { guest_image_version: "g1", agent_version: "a1", kernel_version: "k1" };
const MACHINE = { machine: "q35", qemu: "9.1" };

const node = (node_id: string, more: Partial<NodeFact> = {}): NodeFact =>
  ({
    node_id,
    node_ip: `10.0.0.${node_id.charCodeAt(0)}`,
    healthy: true,
    drained: false,
    driver: "qemu",
    ...versions,
    versions_extra: MACHINE,
    storage: { mode: "healthy", usage_pct: 10, total_bytes: 1e9, free_bytes: 1e8 },
    ...more,
  }) as NodeFact;
const replica = (node_id: string, more: Partial<ReplicaStatus> = {}): ReplicaStatus => ({
  node_id,
  node_ip: "",
  status: "READY",
  phase: "READY",
  ...versions,
  versions_extra: MACHINE,
  ...more,
});
const sight = (more: Partial<DeliverySight> = {}): DeliverySight => ({
  snapshot: aSnapshot("snap-1", { rootfs_size_bytes_at_snapshot: 1_000 }),
  replicas: [replica("b")],
  nodes: [node("a"), node("b"), node("c")],
  selfId: "a",
  rootfsBytes: () => 500,
  ...more,
});
const refusal = (of: Partial<DeliverySight>, asked: readonly string[] = ["c"]): unknown => {
  try {
    return planDelivery(sight(of), asked);
  } catch (error) {
    return error;
  }
};

describe("who gets it and who carries it out", () => {
  it("is carried out by a node that has it: this one when it does", () => {
    expect(planDelivery(sight(), ["c"])).toEqual({ carrier: "b", targets: ["c"], skipped: [] });
    const held = { replicas: [replica("b"), replica("a")] };
    expect(planDelivery(sight(held), ["c"]).carrier).toBe("a");
    expect(planDelivery(sight({ ...held, selfId: "c" }), ["c"]).carrier).toBe("a");
    expect(planDelivery(sight({ ...held, selfId: "b" }), ["c"]).carrier).toBe("b");
  });

  it("takes ids and addresses, each node once, also those that have it", () => {
    const asked = askedNodes({ nodes: ["c", "10.0.0.99", "b", "c"] });
    expect(asked).toEqual(["10.0.0.99", "b", "c"]);
    expect(planDelivery(sight(), asked).targets).toEqual(["b", "c"]);
    expect(askedNodes({ nodes: "ALL" })).toEqual([]);
    expect(deliverSnapshotSchema.safeParse({ nodes: [] }).success).toBe(false);
    expect(deliverSnapshotSchema.safeParse({ nodes: "all" }).success).toBe(false);
  });

  it("of all nodes leaves out those that cannot have it, and says why", () => {
    const nodes = [
      node("a"),
      node("b"),
      node("c", { drained: true }),
      node("d", { healthy: false }),
      node("e", { driver: "rootfs" }),
    ];
    const { targets, skipped } = planDelivery(sight({ nodes }), []);
    expect(targets).toEqual(["a", "b"]);
    expect(skipped.map(({ node_id, reason }) => `${node_id}: ${reason}`)).toEqual([
      "c: node c is drained",
      "d: node d is down",
      "e: it cannot go on at e: it was frozen by the driver qemu, and rootfs runs there",
    ]);
    const nobody = [node("b"), node("c", { drained: true })];
    expect(refusal({ nodes: nobody }, [])).toMatchObject({ code: "invalid_request" });
    expect(planDelivery(sight({ nodes: [node("b")] }), []).targets).toEqual(["b"]);
  });
});

describe("what is refused before a byte is copied", () => {
  it.each([
    ["a template", { snapshot: aSnapshot("t", { kind: "template" }) }, "snapshot_not_found"],
    ["one that is gone", { snapshot: undefined }, "snapshot_not_found"],
    ["one that goes", { snapshot: aSnapshot("s", { status: "DELETING" }) }, "snapshot_deleting"],
    ["one that is made", { snapshot: aSnapshot("s", { status: "CREATING" }) }, "wrong_status"],
    ["one that nobody has", { replicas: [] }, "template_has_no_ready_replica"],
    [
      "one whose nodes are down",
      { nodes: [node("a"), node("b", { healthy: false }), node("c")] },
      "template_has_no_ready_replica",
    ],
    ["a node that is no member", { nodes: [node("b")] }, "node_not_found"],
    [
      "a node that is down",
      { nodes: [node("b"), node("c", { healthy: false })] },
      "peer_unreachable",
    ],
    [
      "a node that is drained",
      { nodes: [node("b"), node("c", { drained: true })] },
      "invalid_request",
    ],
    [
      "another driver",
      { nodes: [node("b"), node("c", { driver: "exec" })] },
      "snapshot_incompatible",
    ],
    [
      "another guest",
      { nodes: [node("b"), node("c", { guest_image_version: "g2" })] },
      "snapshot_incompatible",
    ],
    [
      "another machine",
      { nodes: [node("b"), node("c", { versions_extra: { machine: "microvm" } })] },
      "snapshot_incompatible",
    ],
    [
      "versions that nobody knows",
      { replicas: [replica("b", { agent_version: "" })] },
      "snapshot_incompatible",
    ],
  ] as const)("%s", (_, more, code) => {
    expect(refusal(more)).toMatchObject({ code });
  });

  it("a disk that takes nothing, or has too little room for it and its root filesystem", () => {
    const storage = { ...node("c").storage, mode: "reject", usage_pct: 90 } as const;
    expect(refusal({ nodes: [node("b"), node("c", { storage })] })).toMatchObject({
      code: "storage_not_writable",
      meta: { node_id: "c" },
    });
    const small = (free_bytes: number) => ({ ...node("c").storage, free_bytes });
    const nodes = (free: number) => [node("b"), node("c", { storage: small(free) })];
    expect(refusal({ nodes: nodes(1_499) })).toMatchObject({
      code: "disk_space_low",
      meta: { needed: 1_500, available: 1_499 },
    });
    expect(refusal({ nodes: nodes(1_500) })).toMatchObject({ targets: ["c"] });
    expect(refusal({ nodes: nodes(1_000), rootfsBytes: () => 0 })).toMatchObject({
      targets: ["c"],
    });
  });

  it("names each node and why, when it is more than one", () => {
    const nodes = [node("b"), node("c", { driver: "exec" }), node("d", { healthy: false })];
    expect(refusal({ nodes }, ["c", "d"])).toMatchObject({
      code: "snapshot_incompatible",
      message: expect.stringMatching(/at c: .*exec runs there; node d is down/) as string,
      meta: { nodes: [{ node_id: "c" }, { node_id: "d", reason: "node d is down" }] },
    });
  });

  it("but not a node that has not told its versions yet: it looks itself", () => {
    const silent = node("c", { guest_image_version: "", agent_version: "" });
    expect(planDelivery(sight({ nodes: [node("b"), silent] }), ["c"]).targets).toEqual(["c"]);
  });

  it("what is written of it counts for more than what the node says that has it", () => {
    const frozen = {
      ...{ generation: 1, template_id: "tpl-1", driver: "qemu", ...versions },
      ...{ guest_image_version: "g0", versions_extra: {}, description: {}, files: [] },
    };
    expect(refusal({ snapshot: aSnapshot("snap-1", { frozen }) })).toMatchObject({
      code: "snapshot_incompatible",
      message:
        "it cannot go on at c: it needs guest_image g0 and not g1, machine (unknown) and not q35, qemu (unknown) and not 9.1",
    });
  });
});

describe("a delivery that is under way", () => {
  const job = aSnapshotJob({
    ...{ operation: "SNAPSHOT_DELIVER", job_id: "op-2", status: "RUNNING", sandbox_id: "" },
    ...{ target_nodes: ["a", "b", "c", "d", "e"], skipped_nodes: [] },
  });

  it("waits for nodes that are up and have not failed in it", () => {
    const failed = { status: "FAILED", phase: "FAILED", error_message: "no space" } as const;
    const replicas = [
      replica("a"),
      replica("b", { ...failed, last_job_id: "op-2" }),
      replica("c", { ...failed, last_job_id: "op-1" }),
    ];
    const nodes = new Map(["a", "b", "c", "d"].map((id) => [id, { healthy: id !== "d" }]));
    const progress = deliveryProgress(job, replicas, (id) => nodes.get(id));
    expect(progress.ready).toEqual(["a"]);
    expect(progress.waiting).toEqual(["c"]);
    expect(progress.failed.map(({ node_id }) => node_id)).toEqual(["b", "d", "e"]);
    expect(deliveryError(progress)).toMatchObject({
      code: "snapshot_not_delivered",
      message: expect.stringMatching(
        /b: no space; d: it went down.*; e: it is no member/,
      ) as string,
    });
    expect(deliveryError({ ready: ["a"], failed: [], waiting: [] })).toBeUndefined();
  });

  it("stands in the way of another one of it, and of nothing else", () => {
    const other = { ...job, job_id: "op-3", status: "PENDING" } as const;
    expect(() => assertNoOther([job], other)).toThrow("still bound to operation op-2");
    expect(() => assertNoOther([job], { ...other, resource_id: "snap-2" })).not.toThrow();
    const rollback = { ...other, operation: "SNAPSHOT_ROLLBACK", sandbox_id: "sb-1" } as const;
    expect(() => assertNoOther([job], rollback)).not.toThrow();
    expect(() => assertNoOther([{ ...rollback, status: "RUNNING" }], job)).not.toThrow();
  });

  it("is the same request for the same nodes only", () => {
    const asked = { ...job, asked_nodes: ["a", "b"] };
    expect(() => assertSameRequest(asked, { ...asked })).not.toThrow();
    for (const asked_nodes of [["a"], [], ["a", "b", "c"]]) {
      expect(() => assertSameRequest(asked, { ...asked, asked_nodes })).toThrow("used before");
    }
  });

  it("shows the nodes and those that were left out", () => {
    const skipped_nodes = [{ node_id: "f", reason: "node f is down" }];
    expect(snapshotOperation({ ...job, skipped_nodes })).toMatchObject({
      operation: "DELIVER",
      nodes: ["a", "b", "c", "d", "e"],
      skipped: skipped_nodes,
    });
    expect(snapshotOperation(aSnapshotJob())).not.toHaveProperty("nodes");
  });

  it("is ended by others when its node cannot", () => {
    const at = { isUp: false, leftMs: 1_000 };
    expect(abandonedDelivery(job, at)).toBeUndefined();
    expect(abandonedDelivery(job, { ...at, isUp: true, leftMs: 0 })).toBeUndefined();
    expect(abandonedDelivery(job, { ...at, leftMs: 0 })?.code).toBe("job_deadline_exceeded");
    const cancelled = { ...job, cancel_requested: true };
    expect(abandonedDelivery(cancelled, at)?.code).toBe("job_cancelled");
    expect(abandonedDelivery(cancelled, { ...at, isUp: true })).toBeUndefined();
    const ended = { ...job, status: "READY" } as const;
    expect(abandonedDelivery(ended, { ...at, leftMs: 0 })).toBeUndefined();
  });
});

describe("the status of a snapshot", () => {
  const failed = { status: "FAILED", phase: "FAILED", error_message: "no space" } as const;

  it("is READY as long as one node has it, whatever becomes of other copies", () => {
    const under = replica("c", { status: "FAILED", phase: "DISTRIBUTING" });
    expect(snapshotStatus([replica("a"), under, replica("b", failed)])).toEqual({
      ...{ status: "READY", ready: 1, error: "" },
    });
  });

  it("is FAILED with a reason when nobody has it any more", () => {
    expect(snapshotStatus([replica("b", failed)])).toMatchObject({
      ...{ status: "FAILED", error: "no space" },
    });
    expect(snapshotStatus([])).toMatchObject({ status: "FAILED", error: "no node has its files" });
  });
});
