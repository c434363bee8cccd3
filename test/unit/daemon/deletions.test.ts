/** Deletion against everything that may come in between, over a catalog in memory. */
import { randomUUID } from "node:crypto";
import { beforeEach, expect, it } from "vitest";
import { createDeletions, type DeletionParts } from "../../../src/daemon/deletions.ts";
import { createFacts, type Records } from "../../../src/daemon/records.ts";
import { openRuntimeRefs, type RuntimeRefs } from "../../../src/daemon/runtime-refs.ts";
import {
  AppError,
  CLUSTER,
  type JobRecord,
  type Random,
  type TemplateInfo,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { memoryRecords } from "../../support/records.ts";
import {
  imageBytes,
  manifestOf,
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  sidecarOf,
  templateValue,
} from "../../support/storage.ts";

const ID = "tpl-1";
const random: Random = { uuid: randomUUID, bytes: (length) => new Uint8Array(length) };
let catalog: OpenedCatalog;
let records: Records;
let refs: RuntimeRefs;
let up: Set<string>;
/** Comes in between: called ahead of each change of a record. */
let between: (kind: string, id: string) => Promise<void> | void;
let cancelled: string[];
let released: string[];

beforeEach(async () => {
  between = () => undefined;
  up = new Set(["a", "b"]);
  cancelled = [];
  released = [];
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  records = memoryRecords(catalog, (kind, id) => between(kind, id));
  const clock = manualClock();
  const facts = createFacts(catalog, clock, "a");
  const log = recordedLog();
  refs = await openRuntimeRefs({ catalog, records, facts, clock, log, nodeIp: "10.0.0.1" });
});

const job = (change: Partial<JobRecord> = {}): JobRecord => ({
  job_id: "j1",
  template_id: ID,
  request_id: "r1",
  resource_type: "template",
  resource_id: ID,
  attempt_no: 1,
  operation: "CREATE",
  instance_type: "cubebox",
  status: "RUNNING",
  phase: "PULLING",
  progress: 0,
  error_message: "",
  expected_node_count: 0,
  ready_node_count: 0,
  failed_node_count: 0,
  runs: 0,
  phases: [],
  deadline_at: "",
  created_at: "",
  updated_at: "",
  ...change,
});
const put = (change: Partial<TemplateRecord> = {}) =>
  records.update("template", ID, () => ({ ...templateValue(ID), ...change }));
const putJob = (change: Partial<JobRecord> = {}) => {
  const value = job(change);
  return records.update("job", value.job_id, () => value);
};
const template = () => records.get("template", ID);
const acquire = (sandbox_id: string) => refs.acquire({ snapshot_id: ID, sandbox_id }, "driver");

const parts = (change: Partial<DeletionParts> = {}): DeletionParts => ({
  catalog,
  records,
  nodes: { self: "a", isMember: () => true },
  isUp: (node) => up.has(node),
  queries: {
    template(id) {
      const found = records.get("template", id);
      const [made] = [...records.list("job")].filter((one) => one.template_id === id);
      if (found === undefined && made === undefined) throw new AppError("template_not_found");
      return (found ?? { template_id: id, kind: "template", status: "PENDING" }) as TemplateInfo;
    },
  },
  clusterRefs: {
    async find({ snapshotId }) {
      const held = refs.active(snapshotId === undefined ? {} : { snapshotId });
      return { refs: held, count: held.length, unanswered: [] };
    },
    fence: (id, _nodes, version) => refs.fence(id, version),
    unfence: (id, _nodes, version) => refs.unfence(id, version),
  },
  replicas: { settled: async () => undefined },
  artifacts: { release: async (id) => void released.push(id) },
  jobLog: { remove: async () => undefined },
  leases: {
    async use(templateId, work) {
      const lease = { templateId, epoch: 1 } as Parameters<typeof work>[0];
      return { result: await work(lease) };
    },
  },
  async cancelJob(id) {
    cancelled.push(id);
    await records.update("job", id, (current) => current && { ...current, status: "FAILED" });
  },
  clock: manualClock(),
  random,
  log: recordedLog(),
  ...change,
});
const remove = (force = false, change: Partial<DeletionParts> = {}) =>
  createDeletions(parts(change)).remove(ID, { force, actor: "me" });

it("row 77: given an unknown template, then template_not_found", async () => {
  await expect(remove()).rejects.toMatchObject({ code: "template_not_found" });
});

it("row 78: given a RUNNING job, or a PENDING definition, then delete conflicts", async () => {
  await put({ job_id: "j1" });
  await putJob();
  await expect(remove()).rejects.toMatchObject({ code: "template_attempt_in_progress" });
  await putJob({ status: "READY" });
  await put({ status: "PENDING", job_id: "j1" });
  await expect(remove()).rejects.toMatchObject({ code: "template_attempt_in_progress" });
  expect(template()?.status).toBe("PENDING");
});

it("row 79: given definition FAILED, then it is not asked who uses it", async () => {
  await put({ status: "FAILED" });
  const clusterRefs = {
    ...parts().clusterRefs,
    find: () => Promise.reject(new Error("was asked")),
  };
  await remove(false, { clusterRefs });
  expect(template()).toBeUndefined();
});

it("row 84: given only orphan jobs, then delete removes them", async () => {
  await putJob({ status: "FAILED" });
  await remove();
  expect([...records.list("job")]).toEqual([]);
});

it("row 85: given artifacts b and a, then they are released in order a, b", async () => {
  await put({ artifact_id: "rfs-b" });
  await putJob({ status: "FAILED", artifact_id: "rfs-a" });
  for (const artifact_id of ["rfs-a", "rfs-b"]) {
    const { artifact } = sidecarOf(artifact_id, manifestOf(new Uint8Array(1)));
    await records.update("artifact", artifact_id, () => artifact);
  }
  await remove();
  expect(released).toEqual(["rfs-a", "rfs-b"]);
});

it("row 90: given force delete with a live sandbox, then template_in_use and nothing is marked", async () => {
  await put({ job_id: "j1" });
  await putJob();
  await acquire("sb-1");
  await expect(remove(true)).rejects.toMatchObject({
    code: "template_in_use",
    meta: { sandboxes: ["sb-1@a"] },
  });
  expect(cancelled).toEqual([]);
  expect(template()).toMatchObject({ status: "READY" });
});

it("force cancels what still makes it, then deletes all of it", async () => {
  await put({ job_id: "j1", artifact_id: "rfs-1" });
  await putJob();
  const { artifact } = sidecarOf("rfs-1", manifestOf(imageBytes(1, 1)));
  await records.update("artifact", "rfs-1", () => artifact);
  await remove(true);
  expect(cancelled).toEqual(["j1"]);
  expect([template(), records.get("job", "j1")]).toEqual([undefined, undefined]);
  expect(released).toEqual(["rfs-1"]);
});

it("a ref that is taken after the look lifts the claim, and the template goes on as it was", async () => {
  await put({ status: "PARTIALLY_READY" });
  between = async (kind) => {
    between = () => undefined;
    if (kind === "template") await acquire("sb-1");
  };
  await expect(remove()).rejects.toMatchObject({
    code: "template_in_use",
    message: expect.stringContaining("active runtime ref of sb-1@a"),
  });
  expect(template()).toMatchObject({ status: "PARTIALLY_READY" });
  expect(template()?.deletion).toBeUndefined();
  await acquire("sb-2");
});

it("after the claim no ref is given, and none outlives the record", async () => {
  await put();
  const seen: unknown[] = [];
  const clusterRefs = {
    ...parts().clusterRefs,
    async fence(id: string, _nodes: readonly string[], version?: number) {
      const held = await refs.fence(id, version);
      seen.push(await acquire("sb-late").catch((error: unknown) => (error as AppError).code));
      return held;
    },
  };
  await remove(false, { clusterRefs });
  expect(seen).toEqual(["snapshot_deleting"]);
  expect(template()).toBeUndefined();
  await expect(acquire("sb-3")).rejects.toMatchObject({ code: "snapshot_not_found" });
  // What is made anew under the id is not fenced by what was.
  await put();
  await acquire("sb-4");
});

it("a node that is up and does not answer keeps it; one that is down counts as it last said", async () => {
  await put({ desired_nodes: ["a", "b"] });
  const fenced: string[][] = [];
  const clusterRefs = {
    ...parts().clusterRefs,
    fence: async (_id: string, nodes: readonly string[]) => {
      fenced.push([...nodes]);
      if (nodes.includes("b")) throw new AppError("peer_unreachable", "no answer from b");
      return [];
    },
  };
  await expect(remove(false, { clusterRefs })).rejects.toMatchObject({ code: "peer_unreachable" });
  expect(template()?.status).toBe("READY");
  up.delete("b");
  const told = { template_id: ID, count: 1, sandboxes: ["sb-far"] };
  await catalog.merge([{ owner: "b", kind: "refs", id: ID, version: 1, value: told }]);
  await expect(remove(false, { clusterRefs })).rejects.toMatchObject({
    code: "template_in_use",
    meta: { sandboxes: ["sb-far@b"] },
  });
  await catalog.merge([{ owner: "b", kind: "refs", id: ID, version: 2 }]);
  await remove(false, { clusterRefs });
  expect(fenced).toEqual([["a", "b"], ["a"], ["a"]]);
});

it("two deletes: the second is refused while the first is at work, also from another node", async () => {
  await put();
  const nodes = { self: "b", isMember: () => true };
  const codes: unknown[] = [];
  const clusterRefs = {
    ...parts().clusterRefs,
    async fence(id: string, _nodes: readonly string[], version?: number) {
      const second = createDeletions(parts({ nodes, clusterRefs: parts().clusterRefs }));
      const other = second.remove(ID, { force: true, actor: "other" });
      codes.push(await other.catch((error: unknown) => (error as AppError).code));
      return refs.fence(id, version);
    },
  };
  await remove(false, { clusterRefs });
  expect(codes).toEqual(["template_attempt_in_progress"]);
  expect(template()).toBeUndefined();
});

it("delete against redo: a job that claims the record first wins", async () => {
  await put({ job_id: "j1" });
  await putJob({ status: "READY" });
  let claims = 0;
  between = async (kind) => {
    if (kind !== "template" || claims++ > 0) return;
    await putJob({ job_id: "j2" });
    await put({ job_id: "j2" });
  };
  await expect(remove()).rejects.toMatchObject({
    code: "template_attempt_in_progress",
    meta: { job_id: "j2" },
  });
  expect(template()?.status).toBe("READY");
});

it("a snapshot is deleted by its own guards", async () => {
  await put({ kind: "snapshot" });
  await acquire("sb-1");
  await expect(remove()).rejects.toMatchObject({ code: "snapshot_in_use" });
  await put({ kind: "snapshot", status: "CREATING" });
  await refs.releaseBySandbox("sb-1", "sandbox destroyed");
  await expect(remove()).rejects.toMatchObject({ code: "template_attempt_in_progress" });
});

const deleting = (node_id: string): Partial<TemplateRecord> => ({
  status: "DELETING",
  deletion: { id: "d0", node_id, from_status: "READY", begun_at: "" },
});

it.each(["a", "b"])("a deletion whose daemon on %s died is carried on", async (node) => {
  await put(deleting(node));
  await putJob({ status: "READY" });
  if (node === "b") {
    await createDeletions(parts()).resume();
    expect(template()?.status).toBe("DELETING");
    up.delete("b");
  }
  await createDeletions(parts()).resume();
  expect([template(), records.get("job", "j1")]).toEqual([undefined, undefined]);
});

it("a deletion that is carried on and finds a ref is taken back", async () => {
  await put();
  await acquire("sb-1");
  await put(deleting("a"));
  await createDeletions(parts()).resume();
  expect(template()).toMatchObject({ status: "READY" });
  expect(catalog.get(CLUSTER, "template", ID)?.value?.deletion).toBeUndefined();
});

it("a tag that a deletion has left behind goes", async () => {
  const step = { change_id: "c1", template_id: ID, actor: "me", at: "", asked_at: "" };
  const tag = { name: "web", template_id: ID, history: [step], created_at: "", updated_at: "" };
  await records.update("tag", "web", () => tag);
  await put();
  await createDeletions(parts()).resume();
  expect(records.get("tag", "web")).toBeDefined();
  await records.update("template", ID, () => null);
  await createDeletions(parts()).resume();
  expect(records.get("tag", "web")).toBeUndefined();
});

it("a step of an attempt that was taken over changes nothing", async () => {
  await put();
  const clusterRefs = {
    ...parts().clusterRefs,
    async fence() {
      await put(deleting("b"));
      return [];
    },
  };
  await expect(remove(false, { clusterRefs })).rejects.toMatchObject({
    code: "template_attempt_in_progress",
  });
  expect(template()).toMatchObject({ status: "DELETING", deletion: { id: "d0" } });
});

it("what is protected stays, forced or not, also when it is protected in between", async () => {
  await put({ protected: true, job_id: "j1" });
  await putJob();
  for (const force of [false, true]) {
    await expect(remove(force)).rejects.toMatchObject({ code: "template_protected" });
  }
  expect(template()).toMatchObject({ status: "READY", protected: true });
  // Nothing that still makes it is cancelled for nothing.
  expect(cancelled).toEqual([]);
  await put({});
  await putJob({ status: "READY" });
  let changes = 0;
  between = async (kind) => {
    // The first looks at it, the second claims it.
    if (kind !== "template" || ++changes !== 2) return;
    await put({ protected: true });
  };
  await expect(remove()).rejects.toMatchObject({ code: "template_protected" });
  expect(template()).toMatchObject({ status: "READY" });
  between = () => undefined;
  await put({ protected: false });
  await remove();
  expect(template()).toBeUndefined();
});
