// Runs a TypeScript file of test/bench in a process of its own.
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

/**
 * @param {string[]} [flags] of Node
 * @returns what its last line says, parsed
 */
export function runTypeScript(file, args, flags = []) {
  const command = [...flags, "--import", register, join(root, "test/bench", file), ...args];
  const out = execFileSync(process.execPath, command.map(String), { encoding: "utf8" });
  return JSON.parse(out.trim().split("\n").at(-1));
}
