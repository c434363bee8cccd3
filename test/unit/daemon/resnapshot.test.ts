/** Two daemons over the same records: who takes a step, and what becomes of a refused redo. */
import { beforeEach, expect, it } from "vitest";
import { createRecords } from "../../../src/daemon/records.ts";
import { ResnapshotWorker } from "../../../src/daemon/workers/resnapshot.ts";
import {
  AppError,
  CLUSTER,
  RESNAPSHOT,
  candidateOrder,
  type Entry,
  type NodeFact,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { aNode, aReplica } from "../../support/fake-http-service.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateEntry,
} from "../../support/storage.ts";

const NAMES = ["a", "b"];
const [FIRST = "", SECOND = ""] = candidateOrder(RESNAPSHOT, NAMES);
let catalog: OpenedCatalog;
let down: Set<string>;
let asked: string[];
let refuse: AppError | undefined;

const record = () => catalog.get(CLUSTER, "resnapshot", RESNAPSHOT)?.value;
const fact = (id: string): NodeFact =>
  aNode({ node_id: id, resnapshot_interval_ms: 1_000, healthy: !down.has(id) });
function workerOf(self: string, clock = manualClock()): ResnapshotWorker {
  return new ResnapshotWorker({
    catalog,
    records: createRecords(catalog, registers),
    nodes: {
      self,
      all: () => NAMES.map(fact),
      get: (id) => (NAMES.includes(id) ? fact(id) : undefined),
      isMember: (id) => NAMES.includes(id),
      wasRemoved: () => false,
      onChange: () => () => undefined,
    },
    clock,
    log: recordedLog(),
    redo: async (templateId, nodeId, requestId) => {
      asked.push(`${self}: ${templateId} on ${nodeId} as ${requestId}`);
      if (refuse !== undefined) throw refuse;
    },
  });
}
/** A daemon that has just started takes one look, which needs nothing of what it did before. */
async function look(id: string): Promise<void> {
  const clock = manualClock();
  const worker = workerOf(id, clock);
  worker.start();
  clock.fire();
  await worker.stop();
}

/** A lone voter: reads, changes, writes. */
const registers = {
  update: async (kind: string, id: string, change: (current: unknown) => unknown) => {
    const current = catalog.get(CLUSTER, kind as "resnapshot", id);
    const value = change(current?.value);
    if (value === undefined) return current;
    const entry = { owner: CLUSTER, kind, id, version: (current?.version ?? 0) + 1, value };
    await catalog.merge([entry as Entry]);
    return entry;
  },
} as unknown as Parameters<typeof createRecords>[1];

beforeEach(async () => {
  down = new Set();
  asked = [];
  refuse = undefined;
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  const template = templateEntry("t1", 1);
  const placed = { ...template.value, desired_nodes: NAMES } as TemplateRecord;
  await catalog.merge([{ ...template, value: placed }]);
  const value = aReplica({ node_id: SECOND, guest_image_version: "g0", agent_version: "a1" });
  await catalog.merge([{ owner: SECOND, kind: "replica", id: "t1", version: 1, value }]);
});

it("the first of the healthy nodes takes each step, and the next one when that is down", async () => {
  await look(SECOND);
  expect(record()).toBeUndefined();
  await look(FIRST);
  expect(record()?.current).toMatchObject({ template_id: "t1", node_id: SECOND });
  await look(SECOND);
  expect(asked).toEqual([]);
  down.add(FIRST);
  await look(SECOND);
  expect(asked).toEqual([`${SECOND}: t1 on ${SECOND} as resnapshot-1-${SECOND}`]);
});

it("what is refused for good stops it; what passes is tried again", async () => {
  await look(FIRST);
  refuse = new AppError("template_attempt_in_progress", "another job has it");
  await look(FIRST);
  expect(record()?.failure).toBeUndefined();
  refuse = new AppError("invalid_request", "there is nothing to go on from");
  await look(FIRST);
  expect(asked).toHaveLength(2);
  expect(record()).toMatchObject({
    failed: 1,
    failure: { template_id: "t1", error: "there is nothing to go on from" },
  });
  expect(workerOf(FIRST).view()).toMatchObject({ state: "stopped", pending: 1 });
  refuse = undefined;
  expect(await workerOf(SECOND).resume()).toMatchObject({ state: "waiting" });
});
