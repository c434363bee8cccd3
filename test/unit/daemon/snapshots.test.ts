import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AppError, CLUSTER } from "../../../src/domain/index.ts";
import { CONTEXT, NODE, startNode, startWithSandbox } from "../../support/snapshot-node.ts";
import { waitFor } from "../../support/storage.ts";

type Setup = Awaited<ReturnType<typeof startWithSandbox>>;
let setup: Setup;
let node: Setup["node"];

beforeEach(async () => {
  setup = await startWithSandbox();
  node = setup.node;
});

afterEach(async () => {
  await node.worker.stop();
  await node.replicas.stop();
  await rm(setup.dir, { recursive: true, force: true });
});

const create = (request_id = "r1", more = {}) =>
  node.snapshots.create("sb-1", { request_id, ...more }, CONTEXT);
const rollback = (snapshot_id: string, request_id = "back") =>
  node.snapshots.rollback("sb-1", { snapshot_id, request_id }, CONTEXT);
const record = (id: string) => setup.catalog.get(CLUSTER, "template", id)?.value;
const theOne = () =>
  [...node.records.list("template")].find(({ kind }) => kind === "snapshot")?.template_id ?? "";

/** The process dies with what it is at; another starts over the same disk and the same guests. */
async function crash(): Promise<void> {
  // What was under way hangs for ever: nothing of it comes to an end any more.
  setup.fake.die();
  void node.worker.stop();
  void node.replicas.stop();
  node = await startNode(setup.catalog, setup.fake, setup.dir);
}

const never = () => new Promise<void>(() => undefined);

describe("a snapshot of a running sandbox", () => {
  it("is READY with what a sandbox needs to start on it, and the sandbox runs on", async () => {
    const done = await create("r1", { display_name: "first" });
    expect(done).toMatchObject({ operation: "CREATE", status: "READY", progress: 100 });
    expect(node.queries.snapshot(done.snapshot_id, { includeRequest: true })).toMatchObject({
      status: "READY",
      display_name: "first",
      origin_sandbox_id: "sb-1",
      origin_node_id: NODE,
      parent_id: "tpl-1",
      rootfs_size_bytes_at_snapshot: 4_096,
      replicas: [{ node_id: NODE, status: "READY" }],
      create_request: { template_id: done.snapshot_id, labels: { is: "spec" } },
    });
    expect(record(done.snapshot_id)?.artifact_id).toBe("rfs-1");
    expect(node.queries.snapshotNodes(done.snapshot_id)).toEqual([NODE]);
    expect(node.sandboxes.running("sb-1").info.snapshot_id).toBeUndefined();
  });

  it("row 26: the same request again is answered with the first result", async () => {
    const first = await create();
    expect(await create()).toEqual(first);
    expect(setup.fake.calls).toBe(1);
    await node.sandboxes.remove("sb-1");
    expect(await create()).toEqual(first);
  });

  it("row 28: a request that is under way is waited for, a FAILED one has its stored error", async () => {
    let go: () => void = () => undefined;
    setup.fake.before = () => new Promise((resolve) => (go = resolve));
    const both = [create(), create()];
    await waitFor(() => setup.fake.calls === 1);
    go();
    const [one, two] = await Promise.all(both);
    expect(two).toEqual(one);
    setup.fake.before = () => Promise.reject(new AppError("snapshot_failed", "the disk said no"));
    await expect(create("r2")).rejects.toMatchObject({ message: "the disk said no" });
    setup.fake.before = () => Promise.resolve();
    await expect(create("r2")).rejects.toMatchObject({
      code: "snapshot_failed",
      message: "the disk said no",
    });
    expect(setup.fake.calls).toBe(2);
  });

  it("is refused while another of the sandbox is under way", async () => {
    setup.fake.before = never;
    void create().catch(() => undefined);
    await waitFor(() => setup.fake.calls === 1);
    await expect(create("r2")).rejects.toMatchObject({ code: "snapshot_operation_in_progress" });
  });

  it("leaves nothing when it fails, and the sandbox as it was", async () => {
    setup.fake.after = () => Promise.reject(new AppError("snapshot_failed", "no space"));
    await expect(create()).rejects.toThrow("no space");
    expect(record(theOne())).toMatchObject({ status: "FAILED", last_error: "no space" });
    expect(node.facts.get("replica", theOne())).toBeUndefined();
    expect(node.sandboxes.running("sb-1").info.status).toBe("RUNNING");
    setup.fake.after = () => Promise.resolve();
    expect((await create("r2")).status).toBe("READY");
  });

  it("is refused on a disk that takes nothing new, with node and mode", async () => {
    Object.assign(node.node.storage, { mode: "reject", usage_pct: 90 });
    await expect(create()).rejects.toMatchObject({ code: "storage_not_writable" });
    await expect(create()).rejects.toThrow(/node a .*reject/);
    expect([...node.records.list("job")]).toEqual([]);
  });

  it("is refused on a disk that has filled since the node told of it, and leaves nothing", async () => {
    node.disk.usedBytes = 0.99 * node.disk.totalBytes;
    await expect(create()).rejects.toMatchObject({ code: "storage_not_writable" });
    expect(theOne()).toBe("");
    expect([...setup.fake.files]).toEqual([]);
  });

  it("holds room for all of the guest's memory before it pauses it", async () => {
    setup.fake.name = "qemu";
    await crash();
    Object.assign(node.disk, { totalBytes: 4 * 1024 ** 3, usedBytes: 2.1 * 1024 ** 3 });
    await expect(create()).rejects.toMatchObject({ code: "disk_space_low" });
    expect(setup.fake.calls).toBe(0);
    node.disk.usedBytes = 1.8 * 1024 ** 3;
    expect((await create("r2")).status).toBe("READY");
  });

  it("row 32: goes on when the caller leaves", async () => {
    let go: () => void = () => undefined;
    setup.fake.before = () => new Promise((resolve) => (go = resolve));
    const caller = new AbortController();
    const context = { ...CONTEXT, signal: caller.signal };
    const asked = node.snapshots.create("sb-1", { request_id: "r1" }, context);
    await waitFor(() => setup.fake.calls === 1);
    caller.abort(new Error("gone"));
    await expect(asked).rejects.toThrow("gone");
    go();
    await waitFor(() => record(theOne())?.status === "READY");
  });

  it("row 114: is shown as an operation; a template's job is none", async () => {
    const { operation_id: id } = await create();
    expect(node.queries.snapshotOperation(id)).toMatchObject({ operation: "CREATE" });
    const job = setup.catalog.get(CLUSTER, "job", id)!.value!;
    const other = {
      ...job,
      job_id: "j-1",
      operation: "CREATE",
      resource_type: "template",
    } as const;
    await node.records.update("job", "j-1", () => other);
    for (const none of ["j-1", "j-none"]) {
      expect(() => node.queries.snapshotOperation(none)).toThrow(
        expect.objectContaining({ code: "snapshot_operation_not_found" }) as Error,
      );
    }
  });

  it("of a sandbox that nobody has is refused", async () => {
    const asked = node.snapshots.create("sb-none", {}, CONTEXT);
    await expect(asked).rejects.toMatchObject({ code: "sandbox_not_found" });
  });
});

describe("going back to a snapshot", () => {
  it("puts the sandbox on it with the next generation, and moves its ref", async () => {
    const { snapshot_id: one } = await create("r1");
    const { snapshot_id: two } = await create("r2");
    expect((await rollback(one, "b1")).status).toBe("READY");
    expect(node.sandboxes.running("sb-1").info.snapshot_id).toBe(one);
    await rollback(two, "b2");
    expect(node.refs.active()).toMatchObject([{ snapshot_id: two, sandbox_gen: 2 }]);
    expect(node.refs.count("tpl-1")).toBe(0);
  });

  it("row 109: is refused to a foreign snapshot; generations go on from the jobs of the past", async () => {
    const { snapshot_id } = await create();
    const foreign = { ...record(snapshot_id)!, origin_sandbox_id: "sb-2" };
    await node.records.update("template", snapshot_id, () => foreign);
    await expect(rollback(snapshot_id)).rejects.toMatchObject({ code: "snapshot_foreign" });
    await node.records.update("template", snapshot_id, () => ({
      ...foreign,
      origin_sandbox_id: "sb-1",
    }));
    await rollback(snapshot_id, "b1");
    const [job] = [...node.records.list("job")].filter((one) => one.request_id === "b1");
    await node.records.update("job", job!.job_id, (current) => ({ ...current!, sandbox_gen: 5 }));
    await rollback(snapshot_id, "b2");
    expect(node.refs.active()).toMatchObject([{ sandbox_gen: 6 }]);
  });

  it("that fails leaves the sandbox on what it ran on, with one ref of it", async () => {
    const { snapshot_id } = await create();
    setup.fake.before = () => Promise.reject(new AppError("restore_failed", "it did not start"));
    await expect(rollback(snapshot_id)).rejects.toMatchObject({ code: "restore_failed" });
    expect(node.sandboxes.running("sb-1").info).not.toHaveProperty("snapshot_id");
    expect(node.refs.active()).toMatchObject([{ snapshot_id: "tpl-1", sandbox_id: "sb-1" }]);
  });

  it("whose job goes with its snapshot says that there is no such snapshot", async () => {
    const { snapshot_id } = await create();
    setup.fake.before = never;
    const going = rollback(snapshot_id);
    void going.catch(() => undefined);
    const isOf = (job: { operation: string }) => job.operation === "SNAPSHOT_ROLLBACK";
    await waitFor(() => [...node.records.list("job")].some(isOf));
    for (const { job_id } of [...node.records.list("job")].filter(isOf)) {
      await node.records.update("job", job_id, () => null);
    }
    await expect(going).rejects.toMatchObject({ code: "snapshot_not_found" });
  });

  it("holds both while it is under way", async () => {
    const { snapshot_id } = await create();
    setup.fake.before = never;
    void rollback(snapshot_id).catch(() => undefined);
    await waitFor(() => setup.fake.calls === 2);
    await node.sandboxes.refresh();
    expect([node.refs.count(snapshot_id), node.refs.count("tpl-1")]).toEqual([1, 1]);
  });
});

it("keeps row, ref and generation of a rollback whose job cannot be written after the switch", async () => {
  const { snapshot_id: id } = await create();
  const update = node.records.update.bind(node.records);
  let silent = true;
  node.records.update = (kind, key, change) =>
    update(kind, key, (current) => {
      const next = change(current);
      const phase = (next as { phase?: string } | null | undefined)?.phase;
      if (silent && phase === "ROLLBACK_RECOVERING") throw new AppError("no_quorum", "silence");
      return next;
    });
  const asked = rollback(id);
  await waitFor(() => node.sandboxes.running("sb-1").info.snapshot_id === id);
  // The ref of its own that a rollback has on its target goes a moment later.
  await waitFor(() => node.refs.active().length === 1);
  await waitFor(() => node.refs.active().every((ref) => ref.snapshot_id === id));
  expect(node.refs.active()).toMatchObject([{ sandbox_id: "sb-1", sandbox_gen: 1 }]);
  expect(node.refs.nextGeneration("sb-1")).toBe(2);
  silent = false;
  expect((await asked).status).toBe("READY");
});

it("forgets a start that failed while nothing could be written, as soon as it can", async () => {
  const releaseBySandbox = node.refs.releaseBySandbox.bind(node.refs);
  node.refs.releaseBySandbox = () => Promise.reject(new AppError("catalog_degraded", "full"));
  const snapshot = { ...node.replicas.snapshot((await create()).snapshot_id)!, dir: "broken" };
  const start = node.sandboxes.run({
    request: { template_id: "tpl-1", sandbox_id: "sb-2" },
    templateId: "tpl-1",
    effective: { template_id: "tpl-1" },
    snapshot,
  });
  await expect(start).rejects.toThrow("it does not start");
  expect(node.sandboxes.list()).toHaveLength(2);
  await node.sandboxes.refresh();
  expect(node.sandboxes.list()).toHaveLength(2);
  node.refs.releaseBySandbox = releaseBySandbox;
  await node.sandboxes.refresh();
  expect(node.sandboxes.list().map(({ sandbox_id }) => sandbox_id)).toEqual(["sb-1"]);
  expect(node.refs.active()).toMatchObject([{ sandbox_id: "sb-1" }]);
});

describe("after a crash", () => {
  const ended = (requestId: string) =>
    waitFor(() =>
      [...node.records.list("job")].some(
        (job) => job.request_id === requestId && ["READY", "FAILED"].includes(job.status),
      ),
    );

  it("before the snapshot was whole, the operation has FAILED and left nothing", async () => {
    setup.fake.before = never;
    void create().catch(() => undefined);
    await waitFor(() => setup.fake.calls === 1);
    const id = theOne();
    await crash();
    await ended("r1");
    expect(record(id)?.status).toBe("FAILED");
    expect(node.facts.get("replica", id)).toBeUndefined();
    setup.fake.before = () => Promise.resolve();
    await expect(create()).rejects.toThrow("cut short");
    expect((await create("r2")).status).toBe("READY");
  });

  it("after its files and its replica were there, the snapshot is READY", async () => {
    const { snapshot_id: id, operation_id } = await create();
    const job = setup.catalog.get(CLUSTER, "job", operation_id)!.value!;
    await node.worker.stop();
    await node.records.update("template", id, (now) => ({ ...now!, status: "CREATING" }));
    await node.records.update("job", operation_id, () => ({
      ...job,
      status: "RUNNING",
      phase: "REGISTERING",
    }));
    await crash();
    await ended("r1");
    expect(record(id)?.status).toBe("READY");
    expect(setup.fake.calls).toBe(1);
  });

  it("before the switch, a rollback has FAILED; after it, it is READY and the ref is right", async () => {
    const { snapshot_id: id } = await create();
    setup.fake.before = never;
    void rollback(id, "b1").catch(() => undefined);
    await waitFor(() => setup.fake.calls === 2);
    await crash();
    await ended("b1");
    expect(node.sandboxes.running("sb-1").info.snapshot_id).toBeUndefined();
    expect(node.refs.active()).toMatchObject([{ snapshot_id: "tpl-1" }]);

    setup.fake.before = () => Promise.resolve();
    setup.fake.after = never;
    void rollback(id, "b2").catch(() => undefined);
    await waitFor(() => setup.fake.sandboxes.get("sb-1")?.snapshotId === id);
    await crash();
    await ended("b2");
    expect((await rollback(id, "b2")).status).toBe("READY");
    expect(node.sandboxes.running("sb-1").info.snapshot_id).toBe(id);
    expect(node.refs.active()).toMatchObject([{ snapshot_id: id }]);
  });

  it("an operation that had not begun is done", async () => {
    await node.worker.stop();
    void create().catch(() => undefined);
    await waitFor(() => [...node.records.list("job")].length === 1);
    await crash();
    await ended("r1");
    expect(record(theOne())?.status).toBe("READY");
  });

  it("row 32: an operation has 15 minutes, a crash included; then it has FAILED and left nothing", async () => {
    await node.worker.stop();
    void create().catch(() => undefined);
    await waitFor(() => [...node.records.list("job")].length === 1);
    const [job] = [...node.records.list("job")];
    expect(Date.parse(job!.deadline_at) - Date.parse(job!.created_at)).toBeCloseTo(900_000, -3);
    const at = job!.created_at;
    await node.records.update("job", job!.job_id, (now) => ({ ...now!, deadline_at: at }));
    setup.fake.before = never;
    await crash();
    await ended("r1");
    const late = setup.catalog.get(CLUSTER, "job", job!.job_id)?.value;
    expect(late).toMatchObject({ status: "FAILED", error_code: "job_deadline_exceeded" });
    expect([...setup.fake.files]).toEqual([]);
    expect((await setup.fake.asDriver().list()).map(({ sandboxId }) => sandboxId)).toEqual([
      "sb-1",
    ]);
  });

  it("with another driver, what was frozen is kept, and is READY again with its own", async () => {
    const { snapshot_id: id } = await create();
    const dir = join(setup.dir, "templates", id);
    await mkdir(dir, { recursive: true });
    setup.fake.name = "qemu";
    await crash();
    await waitFor(() => node.facts.get("replica", id)?.status === "FAILED");
    expect(node.facts.get("replica", id)?.error_message).toMatch(/driver rootfs/);
    await node.records.update("template", id, (now) => ({ ...now!, status: "FAILED" }));
    expect(setup.fake.files.has(dir)).toBe(true);
    expect(existsSync(dir)).toBe(true);
    setup.fake.name = "rootfs";
    await crash();
    await waitFor(() => record(id)?.status === "READY");
    expect(node.queries.snapshotNodes(id)).toEqual([NODE]);
    expect((await rollback(id)).status).toBe("READY");
  });

  it("row 116: a snapshot whose files are gone is told of as FAILED, with what to clean", async () => {
    const { snapshot_id: id } = await create();
    await node.worker.stop();
    setup.fake.files.delete(join(setup.dir, "templates", id));
    await crash();
    await waitFor(() => node.facts.get("replica", id)?.status === "FAILED");
    expect(node.facts.get("replica", id)).toMatchObject({ cleanup_required: true });
    expect(() => node.queries.snapshotNodes(id)).toThrow("no ready replica");
  });
});

describe("deleting a snapshot", () => {
  it("row 106: is answered READY at 100 percent; the same request again finds nothing", async () => {
    const { snapshot_id: id } = await create();
    const removed = await node.snapshots.remove(id, { request_id: "d1" }, CONTEXT);
    expect(removed).toMatchObject({ operation: "DELETE", status: "READY", progress: 100 });
    const again = node.snapshots.remove(id, { request_id: "d1" }, CONTEXT);
    await expect(again).rejects.toMatchObject({ code: "snapshot_not_found" });
  });

  it("twice at once finds nothing the second time", async () => {
    const { snapshot_id: id } = await create();
    const both = ["d1", "d2"].map((request_id) =>
      node.snapshots.remove(id, { request_id }, CONTEXT),
    );
    const [first, second] = await Promise.allSettled(both);
    expect(first?.status).toBe("fulfilled");
    expect(second).toMatchObject({ reason: { code: "snapshot_not_found" } });
  });

  it("refuses the id of a template, and a request id that was used for another request", async () => {
    const wrong = node.snapshots.remove("tpl-1", {}, CONTEXT);
    await expect(wrong).rejects.toMatchObject({ code: "snapshot_not_found" });
    const { snapshot_id: id } = await create("r1");
    const used = node.snapshots.remove(id, { request_id: "r1" }, CONTEXT);
    await expect(used).rejects.toMatchObject({ code: "request_id_conflict" });
  });
});
