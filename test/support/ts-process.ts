/** Runs a TypeScript file in a process of its own, for tests that kill it. */
import { spawn, type ChildProcess } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

const typescriptUrl = pathToFileURL(createRequire(import.meta.url).resolve("typescript")).href;
const dataUrl = (source: string): string => `data:text/javascript,${encodeURIComponent(source)}`;

/** Strips the types as a module is loaded. */
const hooks = `
import ts from ${JSON.stringify(typescriptUrl)};
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
export async function load(url, context, next) {
  if (!url.endsWith(".ts")) return next(url, context);
  const { outputText } = ts.transpileModule(readFileSync(fileURLToPath(url), "utf8"), {
    compilerOptions: { module: "esnext", target: "es2023", verbatimModuleSyntax: true },
  });
  return { format: "module", source: outputText, shortCircuit: true };
}`;
const register = `
import { register } from "node:module";
register(${JSON.stringify(dataUrl(hooks))});`;

/** @param file relative to the folder `test` */
export function startTypeScript(file: string, args: readonly string[]): ChildProcess {
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url));
  return spawn(process.execPath, ["--import", dataUrl(register), path, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
}
