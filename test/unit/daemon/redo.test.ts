/** A redo against a deletion that comes in between. */
import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { submitRedo, type RedoParts } from "../../../src/daemon/redo.ts";
import { CLUSTER } from "../../../src/domain/index.ts";
import { openMemoryCatalog } from "../../support/snapshot-node.ts";
import { memoryRecords } from "../../support/records.ts";
import { manualClock, templateValue } from "../../support/storage.ts";

it("of a template that is deleted meanwhile says that it is not there, and leaves no job", async () => {
  const catalog = await openMemoryCatalog();
  const value = { ...templateValue("tpl-1"), desired_nodes: ["a"] };
  await catalog.merge([{ owner: CLUSTER, kind: "template", id: "tpl-1", version: 1, value }]);
  const node = { node_id: "a", node_ip: "10.0.0.1", healthy: true, drained: false };
  const records = memoryRecords(catalog, async (kind) => {
    if (kind !== "template" || catalog.get(CLUSTER, "template", "tpl-1")?.value === undefined)
      return;
    await catalog.merge([{ owner: CLUSTER, kind: "template", id: "tpl-1", version: 2 }]);
  });
  const parts = {
    ...{ catalog, records, clock: manualClock(), jobDeadlineMs: 1_000, onJob: () => undefined },
    nodes: { self: "a", all: () => [node] },
    queries: { template: () => ({ template_id: "tpl-1" }) },
    random: { uuid: randomUUID, bytes: (length: number) => new Uint8Array(length) },
  } as unknown as RedoParts;
  await expect(submitRedo(parts, "tpl-1", {}, { requestId: "r1" })).rejects.toMatchObject({
    code: "template_not_found",
  });
  expect([...records.list("job")]).toEqual([]);
});
