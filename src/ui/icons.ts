/**
 * The only file with raw(): the shapes of the status vocabulary and a few signs, as SVG symbols
 * that a page defines once and uses by reference.
 */
import { raw } from "hono/html";
import { html, type Html } from "./html.ts";
import type { Shape, Tone } from "./status.ts";

const ring = `<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="2"/>`;
const stroke = `fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round"`;

const SYMBOLS: Readonly<Record<Shape | "copy" | "mark" | "lock", string>> = {
  ready: `<circle cx="8" cy="8" r="6" fill="currentColor"/>`,
  building: `${ring}<path d="M8 2.5a5.5 5.5 0 0 1 0 11z" fill="currentColor"/>`,
  waiting: ring,
  stale: `<path d="M8 1.5 14.5 8 8 14.5 1.5 8z" fill="currentColor"/>`,
  failed: `<path d="m3.5 3.5 9 9m0-9-9 9" ${stroke} stroke-width="2.6"/>`,
  unknown: `<path d="M5.2 5.6a2.9 2.9 0 1 1 4.2 2.7c-.9.5-1.4 1-1.4 2" ${stroke}/><circle cx="8" cy="13.2" r="1.3" fill="currentColor"/>`,
  deleting: `<path d="M5.5 3.5h9v9h-9L1.5 8z" ${stroke} stroke-linejoin="round"/><path d="m8 6.2 3.6 3.6m0-3.6L8 9.8" ${stroke}/>`,
  missing: `<path d="M3.5 8h9" ${stroke}/>`,
  copy: `<rect x="5.5" y="5.5" width="8" height="8" rx="1.5" ${stroke} stroke-width="1.4"/><path d="M10.5 3.2a.8.8 0 0 0-.7-.7H3.3a.8.8 0 0 0-.8.8v6.5c0 .4.3.7.7.7" ${stroke} stroke-width="1.4"/>`,
  mark: `<path d="M8 1 14 4.5v7L8 15 2 11.5v-7z" ${stroke} stroke-width="1.6" stroke-linejoin="round"/><circle cx="8" cy="8" r="2" fill="currentColor"/>`,
  lock: `<path d="M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5" ${stroke} stroke-width="1.6" stroke-linejoin="round"/>`,
};
export type IconName = keyof typeof SYMBOLS;

const symbols = Object.entries(SYMBOLS)
  .map(([name, body]) => `<symbol id="i-${name}" viewBox="0 0 16 16">${body}</symbol>`)
  .join("");

/** Once per page, first in the body. */
export const sprite: Html = html`<svg hidden aria-hidden="true">${raw(symbols)}</svg>`;

export const icon = (name: IconName): Html =>
  html`<svg class="i" aria-hidden="true"><use href="#i-${name}" /></svg>`;

const FAVICON_COLOURS: Readonly<Record<Tone, string>> = {
  ok: "#0f766e",
  busy: "#2f5fd0",
  warn: "#b45309",
  bad: "#c0281c",
  idle: "#64748b",
};

export const isTone = (text: string): text is Tone => text in FAVICON_COLOURS;

/** A pinned tab is an alarm: the icon carries the page's tone. */
export const favicon = (tone: Tone): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" color="${FAVICON_COLOURS[tone]}">${SYMBOLS.mark}</svg>`;
