/** Whose turn it is to be made again, and how it ends: the rules alone. */
import { describe, expect, test } from "vitest";
import {
  RESNAPSHOT_ASK_MS,
  RESNAPSHOT_HEAR_MS,
  applyResnapshot,
  resnapshotAttention,
  resnapshotStep,
  resnapshotView,
  resumeResnapshot,
  type JobRecord,
  type NodeFact,
  type ReplicaStatus,
  type ResnapshotRecord,
  type ResnapshotSight,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { aJob, aNode, aReplica } from "../../support/fake-http-service.ts";
import { templateValue } from "../../support/storage.ts";

const NOW = Date.parse("2026-02-03T04:05:06.000Z");
const PAUSE_MS = 60_000;
const at = (offsetMs = 0) => new Date(NOW + offsetMs).toISOString();

interface World {
  nodes: NodeFact[];
  templates: TemplateRecord[];
  /** `node/template` → its replica. */
  replicas: Record<string, ReplicaStatus>;
  jobs: JobRecord[];
  now: number;
}

const stale = { guest_image_version: "g0", agent_version: "a1" };
const fresh = { guest_image_version: "g1", agent_version: "a1" };
const node = (id: string, change: Partial<NodeFact> = {}) =>
  aNode({ node_id: id, resnapshot_interval_ms: PAUSE_MS, ...change });
const replica = (id: string, change: Partial<ReplicaStatus> = {}) =>
  aReplica({ node_id: id, compat_policy: "STRICT", ...stale, ...change });
const template = (id: string, change: Partial<TemplateRecord> = {}): TemplateRecord => ({
  ...templateValue(id),
  desired_nodes: ["a", "b"],
  ...change,
});

const world = (change: Partial<World> = {}): World => ({
  nodes: [node("a"), node("b")],
  templates: [template("t1"), template("t2")],
  replicas: {
    "b/t1": replica("b"),
    "a/t2": replica("a"),
    "a/t1": replica("a"),
  },
  jobs: [],
  now: NOW,
  ...change,
});
const sightOf = (one: World): ResnapshotSight => ({
  template: (id) => one.templates.find(({ template_id }) => template_id === id),
  node: (id) => one.nodes.find(({ node_id }) => node_id === id),
  replicas: Object.entries(one.replicas).map(([key, value]) => ({
    id: key.slice(key.indexOf("/") + 1),
    value,
  })),
  replica: (nodeId, templateId) => one.replicas[`${nodeId}/${templateId}`],
  job: (requestId) => one.jobs.find(({ request_id }) => request_id === requestId),
  hasActiveJob: (id) => one.jobs.some((job) => job.template_id === id && job.status === "RUNNING"),
  now: one.now,
});
const step = (one: World, record?: ResnapshotRecord) => resnapshotStep(record, sightOf(one));
/** The record after the step that is due. */
const next = (one: World, record?: ResnapshotRecord) =>
  applyResnapshot(record, step(one, record), one.now);

const running: ResnapshotRecord = {
  turns: 1,
  done: 0,
  failed: 0,
  current: {
    template_id: "t1",
    node_id: "a",
    request_id: "resnapshot-1-a",
    started_at: at(),
  },
};
const redo = (change: Partial<JobRecord>): JobRecord => ({
  ...aJob({ template_id: "t1", request_id: "resnapshot-1-a", deadline_at: at(3_600_000) }),
  ...change,
});

describe("who is next", () => {
  test("node by node, then template by template, and one at a time", () => {
    const taken = next(world());
    expect(taken).toEqual(running);
    expect(step(world(), taken)).toMatchObject({ step: "ask", turn: running.current });
  });

  test.each<[string, Partial<World>]>([
    ["no node asks for it", { nodes: [aNode({ node_id: "a" }), aNode({ node_id: "b" })] }],
    ["the nodes are down", { nodes: [node("a", { healthy: false })] }],
    ["the nodes are drained", { nodes: [node("a", { drained: true })] }],
    ["nothing is stale", { replicas: { "a/t1": replica("a", fresh) } }],
    ["a stale one is not READY", { replicas: { "a/t1": replica("a", { status: "FAILED" }) } }],
    ["the node is not to hold it any more", { templates: [template("t1", { desired_nodes: [] })] }],
    ["it holds a sandbox's memory", { templates: [template("t1", { kind: "snapshot" })] }],
    ["it was made from a sandbox", { templates: [template("t1", { origin_sandbox_id: "sb-1" })] }],
    ["it is being deleted", { templates: [template("t1", { status: "DELETING" })] }],
    [
      "another job makes it",
      { templates: [template("t1")], jobs: [redo({ request_id: "r", status: "RUNNING" })] },
    ],
  ])("nobody while %s", (_, change) => {
    expect(step(world(change))).toEqual({ step: "none" });
  });

  test("what has failed once comes after what has not", () => {
    const one = world();
    one.replicas["a/t1"] = replica("a", { redo: { generation: 1, phase: "FAILED" } });
    expect(step(one)).toEqual({ step: "take", template_id: "t2", node_id: "a" });
    one.replicas = { "a/t1": one.replicas["a/t1"] };
    expect(step(one)).toEqual({ step: "take", template_id: "t1", node_id: "a" });
  });

  test("not before the pause of its node is over", () => {
    const record = { turns: 1, done: 1, failed: 0, last_ended_at: at(-20_000) };
    expect(step(world(), record)).toEqual({ step: "wait", ms: PAUSE_MS - 20_000 });
    expect(step(world({ now: NOW + PAUSE_MS }), record)).toMatchObject({ step: "take" });
  });
});

describe("a turn", () => {
  test("waits while its redo runs, and while another job works on the template", () => {
    const own = world({ jobs: [redo({ status: "RUNNING" })] });
    expect(step(own, running)).toEqual({ step: "wait", ms: 3_600_000 });
    const other = world({ jobs: [redo({ request_id: "r", status: "RUNNING" })] });
    expect(step(other, running)).toEqual({ step: "wait", ms: RESNAPSHOT_ASK_MS });
  });

  test("is done when the replica fits, and the next waits for the pause", () => {
    const made = world({ jobs: [redo({ status: "READY", ended_at: at() })] });
    made.replicas["a/t1"] = replica("a", fresh);
    const record = next(made, running);
    expect(record).toEqual({ turns: 1, done: 1, failed: 0, last_ended_at: at() });
    expect(step(made, record)).toEqual({ step: "wait", ms: PAUSE_MS });
    const second = next({ ...made, now: NOW + PAUSE_MS }, record);
    expect(second?.current).toMatchObject({
      template_id: "t2",
      node_id: "a",
      request_id: "resnapshot-2-a",
    });
  });

  test("waits for the replica that the job has made, but not for ever", () => {
    const ended = world({ jobs: [redo({ status: "READY", ended_at: at() })] });
    expect(step(ended, running)).toEqual({ step: "wait", ms: RESNAPSHOT_HEAR_MS });
    const later = { ...ended, now: NOW + RESNAPSHOT_HEAR_MS };
    expect(step(later, running)).toMatchObject({ step: "fail" });
  });

  test("that failed stops everything until it is resumed", () => {
    const failed = world({ jobs: [redo({ status: "FAILED", error_message: "no boot" })] });
    const record = next(failed, running);
    expect(record).toMatchObject({ failed: 1, failure: { ...running.current, error: "no boot" } });
    expect(record?.current).toBeUndefined();
    expect(step({ ...failed, now: NOW + 10 * PAUSE_MS }, record)).toEqual({ step: "none" });
    const resumed = resumeResnapshot(record);
    expect(resumed).toEqual({ turns: 1, done: 0, failed: 1 });
    expect(next(failed, resumed)?.current).toMatchObject({ request_id: "resnapshot-2-a" });
    expect(resumeResnapshot(resumed)).toBeUndefined();
  });

  test.each<[string, (one: World) => void]>([
    ["its template is deleted", (one) => void one.templates.splice(0, 1)],
    ["its node is removed", (one) => void one.nodes.splice(0, 1)],
    ["its node goes down", (one) => void (one.nodes[0] = node("a", { healthy: false }))],
    ["its node is drained", (one) => void (one.nodes[0] = node("a", { drained: true }))],
    ["it is switched off", (one) => void (one.nodes[0] = aNode({ node_id: "a" }))],
    ["somebody else has made it again", (one) => void (one.replicas["a/t1"] = replica("a", fresh))],
  ])("is dropped when %s before it was asked for", (_, change) => {
    const one = world();
    change(one);
    expect(step(one, running)).toEqual({ step: "drop" });
    expect(next(one, running)).toEqual({ turns: 1, done: 0, failed: 0, last_ended_at: at() });
  });

  test("is dropped when its template goes while it is redone", () => {
    const gone = world({ templates: [], jobs: [redo({ status: "FAILED" })] });
    expect(step(gone, running)).toEqual({ step: "drop" });
  });

  test("fails when its redo could not be asked for in time, unless another job is why", () => {
    const late = world({ now: NOW + RESNAPSHOT_ASK_MS });
    expect(step(late, running)).toMatchObject({ step: "fail" });
    late.jobs = [redo({ request_id: "r", status: "RUNNING" })];
    expect(step(late, running)).toEqual({ step: "drop" });
  });

  test("that was taken already is not taken twice", () => {
    const take = { step: "take", template_id: "t2", node_id: "a" } as const;
    expect(applyResnapshot(running, take, NOW)).toBeUndefined();
  });
});

describe("what an operator sees", () => {
  const view = (one: World, record?: ResnapshotRecord) =>
    resnapshotView(record, sightOf(one), one.nodes);

  test("off, idle, waiting, running, stopped", () => {
    expect(view(world({ nodes: [aNode()] }))).toMatchObject({ state: "off", pending: 0 });
    expect(view(world({ replicas: {} }))).toMatchObject({ state: "idle" });
    expect(view(world())).toEqual({
      state: "waiting",
      next: { template_id: "t1", node_id: "a", not_before: at() },
      pending: 3,
      done: 0,
      failed: 0,
    });
    const busy = world({ jobs: [redo({ status: "RUNNING" })] });
    busy.replicas = { "a/t1": replica("a") };
    expect(view(busy)).toEqual({ state: "waiting", pending: 1, done: 0, failed: 0 });
    const own = world({ jobs: [redo({ status: "RUNNING", job_id: "job-7" })] });
    expect(view(own, running)).toMatchObject({
      state: "running",
      current: { template_id: "t1", job_id: "job-7" },
      pending: 3,
    });
    const failed = world({ jobs: [redo({ status: "FAILED", error_message: "no boot" })] });
    const stopped = view(failed, next(failed, running));
    expect(stopped).toMatchObject({
      state: "stopped",
      failure: { error: "no boot", job_id: "job-1" },
    });
    expect(resnapshotAttention(view(own, running))).toEqual([]);
    expect(resnapshotAttention(stopped)).toMatchObject([
      { kind: "compat", subject: "t1 on a", since: at(), why: expect.stringContaining("no boot") },
    ]);
  });
});
