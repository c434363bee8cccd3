import { describe, expect, it } from "vitest";
import {
  acquireRows,
  nextGeneration,
  refFromSandboxData,
  refreshRows,
  type RefContext,
  type RuntimeRef,
} from "../../../src/domain/index.ts";

const NOW = "2026-11-21T00:00:00.000Z";

const context = (over: Partial<RefContext> = {}): RefContext => {
  let id = 100;
  const nextId = () => ++id;
  return { nodeId: "a", nodeIp: "10.0.0.1", source: "runtime", now: NOW, nextId, ...over };
};

const made = (snapshot_id: string, sandbox_id: string, over: Partial<RuntimeRef> = {}) => ({
  ...acquireRows([], { snapshot_id, sandbox_id }, context()).made,
  ...over,
});

describe("acquiring", () => {
  it("fills in binding, generation, time and place", () => {
    expect(made("snap-1", "sb-1")).toMatchObject({
      node_id: "a",
      node_ip: "10.0.0.1",
      binding_type: "memory_backing",
      sandbox_gen: 0,
      status: "ACTIVE",
      attached_at: NOW,
      last_seen_at: NOW,
    });
  });

  it("row 107: given a sandbox that switches, then its old ref is released as switched", () => {
    const old = made("snap-1", "sb-1", { id: 7 });
    const other = made("snap-1", "sb-1", { id: 8, binding_type: "disk" });
    const request = { snapshot_id: "snap-2", sandbox_id: "sb-1" };
    const { made: next, released } = acquireRows([old, other], request, context());
    expect(next.snapshot_id).toBe("snap-2");
    expect(released).toEqual([
      {
        ...old,
        status: "RELEASED",
        release_reason: "switched runtime ref",
        released_at: NOW,
      },
    ]);
  });
});

describe("what a runtime observed", () => {
  it("row 108: given a list without the sandbox, then its ref is released", () => {
    const rows = refreshRows([made("snap-1", "sb-1", { id: 1 })], [], context());
    expect(rows).toMatchObject([
      { id: 1, status: "RELEASED", release_reason: "runtime ref not observed on node" },
    ]);
  });

  it("keeps what is seen, clears its error and never lowers its generation", () => {
    const ref = made("snap-1", "sb-1", { id: 1, last_error: "no answer", sandbox_gen: 4 });
    const seen = { snapshot_id: "snap-1", sandbox_id: "sb-1", sandbox_gen: 3 };
    const later = "2026-11-21T01:00:00.000Z";
    expect(refreshRows([ref], [seen], context({ now: later }))).toEqual([
      { ...ref, last_error: "", last_seen_at: later },
    ]);
  });

  it("releases a ref to another snapshot and makes the one that is seen", () => {
    const ref = made("snap-1", "sb-1", { id: 1 });
    const rows = refreshRows([ref], [{ snapshot_id: "snap-2", sandbox_id: "sb-1" }], context());
    expect(rows).toMatchObject([
      { id: 1, status: "RELEASED", release_reason: "reconciled runtime ref" },
      { snapshot_id: "snap-2", sandbox_id: "sb-1", status: "ACTIVE" },
    ]);
  });

  it("passes over rows with a blank id, and over refs of another source", () => {
    const driven = made("snap-1", "sb-1", { source: "driver" });
    expect(refreshRows([driven], [{ snapshot_id: "", sandbox_id: "sb-2" }], context())).toEqual([]);
  });
});

it("row 109: given generations 3 and 5, then the next is 6; none, then 1", () => {
  expect(nextGeneration([3, 5])).toBe(6);
  expect(nextGeneration([])).toBe(1);
});

describe("refs from a sandbox's data", () => {
  const of = (annotations?: Record<string, string>) =>
    refFromSandboxData({
      sandbox_id: "sb-1",
      ...(annotations === undefined ? {} : { annotations }),
    });

  it("needs the annotation that names the snapshot", () => {
    expect(of()).toBeUndefined();
    expect(of({ "cube.master.runtime.snapshot.id": "  " })).toBeUndefined();
  });

  it("leaves out a time that does not read", () => {
    const id = { "cube.master.runtime.snapshot.id": "snap-1" };
    const at = "cube.master.runtime.snapshot.attached_at";
    expect(of({ ...id, [at]: "yesterday" })).toEqual({
      snapshot_id: "snap-1",
      sandbox_id: "sb-1",
    });
    expect(of({ ...id, [at]: "2026-11-21T00:00:00.123456789Z" })?.attached_at).toBe(
      "2026-11-21T00:00:00.123456789Z",
    );
  });
});
