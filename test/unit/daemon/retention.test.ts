/** Retention over a catalog in memory: who does it, when, and what comes in between. */
import { beforeEach, expect, it } from "vitest";
import type { RemoveOptions } from "../../../src/daemon/deletions.ts";
import type { Records } from "../../../src/daemon/records.ts";
import { createRetention, type RetentionParts } from "../../../src/daemon/retention.ts";
import { AppError, type NodeFact, type TagRecord } from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { memoryRecords } from "../../support/records.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateValue,
} from "../../support/storage.ts";

let catalog: OpenedCatalog;
let records: Records;
let nodes: NodeFact[];
let isInTouch: boolean;
/** Comes in between: called when a deletion has been asked for and has claimed nothing yet. */
let between: (id: string) => Promise<void> | void;

const node = (node_id: string, retention?: NodeFact["retention"]) =>
  ({ node_id, healthy: true, drained: false, retention }) as NodeFact;
const configured = { keep_last: 1, unused_ttl_ms: 0 };

beforeEach(async () => {
  isInTouch = true;
  between = () => undefined;
  nodes = [node("a", configured)];
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  records = memoryRecords(catalog);
  for (const n of [1, 2, 3]) {
    const created_at = `2026-01-0${n}T00:00:00Z`;
    await records.update("template", `tpl-${n}`, () => ({
      ...templateValue(`tpl-${n}`),
      ...{ display_name: "web", created_at, updated_at: created_at },
    }));
  }
});

const parts = (self: string): RetentionParts => ({
  catalog,
  records,
  nodes: { self, all: () => nodes, isMember: () => true },
  deletions: {
    async remove(template_id: string, { mayGo }: RemoveOptions) {
      await between(template_id);
      await records.update("template", template_id, (current) => {
        if (current !== undefined) mayGo?.(current);
        return null;
      });
      return { template_id };
    },
  },
  isInTouch: () => isInTouch,
  clock: manualClock(Date.UTC(2026, 0, 31)),
  log: recordedLog(),
});
const retention = (self = "a") => createRetention(parts(self));
const left = () => [...records.list("template")].map(({ template_id }) => template_id).sort();
const tag = (template_id: string): TagRecord => ({
  name: "prod",
  template_id,
  history: [{ change_id: "1", template_id, actor: "me", at: "", asked_at: "" }],
  created_at: "",
  updated_at: "",
});

it("a dry run deletes nothing, and takes another policy", async () => {
  const report = await retention().apply({ dryRun: true, policy: { keep_last: 2 }, actor: "me" });
  expect(report).toMatchObject({
    dry_run: true,
    policy: { keep_last: 2, unused_ttl_ms: 0 },
    items: [{ template_id: "tpl-1", reason: "superseded", kept_by: "", deleted: false }],
  });
  expect(left()).toHaveLength(3);
});

it("is done by one node, and only where every node is configured for it", async () => {
  nodes = [node("a", configured), node("b", configured), node("c")];
  for (const self of ["a", "b", "c"]) await retention(self).pass();
  expect(left()).toHaveLength(3);
  nodes[2] = node("c", configured);
  isInTouch = false;
  for (const self of ["a", "b", "c"]) await retention(self).pass();
  expect(left()).toHaveLength(3);
  isInTouch = true;
  const at: string[] = [];
  for (const self of ["a", "b", "c"]) {
    const before = left().length;
    await retention(self).pass();
    if (left().length < before) at.push(self);
  }
  expect([at.length, left()]).toEqual([1, ["tpl-3"]]);
});

it("what is tagged between the look and the claim stays, and stops no other", async () => {
  between = async (id) => {
    if (id === "tpl-1") await records.update("tag", "prod", () => tag("tpl-1"));
  };
  const { items } = await retention().apply({ dryRun: false, actor: "me" });
  expect(items).toMatchObject([
    { template_id: "tpl-1", deleted: false, error: "template tpl-1 is kept: tag prod" },
    { template_id: "tpl-2", deleted: true },
  ]);
  expect(left()).toEqual(["tpl-1", "tpl-3"]);
});

it("what is used, or was in between, stays", async () => {
  const refs = async (id: string, count: number, last_used_at: string) => {
    const version = (catalog.get("b", "refs", id)?.version ?? 0) + 1;
    const value = { template_id: id, count, sandboxes: [], last_used_at };
    await catalog.merge([{ owner: "b", kind: "refs", id, version, value }]);
  };
  nodes = [node("a", { keep_last: 0, unused_ttl_ms: 24 * 60 * 60_000 })];
  await refs("tpl-1", 1, "2026-01-01T00:00:00Z");
  await refs("tpl-2", 0, "2026-01-30T12:00:00Z");
  between = (id) => refs(id, 0, "2026-01-30T23:00:00Z");
  const { items } = await retention().apply({ dryRun: false, actor: "me" });
  expect(items).toMatchObject([
    { template_id: "tpl-1", kept_by: "in use by 1 sandbox", deleted: false },
    { template_id: "tpl-3", error: "template tpl-3 is kept: it is used or has changed" },
  ]);
  between = () => {
    throw new AppError("template_in_use", "tpl-3 is in use");
  };
  await refs("tpl-3", 0, "");
  const again = await retention().apply({ dryRun: false, actor: "me" });
  expect(again.items[1]).toMatchObject({ template_id: "tpl-3", error: "tpl-3 is in use" });
  expect(left()).toHaveLength(3);
});
