// The swarm's schedule: `node scripts/bench/swarm.mjs [MIB [RECEIVERS [UPLOAD_MIB_PER_SECOND]]]`.
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const typescript = pathToFileURL(createRequire(import.meta.url).resolve("typescript")).href;
const dataUrl = (source) => `data:text/javascript,${encodeURIComponent(source)}`;
/** Strips the types as a module is loaded. */
const hooks = `
import ts from ${JSON.stringify(typescript)};
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
export async function load(url, context, next) {
  if (!url.endsWith(".ts")) return next(url, context);
  const { outputText } = ts.transpileModule(readFileSync(fileURLToPath(url), "utf8"), {
    compilerOptions: { module: "esnext", target: "es2023", verbatimModuleSyntax: true },
  });
  return { format: "module", source: outputText, shortCircuit: true };
}`;
const register = dataUrl(`
import { register } from "node:module";
register(${JSON.stringify(dataUrl(hooks))});`);

/** @returns seconds, copies and shares of both rounds */
export function measureSwarm(mib = 128, receivers = 7, uploadMib = 8) {
  const args = ["--import", register, join(root, "test/bench/swarm.ts"), mib, receivers, uploadMib];
  const out = execFileSync(process.execPath, args.map(String), { encoding: "utf8" });
  return JSON.parse(out.trim().split("\n").at(-1));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(JSON.stringify(measureSwarm(...process.argv.slice(2).map(Number)), undefined, 2));
}
