import { beforeEach, expect, it } from "vitest";
import { createPlaces, type Places } from "../../../src/daemon/disk/places.ts";
import { createFacts, createRecords } from "../../../src/daemon/records.ts";
import type { ArtifactStore } from "../../../src/domain/index.ts";
import type { OpenedCatalog } from "../../../src/storage/index.ts";
import { loneRegisters, openMemoryCatalog } from "../../support/snapshot-node.ts";
import { realClock } from "../../support/real-clock.ts";
import { replicaEntry, templateEntry } from "../../support/storage.ts";

let catalog: OpenedCatalog;
let places: Places;
const working = new Set<string>();

beforeEach(async () => {
  working.clear();
  catalog = await openMemoryCatalog();
  places = createPlaces({
    catalog,
    records: createRecords(catalog, loneRegisters(catalog) as never),
    facts: createFacts(catalog, realClock, "a"),
    store: {} as ArtifactStore,
    isWorking: (id) => working.has(id),
  });
});

const row = (key: string, folder: string) =>
  catalog.table("driver-snapshot").put(key, { dir: `/data/templates/${folder}` });
async function isKnown(name: string): Promise<boolean> {
  await places.prepare();
  const place = places.places.find(({ folder }) => folder === "templates");
  if (place === undefined) throw new Error("templates are not looked at");
  return place.isKnown(name);
}

it("knows the folder of the generation that serves, and of one that sandboxes still run on", async () => {
  await catalog.merge([templateEntry("tpl-1", 1), replicaEntry("tpl-1", "a", 1)]);
  await row("tpl-1", "tpl-1.g2");
  await row("tpl-1@1", "tpl-1.g1");
  expect(await isKnown("tpl-1.g2")).toBe(true);
  expect(await isKnown("tpl-1.g1")).toBe(true);
});

it("knows what is being made, and not what a crash left of a generation", async () => {
  await catalog.merge([templateEntry("tpl-1", 1), replicaEntry("tpl-1", "a", 1)]);
  await row("tpl-1", "tpl-1.g2");
  for (const left of ["tpl-1.g3", "tpl-1.g3.new"]) {
    expect(await isKnown(left)).toBe(false);
    working.add("tpl-1");
    expect(await isKnown(left)).toBe(true);
    working.clear();
  }
});

it("knows the folder of a sandbox's snapshot, which has no generation", async () => {
  await row("snap-1", "snap-1");
  expect(await isKnown("snap-1")).toBe(true);
  expect(await isKnown("snap-2")).toBe(false);
  await catalog.merge([templateEntry("snap-2", 1)]);
  expect(await isKnown("snap-2")).toBe(true);
});
