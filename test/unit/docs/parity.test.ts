/** docs/parity.md has a row for every symbol of the predecessor; none points at nothing. */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import ts from "typescript";
import { expect, test } from "vitest";
import { registerDaemon } from "../../../src/daemon/cli/daemon.ts";
import type { CliIo } from "../../../src/daemon/cli/io.ts";
import { runCli } from "../../../src/daemon/cli/run.ts";
import { ROUTES } from "../../../src/daemon/http/routes/all.ts";
import { fakeClock, steadyRandom } from "../../support/source-ports.ts";

const root = join(import.meta.dirname, "../../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => ({ path: `src/${path}`, text: read(`src/${path}`) }));

const symbols = read("test/fixtures/seed-symbols.txt")
  .split("\n")
  .filter((line) => line !== "" && !line.startsWith("#"))
  .map((line) => line.split(" "))
  .map(([kind, name, value]) => ({ kind: kind ?? "", name: name ?? "", value }));

const COLUMNS = ["symbol", "here", "route", "command", "test", "state"] as const;
type Row = Record<(typeof COLUMNS)[number], string>;

const rows = read("docs/parity.md")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => {
    const cells = line.split("|").slice(1, -1);
    expect(cells, line).toHaveLength(COLUMNS.length);
    return Object.fromEntries(
      COLUMNS.map((column, index) => [column, (cells[index] ?? "").trim()]),
    ) as Row;
  });
const built = rows.filter(({ state }) => state === "built");
const quoted = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");
const rowOf = (name: string) => built.find(({ symbol }) => symbol === `\`${name}\``);
const each = (column: keyof Row) =>
  built.flatMap((row) => quoted(row[column]).map((text) => [row.symbol, text] as const));

const parsed = new Map<string, ts.SourceFile>();
function parse(path: string): ts.SourceFile {
  const file =
    parsed.get(path) ?? ts.createSourceFile(path, read(path), ts.ScriptTarget.Latest, true);
  parsed.set(path, file);
  return file;
}

function* nodesOf(node: ts.Node): Generator<ts.Node> {
  yield node;
  for (const child of node.getChildren()) yield* nodesOf(child);
}

const DECLARATIONS: readonly ((node: ts.Node) => boolean)[] = [
  ...[ts.isFunctionDeclaration, ts.isVariableDeclaration, ts.isClassDeclaration],
  ...[ts.isInterfaceDeclaration, ts.isTypeAliasDeclaration, ts.isMethodDeclaration],
  ...[ts.isMethodSignature, ts.isPropertyAssignment, ts.isShorthandPropertyAssignment],
];

/** What is declared under that name in that file. */
function declarationsOf(path: string, name: string): ts.Node[] {
  return [...nodesOf(parse(path))].filter(
    (node) =>
      DECLARATIONS.some((is) => is(node)) && (node as ts.NamedDeclaration).name?.getText() === name,
  );
}

/** Names of tests and groups as they are written, those of `each` with their placeholders. */
function titlesOf(path: string): string[] {
  return [...nodesOf(parse(path))].flatMap((node) => {
    if (!ts.isCallExpression(node)) return [];
    const [title] = node.arguments;
    const caller = node.expression.getText();
    if (title === undefined || !/^(it|test|describe)\b/.test(caller)) return [];
    return ts.isStringLiteralLike(title) ? [title.text] : [];
  });
}

async function commandLines(): Promise<Set<string>> {
  let program: Command | undefined;
  const io = { out: () => undefined, err: () => undefined, env: {}, columns: 0 };
  await runCli(["--version"], io as unknown as CliIo, {
    version: "1",
    extraCommands(made) {
      program = made;
      const ports = { clock: fakeClock(), random: steadyRandom, version: "1" };
      registerDaemon(made, io as unknown as CliIo, ports);
    },
  });
  const lines = new Set<string>();
  const walk = (command: Command, above: string) => {
    for (const child of command.commands) {
      for (const name of [child.name(), ...child.aliases()]) {
        lines.add(above + name);
        walk(child, `${above}${name} `);
      }
    }
  };
  if (program !== undefined) walk(program, "");
  return lines;
}

test("every symbol of the predecessor has one row, and there is no other", () => {
  expect(symbols.length).toBeGreaterThan(140);
  const named = rows.map(({ symbol }) => quoted(symbol)[0]);
  expect(named.toSorted()).toEqual(symbols.map(({ name }) => name).toSorted());
});

test("a row is built and shown, or open, or left out with the reason", () => {
  for (const { symbol, state, here, route, command, test: shownBy } of rows) {
    if (state === "built") {
      expect([symbol, quoted(here).length > 0, quoted(shownBy).length]).toEqual([symbol, true, 1]);
      continue;
    }
    expect(state, symbol).toMatch(/^(open|left out): \w+/);
    expect([symbol, here, route, command, shownBy]).toEqual([symbol, "–", "–", "–", "–"]);
  }
});

test("what a row says is here is declared there", () => {
  const missing = each("here").filter(([, place]) => {
    const [path = "", name = ""] = place.split("#");
    return !existsSync(join(root, path)) || declarationsOf(path, name).length === 0;
  });
  expect(missing).toEqual([]);
});

test("a constant's value is in what its row names, and is used", () => {
  for (const { name, value } of symbols) {
    const row = rowOf(name);
    if (row === undefined || value === undefined) continue;
    const places = quoted(row.here).map((place) => place.split("#"));
    const declared = places
      .flatMap(([path = "", declaration = ""]) => declarationsOf(path, declaration))
      .map((node) => node.getText())
      .join("\n");
    expect(declared, name).toMatch(new RegExp(`\\b${value}\\b`));
    // By its value, or by the name of a constant that has no other.
    const [, own = `"${value}"`] = /^(\w+) = "\w+"$/.exec(declared) ?? [];
    const uses = sources.reduce((sum, { text }) => sum + text.split(own).length - 1, 0);
    expect([name, uses > 1]).toEqual([name, true]);
  }
});

test("an error's code is thrown somewhere", () => {
  const others = sources.filter(({ path }) => path !== "src/domain/errors.ts");
  const text = others.map((file) => file.text).join("\n");
  for (const { kind, name } of symbols) {
    const row = rowOf(name);
    if (kind !== "error" || row === undefined) continue;
    const code = quoted(row.here)[0]?.split("#")[1] ?? "";
    expect(text, name).toMatch(new RegExp(`AppError\\(\\s*"${code}"|: "${code}"`));
  }
});

test("each route and command is there", async () => {
  const routes = ROUTES.map(({ spec }) => `${spec.method.toUpperCase()} ${spec.path}`);
  for (const [symbol, route] of each("route")) expect(routes, symbol).toContain(route);
  const commands = await commandLines();
  for (const [symbol, command] of each("command")) {
    expect([symbol, command, commands.has(command)]).toEqual([symbol, command, true]);
  }
});

test("each test is there, by the words of its name", () => {
  const missing = each("test").filter(([, shownBy]) => {
    const [, path = "", words = ""] = /^(\S+\.test\.ts): (.+)$/.exec(shownBy) ?? [];
    if (path === "" || !existsSync(join(root, path))) return true;
    return !titlesOf(path).some((title) => title.includes(words));
  });
  expect(missing).toEqual([]);
});

test("says what is open", () => {
  const open = rows.filter(({ state }) => state.startsWith("open"));
  const names = open.map(({ symbol }) => quoted(symbol)[0]).join(" ");
  console.log(`parity: ${built.length} of ${rows.length} built, ${open.length} open: ${names}`);
  expect(built.length + open.length).toBeLessThanOrEqual(symbols.length);
});
