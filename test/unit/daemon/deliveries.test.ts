/** Delivering a snapshot, at the node that has it; the other one is what it says of itself. */
import { rm } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { deliverSnapshot } from "../../../src/daemon/deliveries.ts";
import { AppError, type NodeFact, type ReplicaStatus } from "../../../src/domain/index.ts";
import { realClock } from "../../support/real-clock.ts";
import { CONTEXT, NODE, startNode, startWithSandbox } from "../../support/snapshot-node.ts";
import { waitFor } from "../../support/storage.ts";

const VERSIONS = { guest_image_version: "g", agent_version: "a", kernel_version: "k" };
const STORAGE = { mode: "healthy", usage_pct: 10, total_bytes: 1e9, free_bytes: 1e9 };

type Setup = Awaited<ReturnType<typeof startWithSandbox>>;
let setup: Setup;
let node: Setup["node"];
let snapshotId: string;
let versions = 0;

const factOf = (node_id: string): NodeFact =>
  ({
    ...{ node_id, node_ip: "", healthy: true, drained: false, driver: "rootfs" },
    ...{ ...VERSIONS, versions_extra: {}, storage: STORAGE },
  }) as unknown as NodeFact;

beforeEach(async () => {
  setup = await startWithSandbox();
  node = setup.node;
  Object.assign(node.node, factOf(NODE));
  node.others.push(factOf("b"));
  const made = await node.snapshots.create("sb-1", { request_id: "made" }, CONTEXT);
  snapshotId = made.snapshot_id;
});

afterEach(async () => {
  await node.worker.stop();
  await node.replicas.stop();
  await rm(setup.dir, { recursive: true, force: true });
});

const parts = () => ({ ...node, catalog: setup.catalog, clock: realClock });
const deliver = (request_id = "d1", nodes = ["b"]) =>
  deliverSnapshot(parts(), snapshotId, { nodes, request_id }, CONTEXT);
const record = () => node.records.get("template", snapshotId);
const fileId = () => `${snapshotId}.memory`;
const jobOf = (request_id: string) =>
  [...node.records.list("job")].find((job) => job.request_id === request_id);
/** What the other node says of its copy. */
async function tell(change: Partial<ReplicaStatus>): Promise<void> {
  const value: ReplicaStatus = {
    ...{ node_id: "b", node_ip: "", status: "FAILED", phase: "DISTRIBUTING", generation: 1 },
    ...{ last_job_id: record()?.job_id ?? "", ...VERSIONS },
    ...change,
  };
  const entry = { owner: "b", kind: "replica", id: snapshotId, version: ++versions } as const;
  await setup.catalog.merge([{ ...entry, value }]);
}
const isWanted = () => record()?.desired_nodes.includes("b") === true;
const READY = { status: "READY", phase: "READY" } as const;

/** The process dies with what it is at; another starts over the same disk and the same guests. */
async function crash(): Promise<void> {
  setup.fake.die();
  void node.worker.stop();
  void node.replicas.stop();
  node = await startNode(setup.catalog, setup.fake, setup.dir);
  Object.assign(node.node, factOf(NODE));
  node.others.push(factOf("b"));
}

describe("a delivery", () => {
  it("makes the files artifacts, says who shall hold them, and ends when he does", async () => {
    const asked = deliver();
    await waitFor(isWanted);
    expect(record()).toMatchObject({
      status: "READY",
      desired_nodes: [NODE, "b"],
      distribution_scope: [NODE, "b"],
      job_id: jobOf("d1")?.job_id,
      frozen: {
        ...{ generation: 1, template_id: "tpl-1", driver: "rootfs", ...VERSIONS },
        files: [{ name: "memory", artifact_id: fileId() }],
      },
    });
    expect(node.records.get("artifact", fileId())).toMatchObject({ status: "READY" });
    expect(node.store.find(fileId())).toBeDefined();
    expect(node.facts.get("holding", fileId())).toMatchObject({ complete: true });
    await expect(deliver("d2")).rejects.toMatchObject({ code: "snapshot_operation_in_progress" });
    await tell(READY);
    const done = await asked;
    expect(done).toMatchObject({ operation: "DELIVER", status: "READY", nodes: ["b"] });
    expect(jobOf("d1")).toMatchObject({ ready_node_count: 1, failed_node_count: 0 });
    expect(await deliver()).toEqual(done);
    // What is published is not read again.
    setup.fake.exporting = () => Promise.reject(new Error("it was read twice"));
    expect((await deliver("d3")).status).toBe("READY");
  });

  it("that a node fails says which and why, keeps it wanted, and waits for its next try", async () => {
    const asked = deliver();
    await waitFor(isWanted);
    await tell({ phase: "FAILED", error_message: "no space" });
    await expect(asked).rejects.toMatchObject({
      code: "snapshot_not_delivered",
      message: expect.stringContaining("b: no space") as string,
    });
    expect(record()?.status).toBe("READY");
    expect(isWanted()).toBe(true);
    const again = deliver("d2");
    await waitFor(() => jobOf("d2")?.phase === "DISTRIBUTING");
    await tell(READY);
    expect((await again).status).toBe("READY");
  });

  it("that is cancelled takes back what no node has got", async () => {
    const asked = deliver();
    await waitFor(() => jobOf("d1")?.phase === "DISTRIBUTING");
    const id = jobOf("d1")?.job_id ?? "";
    await node.records.update("job", id, (job) => ({ ...job!, cancel_requested: true }));
    await expect(asked).rejects.toMatchObject({ code: "job_cancelled" });
    expect(record()).toMatchObject({ desired_nodes: [NODE], distribution_scope: [NODE] });
  });

  it("that fails before its files are named leaves none of them", async () => {
    const update = node.records.update.bind(node.records);
    node.records.update = (kind, key, change) =>
      update(kind, key, (current) => {
        const next = change(current);
        const isNamed = (next as { frozen?: unknown } | null | undefined)?.frozen !== undefined;
        if (kind === "template" && isNamed) throw new AppError("snapshot_deleting", "it goes");
        return next;
      });
    await expect(deliver()).rejects.toMatchObject({ code: "snapshot_deleting" });
    expect(node.store.find(fileId())).toBeUndefined();
    expect(node.records.get("artifact", fileId())).toBeUndefined();
    expect(record()?.desired_nodes).toEqual([NODE]);
  });

  it("is refused of a snapshot that is being deleted", async () => {
    await node.records.update("template", snapshotId, (now) => ({ ...now!, status: "DELETING" }));
    await expect(deliver()).rejects.toMatchObject({ code: "snapshot_deleting" });
    expect(jobOf("d1")).toBeUndefined();
  });
});

describe("after a crash", () => {
  it.each(["while the files are read", "while a node copies them"])(
    "%s, the delivery goes on",
    async (when) => {
      const isReading = when.includes("read");
      let reads = 0;
      setup.fake.exporting = () => {
        reads++;
        return isReading && reads === 1 ? new Promise(() => undefined) : Promise.resolve();
      };
      void deliver().catch(() => undefined);
      await waitFor(() => (isReading ? reads === 1 : jobOf("d1")?.phase === "DISTRIBUTING"));
      await crash();
      await waitFor(isWanted);
      await tell(READY);
      await waitFor(() => jobOf("d1")?.status === "READY");
      expect(reads).toBe(isReading ? 2 : 1);
    },
  );
});
