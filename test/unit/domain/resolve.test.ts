import { describe, expect, test } from "vitest";
import {
  isAppError,
  type AppError,
  chooseReplica,
  mergeRequest,
  statusFromReplicas,
  type NodeFact,
  type ReplicaStatus,
  type SandboxRequest,
  type TemplateRecord,
} from "../../../src/domain/index.ts";

const node = (id: string, change: Partial<NodeFact> = {}): NodeFact => ({
  node_id: id,
  node_ip: `10.0.0.${id.length}`,
  address: "",
  instance_type: "cubebox",
  version: "1",
  started_at: "",
  healthy: true,
  drained: false,
  driver: "qemu",
  driver_detail: "",
  guest_image_version: "g1",
  agent_version: "a1",
  kernel_version: "k1",
  versions_extra: {},
  cpu_count: 1,
  memory_bytes: 0,
  storage: {
    usage_pct: 10,
    total_bytes: 0,
    free_bytes: 0,
    mode: "healthy",
    last_error: "",
    last_updated_at: 0,
  },
  ...change,
});
const replica = (id: string, change: Partial<ReplicaStatus> = {}): ReplicaStatus => ({
  node_id: id,
  node_ip: "",
  status: "READY",
  phase: "READY",
  guest_image_version: "g1",
  agent_version: "a1",
  kernel_version: "k0",
  ...change,
});
const template = { template_id: "tpl-1", status: "READY" } as TemplateRecord;
const choose = (
  replicas: ReplicaStatus[],
  nodes: NodeFact[],
  rest: { preferredNodeId?: string; scope?: string[] } = {},
) =>
  chooseReplica({
    template,
    replicas,
    nodes: new Map(nodes.map((n) => [n.node_id, n])),
    selfId: "b",
    ...rest,
  }).node_id;
const refusal = (work: () => unknown): AppError => {
  try {
    work();
  } catch (error) {
    if (isAppError(error)) return error;
  }
  throw new Error("was not refused");
};

describe("choice of a replica (design §8)", () => {
  test("this node's first, else the node with the smallest disk use", () => {
    const busy = node("c", { storage: { ...node("c").storage, usage_pct: 50 } });
    expect(choose([replica("a"), replica("b")], [node("a"), node("b")])).toBe("b");
    expect(choose([replica("c"), replica("a")], [busy, node("a")])).toBe("a");
  });
  test("row 93: FAILED replicas and unhealthy nodes are not used", () => {
    const failed = replica("b", { status: "FAILED", phase: "FAILED" });
    expect(choose([failed, replica("a")], [node("a"), node("b")])).toBe("a");
    const down = node("b", { healthy: false });
    expect(choose([replica("b"), replica("a")], [node("a"), down])).toBe("a");
  });
  test("row 95: all READY replicas stale names the nodes in order", () => {
    const old = { guest_image_version: "g0" };
    const error = refusal(() =>
      choose([replica("c", old), replica("a", old)], [node("a"), node("c")]),
    );
    expect(error.code).toBe("template_stale_needs_redo");
    expect(error.meta["nodes"]).toEqual(["a", "c"]);
    expect(error.message).toContain("[a, c]");
  });
  test("row 96: a preferred node that is not ready is no reason to take another", () => {
    const error = refusal(() => choose([replica("a")], [node("a")], { preferredNodeId: "z" }));
    expect(error.code).toBe("template_has_no_ready_replica");
    expect(error.message).toContain("node z");
  });
  test("a scope restricts the choice", () => {
    const all = [node("a"), node("b")];
    expect(choose([replica("a"), replica("b")], all, { scope: ["a"] })).toBe("a");
  });
});

describe("merge of requests (spec §6.6)", () => {
  const base: SandboxRequest = {
    annotations: { a: "template", b: "template" },
    labels: { l: "template" },
    volumes: [{ name: "rw" }],
    containers: [{ name: "one" }, { name: "two" }],
    network_type: "tap",
  };
  test("the request's annotations win, a missing container is taken whole", () => {
    const merged = mergeRequest(
      {
        annotations: { a: "request" },
        containers: [null, { name: "mine" }],
        volumes: [{ name: "v" }],
      },
      base,
    );
    expect(merged.annotations).toEqual({ a: "request", b: "template" });
    expect(merged.containers).toEqual([{ name: "one" }, { name: "mine" }]);
    expect(merged.volumes?.map((v) => v.name)).toEqual(["v", "rw"]);
    expect(merged.network_type).toBe("tap");
  });
  test("row 91: what a caller changes in the answer does not reach the template", () => {
    const merged = mergeRequest({}, base);
    (merged.containers ?? [])[0]!.name = "changed";
    expect(base.containers?.[0]?.name).toBe("one");
  });
});

describe("status of a template from its replicas (spec §1.1)", () => {
  test("no READY one is FAILED with the first error", () => {
    const failed = replica("a", { status: "FAILED", phase: "FAILED", error_message: "no disk" });
    expect(statusFromReplicas(["a"], [failed])).toMatchObject({
      status: "FAILED",
      error: "no disk",
    });
  });
  test("FIX: a node that never got the artifact counts as failed", () => {
    expect(statusFromReplicas(["a", "b"], [replica("a")])).toMatchObject({
      status: "PARTIALLY_READY",
      ready: 1,
      failed: 1,
    });
    expect(statusFromReplicas(["a"], [replica("a")]).status).toBe("READY");
  });
});
