/** Taste made mechanical (conventions §10). */
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const tracked = execFileSync("git", ["ls-files", "-co", "--exclude-standard"], { cwd: root })
  .toString()
  .split("\n")
  .filter((path) => path !== "");
const sources = tracked.filter((path) => /^src\/.*\.ts$/.test(path));
const text = (path: string) => readFileSync(join(root, path), "utf8");

/** Lines of each function, without the lines of the functions inside it. */
function functionLengths(path: string): { name: string; lines: number }[] {
  const file = ts.createSourceFile(path, text(path), ts.ScriptTarget.Latest, true);
  const found: { name: string; lines: number }[] = [];
  const lineOf = (position: number) => file.getLineAndCharacterOfPosition(position).line;
  const visit = (node: ts.Node): number => {
    let inner = 0;
    node.forEachChild((child) => void (inner += visit(child)));
    if (!ts.isFunctionLike(node)) return inner;
    const lines = lineOf(node.end) - lineOf(node.getStart()) + 1;
    found.push({
      name: node.name?.getText() ?? `line ${lineOf(node.getStart()) + 1}`,
      lines: lines - inner,
    });
    return lines;
  };
  visit(file);
  return found;
}

describe("every source file", () => {
  test.each(sources)("%s is short, and so are its functions", (path) => {
    expect(text(path).split("\n").length, "lines").toBeLessThanOrEqual(501);
    const long = functionLengths(path).filter(({ lines }) => lines > 70);
    expect(long).toEqual([]);
  });

  test.each(sources)("%s has one thing's name, and no default export or marker", (path) => {
    const name = path.split("/").at(-1) ?? "";
    expect(name).toMatch(/^[a-z0-9-]+\.ts$/);
    expect(name).not.toMatch(/^(utils?|helpers?|common|manager|misc)\.ts$/);
    expect(text(path)).not.toMatch(/^export default/m);
    expect(text(path)).not.toMatch(/\b(FIXME|TODO|XXX)\b/);
    expect(text(path)).not.toMatch(/^\s*(export )?(const )?(enum|namespace) /m);
  });
});

describe("the repository", () => {
  test("holds no large file", () => {
    const large = tracked.filter((path) => {
      // Images, and what is generated from the whole API.
      const isLarge = path.startsWith("docs/images/") || path === "openapi.json";
      const limit = isLarge ? 400_000 : 200_000;
      return path !== "package-lock.json" && statSync(join(root, path)).size > limit;
    });
    expect(large).toEqual([]);
  });
  test("names no path of the machine it was written on", () => {
    const own = ["/work/", "/root/"].map((start) => `${start}main`);
    const marked = tracked.filter(
      (path) => path !== "package-lock.json" && own.some((start) => text(path).includes(start)),
    );
    expect(marked).toEqual([]);
  });
  test("has a changelog with the headings of Keep a Changelog", () => {
    const headings = [...text("CHANGELOG.md").matchAll(/^### (.*)$/gm)].map((match) => match[1]);
    const known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    expect(headings.length).toBeGreaterThan(0);
    expect(headings.every((heading) => known.includes(heading ?? ""))).toBe(true);
  });
  test("has a lock file without download addresses", () => {
    expect(text("package-lock.json")).not.toContain('"resolved"');
  });
});
