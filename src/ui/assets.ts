/**
 * The page's own files, read once at start. One script: the stream extension has to be there before
 * htmx looks at the body, and two deferred files lose that race (ui-notes §0.2).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

export interface Asset {
  /** Holds the hash of the content, so it may be kept for ever. */
  readonly url: string;
  readonly body: string;
  /** The same, packed once: a third of it goes over the wire. */
  readonly gzip: Uint8Array<ArrayBuffer>;
  readonly type: string;
}

/** One sheet by area; later ones win, and what depends on screen or paper wins over all. */
const SHEETS = ["shell.css", "parts.css", "work.css", "forms.css", "screens.css"];

const require = createRequire(import.meta.url);
const own = (name: string): string =>
  readFileSync(new URL(`./assets/${name}`, import.meta.url), "utf8");

/** Comments of whole lines and indentation; nothing that needs a parser. */
const squeeze = (source: string): string =>
  source
    .replace(/^\s*\/\*[\s\S]*?\*\/\s*$/gm, "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("//"))
    .join("\n");

/** `--card` to `--b`: nobody but the sheet itself names its properties. */
function shortNames(sheet: string): string {
  const names = [...new Set(sheet.match(/--[a-z]+/g))];
  return sheet.replace(/--[a-z]+/g, (name) => `--${names.indexOf(name).toString(36)}`);
}

/** Blanks that mean nothing between the signs of a style sheet of ours. */
const squeezeStyle = (source: string): string =>
  shortNames(squeeze(source))
    .replace(/\s*([{};,>])\s*/g, "$1")
    .replace(/:\s+/g, ":")
    .replaceAll(";}", "}")
    .replace(/="([a-z]+)"\]/g, "=$1]")
    .replace(/([ (,:-])0\.(\d)/g, "$1.$2");

/** Blanks around operators and brackets; no text that our script shows has these signs. */
const squeezeScript = (source: string): string =>
  squeeze(source)
    .replace(/ (=>|===|!==|=|&&|\|\||\?|<|>|\+|-) /g, "$1")
    .replace(/\) \{/g, "){")
    .replace(/\b(if|for|while) \(/g, "$1(")
    .replace(/\{ | \}/g, (sign) => sign.trim())
    .replace(/([{;,])\n/g, "$1")
    .replace(/;\}/g, "}")
    .replaceAll(", ", ",");

function asset(stem: string, extension: string, type: string, body: string): Asset {
  const hash = createHash("sha256").update(body).digest("hex").slice(0, 16);
  const gzip = new Uint8Array(gzipSync(body, { level: 9 }));
  return { url: `/ui/assets/${stem}-${hash}.${extension}`, body, gzip, type };
}

/** Script and style of every page. @throws Error when the package lacks one of its files. */
export function loadAssets(): { script: Asset; style: Asset } {
  const library = (path: string): string =>
    readFileSync(require.resolve(`htmx.org/dist/${path}`), "utf8").replace(
      /\n\/\/# source.*$/m,
      "",
    );
  const script = [
    library("htmx.min.js"),
    library("ext/hx-sse.min.js"),
    squeezeScript(own("app.js")),
  ].join(";\n");
  return {
    script: asset("app", "js", "text/javascript; charset=utf-8", script),
    style: asset("app", "css", "text/css; charset=utf-8", squeezeStyle(SHEETS.map(own).join(""))),
  };
}
