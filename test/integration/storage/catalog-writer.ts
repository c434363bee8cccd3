/** A process that merges without end and says on its standard output what was acknowledged. */
import { writeSync } from "node:fs";
import { openCatalog } from "../../../src/storage/index.ts";
import { realClock, recordedLog, templateEntry } from "../../support/storage.ts";

const [dir = "", from = "0"] = process.argv.slice(2);
const catalog = await openCatalog({ dir, log: recordedLog(), clock: realClock });
writeSync(1, "open\n");
const lanes = 8;
await Promise.all(
  Array.from({ length: lanes }, async (_, lane) => {
    for (let round = Number(from); ; round++) {
      // Forty ids, each rewritten again and again, and a table row in the same batch.
      const id = `tpl-${lane}-${round % 5}`;
      const key = `${lane}/${String(round).padStart(8, "0")}`;
      await catalog.merge([templateEntry(id, round + 1)], {
        local: [{ table: "job-log", key, value: { id, version: round + 1 } }],
      });
      // One synchronous write: what the parent reads was acknowledged before the kill.
      writeSync(1, `${id} ${round + 1} ${key}\n`);
    }
  }),
);
