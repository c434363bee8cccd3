/** Compat: rows 94, 95, 97 to 101 and 103 of spec §11, as pure rules; row 96 is in resolve.test. */
import { describe, expect, test } from "vitest";
import {
  adoptedBaseline,
  chooseReplica,
  effectiveCompat,
  evaluateCompat,
  getCompatMatrix,
  isAppError,
  keepBound,
  previewUpgrade,
  scanCompat,
  versionDeltas,
  type NodeFact,
  type ReplicaStatus,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { aNode } from "../../support/fake-http-service.ts";

const EXTRA = { qemu_version: "7.2", machine: "microvm", cpu_model: "cpu-1", accelerator: "kvm" };
const node = (id: string, change: Partial<NodeFact> = {}): NodeFact =>
  aNode({ node_id: id, node_ip: `ip-${id}`, ...change });
const replica = (id: string, change: Partial<ReplicaStatus> = {}): ReplicaStatus => ({
  node_id: id,
  node_ip: `ip-${id}`,
  status: "READY",
  phase: "READY",
  guest_image_version: "g1",
  agent_version: "a1",
  kernel_version: "k1",
  compat_status: "OK",
  compat_policy: "STRICT",
  ...change,
});
const template = (id: string, change: Partial<TemplateRecord> = {}): TemplateRecord => ({
  template_id: id,
  instance_type: "cubebox",
  version: "v2",
  kind: "template",
  status: "READY",
  generation: 0,
  desired_nodes: [],
  request: {},
  last_error: "",
  created_at: "",
  updated_at: "",
  ...change,
});
const entries = (held: Readonly<Record<string, readonly ReplicaStatus[]>>) =>
  Object.entries(held).flatMap(([id, list]) => list.map((value) => ({ id, value })));

describe("evaluation (spec §5.2)", () => {
  const bound = { guest_image_version: "g1", agent_version: "a1", kernel_version: "k1" };
  const now = node("a");

  test("row 97: given a kernel mismatch, then OK", () => {
    expect(evaluateCompat({ ...bound, kernel_version: "k0" }, now, "STRICT")).toBe("OK");
  });
  test("row 97: given a missing agent on either side, then UNKNOWN", () => {
    expect(evaluateCompat({ ...bound, agent_version: "" }, now, "STRICT")).toBe("UNKNOWN");
    expect(evaluateCompat(bound, node("a", { agent_version: "" }), "STRICT")).toBe("UNKNOWN");
    expect(evaluateCompat(bound, undefined, "STRICT")).toBe("UNKNOWN");
  });
  test("row 97: given GUEST_ONLY and an agent mismatch, then OK", () => {
    expect(evaluateCompat({ ...bound, agent_version: "a0" }, now, "GUEST_ONLY")).toBe("OK");
    expect(evaluateCompat({ ...bound, agent_version: "a0" }, now, "STRICT")).toBe("STALE");
  });
  test("row 97: given a guest mismatch and a missing agent, then STALE", () => {
    const both = { guest_image_version: "g0", agent_version: "" };
    expect(evaluateCompat(both, now, "STRICT")).toBe("STALE");
  });
  test("row 97: an agent mismatch wins over a missing guest image as well", () => {
    const both = { guest_image_version: "", agent_version: "a0" };
    expect(evaluateCompat(both, now, "STRICT")).toBe("STALE");
  });
  test.each(["Unknown", "UNKNOWN", " unknown ", "", "  "])(
    "row 98: given the version %j, then it is treated as missing",
    (version) => {
      expect(evaluateCompat({ ...bound, agent_version: version }, now, "STRICT")).toBe("UNKNOWN");
      const blank = node("a", { guest_image_version: version });
      expect(evaluateCompat(bound, blank, "STRICT")).toBe("UNKNOWN");
    },
  );

  describe("what the driver reports besides (design §9)", () => {
    const with_ = (extra: Record<string, string>) => ({ ...bound, versions_extra: extra });
    const host = node("a", { versions_extra: EXTRA });
    test.each(Object.keys(EXTRA))("under STRICT another %s is STALE", (name) => {
      expect(evaluateCompat(with_({ ...EXTRA, [name]: "other" }), host, "STRICT")).toBe("STALE");
    });
    test("under GUEST_ONLY it is not looked at", () => {
      expect(evaluateCompat(with_({ qemu_version: "6" }), host, "GUEST_ONLY")).toBe("OK");
    });
    test("what only one side reports neither is stale nor makes it unknown", () => {
      expect(evaluateCompat(with_({ firmware: "1" }), host, "STRICT")).toBe("OK");
      expect(evaluateCompat(with_({}), host, "STRICT")).toBe("OK");
      const blank = node("a", { versions_extra: { ...EXTRA, accelerator: "" } });
      expect(evaluateCompat(with_(EXTRA), blank, "STRICT")).toBe("OK");
    });
    test("a difference wins over a missing agent", () => {
      const old = { ...with_({ qemu_version: "6" }), agent_version: "" };
      expect(evaluateCompat(old, host, "STRICT")).toBe("STALE");
    });
  });

  test("deltas name what differs, what is only known on one side, and which one decides", () => {
    const old = { guest_image_version: "g0", agent_version: "a1", kernel_version: "k0" };
    const host = node("a", { versions_extra: { qemu_version: "7.2" } });
    expect(versionDeltas(old, host, "STRICT")).toEqual([
      { component: "guest_image", bound: "g0", current: "g1", is_stale: true },
      { component: "kernel", bound: "k0", current: "k1", is_stale: false },
      { component: "qemu_version", bound: "", current: "7.2", is_stale: false },
    ]);
    expect(versionDeltas(bound, now, "STRICT")).toEqual([]);
  });
});

describe("stored and live (spec §5.2, §5.3)", () => {
  const moved = replica("a", { guest_image_version: "g0", compat_status: "OK" });
  const choose = (nodes: NodeFact[], replicas = [moved]) => {
    try {
      const known = new Map(nodes.map((one) => [one.node_id, one]));
      return chooseReplica({ template: template("t"), replicas, nodes: known, selfId: "a" });
    } catch (error) {
      if (isAppError(error)) return error;
      throw error;
    }
  };

  test("row 94: given a replica stale live but stored OK and a healthy node, then not schedulable; an unhealthy node is judged by what is stored", () => {
    expect(effectiveCompat(moved, node("a"))).toBe("STALE");
    expect(choose([node("a")])).toMatchObject({ code: "template_stale_needs_redo" });
    const down = node("a", { healthy: false });
    expect(effectiveCompat(moved, down)).toBe("OK");
    expect(effectiveCompat({ ...moved, compat_status: "STALE" }, down)).toBe("STALE");
    expect(effectiveCompat({ ...moved, compat_status: undefined }, down)).toBe("UNKNOWN");
  });
  test("row 95: given all READY replicas stale, then the refusal lists their nodes sorted", () => {
    const all = ["c", "a", "b"].map((id) => ({ ...moved, node_id: id }));
    const refusal = choose([node("b"), node("c"), node("a")], all);
    expect(refusal).toMatchObject({
      code: "template_stale_needs_redo",
      meta: { template_id: "t", nodes: ["a", "b", "c"] },
    });
  });
  test("an UNKNOWN replica never blocks: legacy ones go on working", () => {
    const legacy = replica("a", { guest_image_version: "", agent_version: "" });
    expect(choose([node("a")], [legacy])).toMatchObject({ node_id: "a" });
  });
  test("row 99: given the scan of a node that is down, then OK becomes UNKNOWN and STALE stays", () => {
    for (const down of [node("a", { healthy: false }), undefined]) {
      expect(scanCompat(replica("a"), down)).toBe("UNKNOWN");
      expect(scanCompat(replica("a", { compat_status: "STALE" }), down)).toBe("STALE");
    }
    expect(scanCompat(replica("a", { compat_status: "STALE" }), node("a"))).toBe("OK");
  });
});

describe("adopting a baseline (spec §5.4)", () => {
  const legacy = replica("a", {
    guest_image_version: "",
    agent_version: "unknown",
    compat_status: "UNKNOWN",
  });
  test("row 100: given a STALE replica, then it is not adopted", () => {
    expect(adoptedBaseline(replica("a", { guest_image_version: "g0" }), node("a"))).toBe(undefined);
    const stored = { ...legacy, compat_status: "STALE" as const };
    expect(adoptedBaseline(stored, node("a"))).toBe(undefined);
  });
  test("row 100: given an UNKNOWN one and known versions of the node, then it binds them and is OK", () => {
    const host = node("a", { versions_extra: EXTRA });
    const adopted = adoptedBaseline(legacy, host);
    expect(adopted).toEqual({
      guest_image_version: "g1",
      agent_version: "a1",
      kernel_version: "k1",
      versions_extra: EXTRA,
      compat_status: "OK",
    });
    // The second time there is nothing to adopt.
    expect(adoptedBaseline({ ...legacy, ...adopted }, host)).toBe(undefined);
  });
  test.each([
    ["the node is down", node("a", { healthy: false }), legacy],
    ["the node's agent is unknown", node("a", { agent_version: "unknown" }), legacy],
    ["the node's guest image is unknown", node("a", { guest_image_version: "" }), legacy],
    ["the replica is not READY", node("a"), { ...legacy, status: "FAILED" as const }],
  ])("row 100: nothing is adopted when %s", (_, host, one) => {
    expect(adoptedBaseline(one, host)).toBe(undefined);
  });
});

describe("storing (spec §1.2)", () => {
  const stored = replica("a", { compat_checked_unix: 7, versions_extra: EXTRA });
  const failed: ReplicaStatus = {
    node_id: "a",
    node_ip: "",
    status: "FAILED",
    phase: "FAILED",
    error_message: "no holder",
  };
  test("row 103: given a replica without versions and status UNKNOWN, then the stored versions survive", () => {
    for (const incoming of [failed, { ...failed, compat_status: "UNKNOWN" as const }]) {
      expect(keepBound(stored, incoming)).toMatchObject({
        status: "FAILED",
        error_message: "no holder",
        guest_image_version: "g1",
        agent_version: "a1",
        kernel_version: "k1",
        versions_extra: EXTRA,
        compat_status: "OK",
        compat_policy: "STRICT",
        compat_checked_unix: 7,
      });
    }
  });
  test("row 103: given one with a version or a status, then it replaces them", () => {
    const newer = replica("a", { guest_image_version: "g2" });
    expect(keepBound(stored, newer)).toEqual(newer);
    const judged = { ...failed, compat_status: "STALE" as const };
    expect(keepBound(stored, judged)).toEqual(judged);
    expect(keepBound(undefined, failed)).toEqual(failed);
  });
});

describe("matrix (spec §5.5)", () => {
  const [a, b, c] = [node("a"), node("b"), node("c")];
  const statuses = (input: Parameters<typeof getCompatMatrix>[0]) =>
    getCompatMatrix(input).templates.map((row) => [
      row.template_id,
      row.overall,
      row.nodes.map((cell) => `${cell.node_id}:${cell.compat_status}`).join(" "),
    ]);

  test("row 101: given a template without replica on a healthy node, then the cell and the row are MISSING unless another cell is STALE", () => {
    const old = { guest_image_version: "g0" };
    const input = {
      templates: [template("t2"), template("t1")],
      nodes: [c, a, b],
      replicas: entries({
        t1: [replica("b"), replica("c")],
        t2: [replica("b"), replica("c", old)],
      }),
    };
    expect(statuses(input)).toEqual([
      ["t1", "MISSING", "a:MISSING b:OK c:OK"],
      ["t2", "STALE", "a:MISSING b:OK c:STALE"],
    ]);
    expect(getCompatMatrix(input).summary).toEqual({
      stale_templates: 1,
      stale_replicas: 1,
      affected_nodes: 1,
      missing_replicas: 2,
      unknown_replicas: 0,
    });
  });
  test("the row is the first UNKNOWN or MISSING in the order of nodes; without nodes it is OK", () => {
    const unknown = replica("b", { agent_version: "" });
    const failed = replica("a", { status: "FAILED", phase: "FAILED" });
    const rows = { templates: [template("t")], replicas: entries({ t: [unknown, failed] }) };
    expect(statuses({ ...rows, nodes: [a, b] })).toEqual([["t", "MISSING", "a:MISSING b:UNKNOWN"]]);
    expect(statuses({ ...rows, nodes: [b, c] })).toEqual([["t", "UNKNOWN", "b:UNKNOWN c:MISSING"]]);
    expect(statuses({ ...rows, nodes: [] })).toEqual([["t", "OK", ""]]);
  });
  test("row 97: given another kernel, then the cell is OK and names both", () => {
    const one = replica("a", { kernel_version: "k0" });
    const [row] = getCompatMatrix({
      templates: [template("t")],
      nodes: [a],
      replicas: entries({ t: [one] }),
    }).templates;
    expect(row?.nodes[0]).toMatchObject({
      compat_status: "OK",
      bound_kernel_version: "k0",
      current_kernel_version: "k1",
      deltas: [{ component: "kernel", bound: "k0", current: "k1", is_stale: false }],
    });
  });
  test("row 99: a node that is down is UNKNOWN where it holds a replica, STALE where it was, and MISSING nowhere", () => {
    const down = node("a", { healthy: false });
    const input = {
      templates: [template("t1"), template("t2"), template("t3")],
      nodes: [down],
      replicas: entries({
        t1: [replica("a")],
        t2: [replica("a", { compat_status: "STALE" })],
      }),
    };
    expect(statuses(input)).toEqual([
      ["t1", "UNKNOWN", "a:UNKNOWN"],
      ["t2", "STALE", "a:STALE"],
      ["t3", "OK", ""],
    ]);
  });
  test("a node that says nothing of its versions is judged by what is stored", () => {
    const silent = node("a", { guest_image_version: "", agent_version: "" });
    const rows = { templates: [template("t")], nodes: [silent] };
    for (const compat_status of ["OK", "STALE", "UNKNOWN"] as const) {
      const replicas = entries({ t: [replica("a", { compat_status })] });
      expect(statuses({ ...rows, replicas })[0]?.[1]).toBe(compat_status);
    }
  });
  test("a page has the rows after an id, of one status when asked; the summary counts all", () => {
    const templates = ["t4", "t2", "t3", "t1"].map((id) => template(id));
    const replicas = entries({ t1: [replica("a")], t3: [replica("a")], t4: [replica("a")] });
    const input = { templates, nodes: [a], replicas };
    const ids = (page: Parameters<typeof getCompatMatrix>[1]) => {
      const { templates: rows, hasMore, summary } = getCompatMatrix(input, page);
      expect(summary.missing_replicas).toBe(1);
      return [rows.map((row) => row.template_id).join(" "), hasMore];
    };
    expect(ids({ limit: 2 })).toEqual(["t1 t2", true]);
    expect(ids({ limit: 2, after: "t2" })).toEqual(["t3 t4", false]);
    expect(ids({ status: "OK", limit: 2 })).toEqual(["t1 t3", true]);
    expect(ids({ status: "MISSING", limit: 2 })).toEqual(["t2", false]);
    expect(ids({ template_id: "t3", limit: 2 })).toEqual(["t3", false]);
  });
  test("nodes of another instance type and outside of the scope are not in the row", () => {
    const other = node("b", { instance_type: "other" });
    const scoped = template("t", { distribution_scope: ["ip-a"] });
    const input = { templates: [scoped], nodes: [a, other, c], replicas: [] };
    expect(statuses(input)).toEqual([["t", "MISSING", "a:MISSING"]]);
  });
});

describe("preview of an upgrade", () => {
  const old = { guest_image_version: "g0" };
  const input = {
    templates: [template("t1"), template("t2"), template("t3")],
    nodes: [node("a"), node("b"), node("c", { guest_image_version: "g2" })],
    replicas: entries({
      t1: [replica("a"), replica("b")],
      t2: [replica("a"), replica("c", { guest_image_version: "g2" })],
      t3: [replica("a", old), replica("b", { agent_version: "" })],
    }),
  };
  test("names the templates, the replicas and the nodes that would be stale, and what could start nowhere", () => {
    expect(previewUpgrade(input, { guestImage: "g2" })).toMatchObject({
      summary: {
        templates: 3,
        replicas: 4,
        nodes: 2,
        unusable_templates: 2,
        already_stale: 1,
        healed: 0,
        unknown: 0,
      },
      templates: [
        { template_id: "t1", nodes: ["a", "b"], is_unusable: true },
        { template_id: "t2", nodes: ["a"], is_unusable: false },
        { template_id: "t3", nodes: ["b"], is_unusable: true },
      ],
      nodes: [
        { node_id: "a", replicas: 2 },
        { node_id: "b", replicas: 2 },
      ],
      notes: [],
    });
  });
  test("going back to the versions of a stale replica heals it", () => {
    const preview = previewUpgrade(input, { guestImage: "g0" });
    expect(preview.summary).toMatchObject({ healed: 1, already_stale: 0, replicas: 5 });
  });
  test("the kernel alone breaks nothing, and it says why", () => {
    const preview = previewUpgrade(input, { kernel: "k9" });
    expect(preview.summary).toMatchObject({ replicas: 0, templates: 0 });
    expect(preview.notes).toHaveLength(1);
  });
  test("another agent breaks STRICT replicas and not GUEST_ONLY ones", () => {
    const replicas = entries({
      t1: [replica("a"), replica("b", { compat_policy: "GUEST_ONLY" })],
    });
    const preview = previewUpgrade({ ...input, replicas }, { agent: "a2" });
    expect(preview.templates).toEqual([
      { template_id: "t1", display_name: "", nodes: ["a"], is_unusable: false },
    ]);
  });
});
