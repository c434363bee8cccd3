import fc from "fast-check";
import { expect, it } from "vitest";
import type { Entry } from "../../src/domain/index.ts";
import { openCatalog } from "../../src/storage/index.ts";
import {
  manualClock,
  memoryDatabase,
  recordedLog,
  replicaEntry,
  templateEntry,
} from "../support/storage.ts";

const anyEntry: fc.Arbitrary<Entry> = fc
  .record({
    id: fc.constantFrom("t1", "t2", "t3"),
    owner: fc.constantFrom("@cluster", "a", "b"),
    version: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ id, owner, version }): Entry => {
    const entry =
      owner === "@cluster"
        ? templateEntry(id, version, `${version}`)
        : replicaEntry(id, owner, version);
    // Every third version is a tombstone: the same one for everyone who has that version.
    return version % 3 === 0 ? { owner, kind: entry.kind, id, version } : entry;
  });

it("comes to the same state in whatever order and groups entries are merged", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc
        .array(anyEntry, { maxLength: 40 })
        .chain((entries) =>
          fc.tuple(
            fc.constant(entries),
            fc.shuffledSubarray(entries, { minLength: entries.length }),
            fc.integer({ min: 1, max: 5 }),
          ),
        ),
      async ([entries, shuffled, size]) => {
        const open = (database = memoryDatabase()) =>
          openCatalog({
            dir: "unused",
            log: recordedLog(),
            clock: manualClock(),
            openDatabase: async () => database,
          });
        const one = await open();
        for (const entry of entries) await one.merge([entry]);
        const database = memoryDatabase();
        const two = await open(database);
        const merges: Promise<unknown>[] = [];
        for (let i = 0; i < shuffled.length; i += size) {
          merges.push(two.merge(shuffled.slice(i, i + size)));
        }
        await Promise.all(merges);
        expect(two.stateHash()).toBe(one.stateHash());
        const three = await open(database);
        expect(three.stateHash()).toBe(one.stateHash());
        for (const kind of ["template", "replica"] as const) {
          expect([...two.list(kind)]).toEqual([...one.list(kind)]);
          expect([...three.list(kind)]).toEqual([...one.list(kind)]);
        }
        const { entries: live, tombstones } = three.stats();
        expect(await three.changes(0, 1_000)).toHaveLength(live + tombstones);
      },
    ),
    { numRuns: 60 },
  );
});
