/**
 * One process of `scripts/sim.mjs`: runs seeds of a scenario, and says what it found as JSON lines.
 */
import { runSequence } from "./daemon/model-run.ts";
import { simulate } from "./scenarios.ts";

const [scenario = "", first = "1", count = "1", untilMs = "0"] = process.argv.slice(2);
const SHOWN_LINES = 40;
const totals: Record<string, number> = {};
const until = Number(untilMs);
let ran = 0;
process.on("unhandledRejection", () => undefined);

async function sequence(seed: number) {
  const { counts, failure } = await runSequence(seed);
  return { counts, traceHash: undefined, trace: [], ...failure };
}

for (let seed = Number(first); ran < Number(count); seed++) {
  if (until > 0 && Date.now() > until) break;
  const outcome = scenario === "model" ? await sequence(seed) : await simulate(scenario, seed);
  const { counts, traceHash, trace, violation } = { violation: undefined, ...outcome };
  ran++;
  for (const [name, number] of Object.entries(counts)) {
    totals[name] = (totals[name] ?? 0) + number;
  }
  if (violation !== undefined) {
    const shown = trace.slice(-SHOWN_LINES);
    console.log(JSON.stringify({ scenario, seed, violation, traceHash, trace: shown }));
    break;
  }
  if (Number(count) === 1) console.log(JSON.stringify({ scenario, seed, traceHash }));
}
console.log(JSON.stringify({ scenario, ran, totals }));
process.exit(0);
