// The cluster's protocols in simulation: `npm run sim -- [--seed N] [--scenario S] [--seeds K]
// [--minutes M] [--jobs J] [--mutants] [--model N]`. What fails replays exactly, by the command that
// it prints.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { MUTANTS } from "../test/simulation/mutants.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const SCENARIOS = [
  "registers",
  "creations",
  "voters",
  "leaders",
  "drift",
  "copies",
  "spread",
  "purge",
];
const CHUNK = 100;
const typescript = pathToFileURL(createRequire(import.meta.url).resolve("typescript")).href;
const dataUrl = (source) => `data:text/javascript,${encodeURIComponent(source)}`;

/**
 * Strips the types as a module is loaded, and changes the text of one when a mutant is asked for.
 * What a text comes to is kept for the next process: a run starts many.
 */
const hooks = (mutant) => `
import ts from ${JSON.stringify(typescript)};
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
const kept = ${JSON.stringify(join(root, "node_modules/.cache/simulation"))};
function strip(text) {
  const path = kept + "/" + createHash("sha256").update(ts.version).update(text).digest("hex");
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Not stripped before.
  }
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { module: "esnext", target: "es2023", verbatimModuleSyntax: true },
  });
  try {
    mkdirSync(kept, { recursive: true });
    writeFileSync(path + "." + process.pid, outputText);
    renameSync(path + "." + process.pid, path);
  } catch {
    // It is only for speed.
  }
  return outputText;
}
const mutant = ${JSON.stringify(mutant ?? null)};
function mutate(text) {
  for (const { find, replace } of [mutant, ...(mutant.also ?? [])]) {
    if (text.split(find).length !== 2) {
      throw new Error("the mutant's text is not there exactly once: " + find);
    }
    text = text.replace(find, () => replace);
  }
  return text;
}
export async function load(url, context, next) {
  if (!url.endsWith(".ts")) return next(url, context);
  let text = readFileSync(fileURLToPath(url), "utf8");
  if (mutant !== null && url.endsWith("/" + mutant.file)) text = mutate(text);
  return { format: "module", source: strip(text), shortCircuit: true };
}`;
const register = (mutant) =>
  dataUrl(`import { register } from "node:module";
register(${JSON.stringify(dataUrl(hooks(mutant)))});`);

/** Runs `count` seeds from `first` on; stops at the first that fails. */
export function runSeeds(scenario, first, count, { mutant, untilMs = 0 } = {}) {
  return new Promise((resolve, reject) => {
    const main = join(root, "test/simulation/main.ts");
    // Most of what a world makes is garbage a moment later.
    const young = "--max-semi-space-size=32";
    const args = [young, "--import", register(mutant), main, scenario, first, count, untilMs];
    const child = spawn(process.execPath, args.map(String), { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let err = "";
    child.stdout.on("data", (bytes) => (out += bytes));
    child.stderr.on("data", (bytes) => (err += bytes));
    child.once("exit", (code) => {
      const lines = out
        .trim()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line));
      const total = lines.at(-1);
      if (code !== 0 || total?.ran === undefined) return reject(new Error(err || `exit ${code}`));
      const found = lines.find((line) => line.violation !== undefined);
      const trace = lines.find((line) => line.traceHash !== undefined);
      resolve({ ran: total.ran, totals: total.totals, found, traceHash: trace?.traceHash });
    });
  });
}

function report({ scenario, seed, violation, trace }) {
  for (const line of trace) console.log(`  ${line}`);
  console.log(`\n${scenario}: ${violation}`);
  console.log(`replay: npm run sim -- --scenario ${scenario} --seed ${seed}`);
}

/** Several pieces of work at once; resolves with their results in order. */
async function pool(jobs, work) {
  const results = [];
  let next = 0;
  const lane = async () => {
    while (next < work.length) {
      const index = next++;
      results[index] = await work[index]();
    }
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  return results;
}

/** Every slip must be noticed. @returns those that were not */
export async function runMutants(jobs) {
  const missed = [];
  await pool(
    jobs,
    MUTANTS.map((mutant) => async () => {
      const { ran, found } = await runSeeds(mutant.scenario, mutant.first ?? 1, mutant.seeds, {
        mutant,
      });
      if (found === undefined) missed.push(mutant.name);
      const how =
        found === undefined ? `NOT NOTICED in ${ran} seeds` : `noticed at seed ${found.seed}`;
      console.log(
        `${mutant.name}: ${how}${found === undefined ? "" : ` (${found.violation})`}`.slice(0, 200),
      );
    }),
  );
  return missed;
}

/** Fresh seeds of all scenarios in turn. @returns what happened, and the first that failed */
export async function runFresh(scenarios, options, jobs) {
  const first = options.from;
  const until = options.minutes === undefined ? 0 : Date.now() + options.minutes * 60_000;
  const totals = {};
  const ran = Object.fromEntries(scenarios.map((name) => [name, 0]));
  let failed;
  let chunk = 0;
  const lane = async () => {
    for (;;) {
      const index = chunk++;
      const scenario = scenarios[index % scenarios.length];
      const done = Math.floor(index / scenarios.length) * CHUNK;
      if (failed !== undefined || (until > 0 && Date.now() > until)) return;
      if (options.seeds !== undefined && done >= options.seeds) return;
      const count = options.seeds === undefined ? CHUNK : Math.min(CHUNK, options.seeds - done);
      const result = await runSeeds(scenario, first + done, count, { untilMs: until });
      ran[scenario] += result.ran;
      for (const [name, number] of Object.entries(result.totals)) {
        totals[name] = (totals[name] ?? 0) + number;
      }
      failed ??= result.found;
    }
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  const sum = Object.values(ran).reduce((a, b) => a + b, 0);
  console.log(`${sum} seeds from ${first} on: ${JSON.stringify(ran)}`);
  console.log(`what happened in them: ${JSON.stringify(totals)}`);
  return { failed, totals };
}

/** So many sequences of operations on whole daemons; each is drawn from a seed of its own. */
async function runModel(first, count, jobs) {
  const chunk = Math.min(500, Math.ceil(count / jobs));
  const totals = {};
  let begun = 0;
  let failed;
  const lane = async () => {
    while (failed === undefined && begun < count) {
      const from = first + begun;
      const size = Math.min(chunk, count - begun);
      begun += size;
      const { found, totals: counts } = await runSeeds("model", from, size);
      for (const [name, number] of Object.entries(counts)) {
        totals[name] = (totals[name] ?? 0) + number;
      }
      failed ??= found;
    }
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  console.log(`sequences from seed ${first} on: ${JSON.stringify(totals)}`);
  if (failed === undefined) return 0;
  for (const line of failed.trace) console.log(`  ${line}`);
  console.log(`\n${failed.violation}`);
  console.log(`replay: npm run sim -- --model 1 --seed ${failed.seed}`);
  return 1;
}

async function main() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      scenario: { type: "string" },
      seeds: { type: "string" },
      minutes: { type: "string" },
      jobs: { type: "string" },
      mutants: { type: "boolean", default: false },
      model: { type: "string" },
    },
  });
  const jobs = Number(values.jobs ?? cpus().length);
  if (values.mutants) {
    const missed = await runMutants(jobs);
    console.log(`\n${MUTANTS.length - missed.length} of ${MUTANTS.length} slips were noticed`);
    return missed.length === 0 ? 0 : 1;
  }
  if (values.model !== undefined) {
    const first = values.seed ?? Math.floor(Date.now() / 1_000) % 1_000_000;
    return runModel(Number(first), Number(values.model), jobs);
  }
  const scenarios = values.scenario === undefined ? SCENARIOS : [values.scenario];
  if (values.seed !== undefined) {
    for (const scenario of scenarios) {
      const { found, traceHash } = await runSeeds(scenario, Number(values.seed), 1);
      if (found !== undefined) report(found);
      else console.log(`${scenario}, seed ${values.seed}: holds (trace ${traceHash})`);
      if (found !== undefined) return 1;
    }
    return 0;
  }
  // Seeds that failed once, then fresh ones: another day, other seeds.
  const known = readFileSync(join(root, "test/simulation/seeds.txt"), "utf8")
    .split("\n")
    .filter((line) => /^\w+ \d+/.test(line))
    .map((line) => line.split(" "));
  for (const [scenario, seed] of known) {
    const { found } = await runSeeds(scenario, Number(seed), 1);
    if (found === undefined) continue;
    report(found);
    return 1;
  }
  const options = {
    from: (Math.floor(Date.now() / 1_000) % 1_000_000) * 1_000 + 1,
    minutes: values.minutes === undefined ? undefined : Number(values.minutes),
    seeds:
      values.seeds === undefined
        ? values.minutes === undefined
          ? CHUNK
          : undefined
        : Number(values.seeds),
  };
  const { failed } = await runFresh(scenarios, options, jobs);
  if (failed === undefined) {
    console.log("every invariant held");
    return 0;
  }
  report(failed);
  return 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main();
