/**
 * One process of `scripts/sim.mjs`: runs seeds of a scenario, and says what it found as JSON lines.
 */
import { runModel } from "./daemon/model-commands.ts";
import { simulate } from "./scenarios.ts";

const [scenario = "", first = "1", count = "1", untilMs = "0"] = process.argv.slice(2);
const totals: Record<string, number> = {};
const until = Number(untilMs);
let ran = 0;
process.on("unhandledRejection", () => undefined);
if (scenario === "model") {
  const { ran, counts, failure } = await runModel(Number(first), Number(count));
  if (failure !== undefined) {
    const [violation = "", ...trace] = failure.split("\n").reverse();
    const found = { scenario, seed: Number(first), violation, trace: trace.reverse() };
    console.log(JSON.stringify(found));
  }
  console.log(JSON.stringify({ scenario, ran, totals: counts }));
  process.exit(0);
}
for (let seed = Number(first); ran < Number(count); seed++) {
  if (until > 0 && Date.now() > until) break;
  const { violation, counts, trace, traceHash } = await simulate(scenario, seed);
  ran++;
  for (const [name, number] of Object.entries(counts)) {
    totals[name] = (totals[name] ?? 0) + number;
  }
  if (violation !== undefined) {
    console.log(JSON.stringify({ scenario, seed, violation, traceHash, trace: trace.slice(-40) }));
    break;
  }
  if (Number(count) === 1) console.log(JSON.stringify({ scenario, seed, traceHash }));
}
console.log(JSON.stringify({ scenario, ran, totals }));
process.exit(0);
