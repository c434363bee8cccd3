/** Versions of a node's own facts. */
import { expect, it } from "vitest";
import { createFacts } from "../../../src/daemon/records.ts";
import type { Entry } from "../../../src/domain/index.ts";
import { openMemoryCatalog } from "../../support/snapshot-node.ts";
import { Intake } from "../../../src/gossip/sync/intake.ts";
import { toWire } from "../../../src/gossip/sync/messages.ts";
import { manualClock, recordedLog } from "../../support/storage.ts";

const refs = (count: number) => ({ template_id: "tpl-1", count, sandboxes: [] });

it("what was told and lost with the host is superseded by the next life's first word", async () => {
  const clock = manualClock();
  const kept = await openMemoryCatalog();
  const told = await openMemoryCatalog();
  const before = createFacts(kept, clock, "a");
  await before.put("refs", "tpl-1", refs(1));
  await told.merge([...kept.list("refs")]);
  // Told to others, and never flushed here: as if the host had lost its power.
  const unflushed = createFacts(told, clock, "a");
  await unflushed.put("refs", "tpl-1", refs(2));
  const lost = told.get("a", "refs", "tpl-1");
  clock.time += 1_000;
  const after = createFacts(kept, clock, "a");
  await after.put("refs", "tpl-1", refs(3));
  const news = kept.get("a", "refs", "tpl-1");
  expect(news?.version).toBeGreaterThan(lost?.version ?? 0);
  expect(await told.merge([news!])).toHaveLength(1);
  expect(told.get("a", "refs", "tpl-1")?.value?.count).toBe(3);
});

it("what others hold of a fact that its node has forgotten is written above, once", async () => {
  const clock = manualClock();
  const catalog = await openMemoryCatalog();
  const facts = createFacts(catalog, clock, "a");
  const told: Promise<void>[] = [];
  const intake = new Intake({
    ...{ catalog, clock, log: recordedLog(), members: { self: "a", has: () => true } },
    onForgotten: (entry: Entry) => void told.push(facts.restate(entry)),
  } as never);
  const address = { owner: "a", kind: "refs", id: "tpl-1" } as const;
  const heard: Entry = { ...address, version: 2_000_000_000_000, value: refs(2) };
  expect(intake.check([toWire(heard)], "b", undefined).good).toEqual([]);
  expect(intake.check([toWire(heard)], "c", undefined).good).toEqual([]);
  expect(told).toHaveLength(1);
  await told[0];
  const after = catalog.get("a", "refs", "tpl-1");
  expect(after).toEqual({ ...address, version: heard.version + 1 });
  // One that is true is said again as it is.
  await facts.put("refs", "tpl-1", refs(1));
  await facts.restate({ ...heard, version: heard.version + 9 });
  expect(catalog.get("a", "refs", "tpl-1")).toMatchObject({
    version: heard.version + 10,
    value: refs(1),
  });
});
