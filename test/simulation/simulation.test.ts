/** The protocols in simulation: the same seeds give the same runs, and no slip goes unnoticed. */
import { cpus } from "node:os";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SCENARIOS, runFresh, runMutants, runSeeds } from "../../scripts/sim.mjs";

const MINUTES = 60_000;

describe("the simulation", { timeout: 8 * MINUTES }, () => {
  it("gives the same run for the same seed", async () => {
    for (const scenario of SCENARIOS) {
      const [one, two] = await Promise.all([runSeeds(scenario, 5, 1), runSeeds(scenario, 5, 1)]);
      expect(one.traceHash).toBe(two.traceHash);
      expect(one.totals).toEqual(two.totals);
    }
  });

  it("holds in the seeds that failed once", async () => {
    const text = readFileSync(new URL("seeds.txt", import.meta.url), "utf8");
    for (const line of text.split("\n")) {
      const [, scenario, seed] = /^(\w+) (\d+) /.exec(line) ?? [];
      if (scenario === undefined) continue;
      expect((await runSeeds(scenario, Number(seed), 1)).found).toBeUndefined();
    }
  });

  it("holds in seeds that nobody has tried, while all that can go wrong does", async () => {
    const from = (Math.floor(Date.now() / 1_000) % 1_000_000) * 1_000 + 1;
    const { failed, totals } = await runFresh(SCENARIOS, { from, seeds: 20 }, cpus().length);
    expect(failed, JSON.stringify(failed)).toBeUndefined();
    for (const name of [
      "crashes",
      "pauses",
      "cuts",
      "full disks",
      "voter changes",
      "purged tombstones",
    ]) {
      expect(totals[name], name).toBeGreaterThan(10);
    }
  });

  it("holds while daemons are asked for everything, and die in between", async () => {
    const { found, totals } = await runSeeds("operations", 301, 1);
    expect(found, JSON.stringify(found)).toBeUndefined();
    expect(totals["crashes"]).toBeGreaterThan(0);
  });

  it("sequences of all operations on three daemons end where a simple model does", async () => {
    // Of the 10,000 that have held, others each time.
    const from = 1 + (Math.floor(Date.now() / 1_000) % 9_985);
    const { found, totals } = await runSeeds("model", from, 15);
    expect(found, `npm run sim -- --model 1 --seed ${found?.seed}`).toBeUndefined();
    expect(totals["sequences"]).toBe(15);
  });

  it("notices every slip", async () => {
    expect(await runMutants(cpus().length)).toEqual([]);
  });
});
