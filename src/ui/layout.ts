import { html, join, nothing, type Html } from "./html.ts";
import { icon, sprite } from "./icons.ts";
import type { Settings } from "./session.ts";
import { signInUrl, type Access } from "./access.ts";
import type { Tone } from "./status.ts";

/** What every page knows of its surroundings. */
export interface PageContext {
  readonly nodeId: string;
  readonly version: string;
  readonly now: number;
  readonly token: string;
  /** A fresh key for each form (Idempotency-Key). */
  readonly submissionKey: () => string;
  readonly settings: Settings;
  readonly access: Access;
  /** The address that was asked for, with its query. */
  readonly here: string;
  readonly scriptUrl: string;
  readonly styleUrl: string;
  /** What the visitor just did, in words. */
  readonly notice: string | undefined;
}

export interface PageView {
  readonly title: string;
  readonly tone: Tone;
  readonly section: (typeof SECTIONS)[number][0] | "snapshots" | "help";
  /** The page's own address with its query. */
  readonly path: string;
  /** The same resource in the API. */
  readonly jsonUrl?: string;
  readonly command?: string;
  /** Address of the page's one stream; none on pages that do not change. */
  readonly streamUrl?: string;
  /** Without script a page with running work reloads itself. */
  readonly refresh?: boolean;
  readonly body: Html;
}

const SECTIONS = [
  ["overview", "/ui/", "Overview", "o"],
  ["templates", "/ui/templates", "Templates", "t"],
  ["snapshots", "/ui/snapshots", "Snapshots", "p"],
  ["jobs", "/ui/jobs", "Jobs", "j"],
  ["nodes", "/ui/nodes", "Nodes", "n"],
  ["cluster", "/ui/cluster", "Cluster", "c"],
  ["compat", "/ui/compat", "Compat", "m"],
  ["storage", "/ui/storage", "Storage", "s"],
] as const;

/** Nothing where no token is asked for. */
function visitor({ access, here }: PageContext): Html {
  if (!access.required || (access.mayChange && access.name === undefined)) return nothing;
  return access.name === undefined
    ? html`<a class="me" href="${signInUrl(here)}" title="You can read; changes need a token"
        >Sign in</a
      >`
    : html`<a class="me" href="/ui/sign-in" title="You are signed in as ${access.name}"
        >Sign out</a
      >`;
}

/** The button of a form that changes something; for who may not, the way to sign in. */
export const submitButton = (page: PageContext, verb: string, kind: string): Html =>
  page.access.mayChange
    ? html`<button type="submit" class="btn ${kind}">${verb}</button>`
    : html`<a class="btn primary" href="${signInUrl(page.here)}"
        >Sign in to ${verb.charAt(0).toLowerCase()}${verb.slice(1)}</a
      >`;

const header = (view: PageView, page: PageContext): Html =>
  html`<header class="top">
    <div class="in">
      <a class="brand" href="/ui/">${icon("mark")}<b>templatecenter</b></a>
      <nav aria-label="Main">
        ${join(
          SECTIONS.map(([name, href, word, key]) =>
            view.section === name
              ? html`<a href="${href}" data-key="${key}" aria-current="page">${word}</a>`
              : html`<a href="${href}" data-key="${key}">${word}</a>`,
          ),
        )}
      </nav>
      <a
        class="me"
        href="/ui/nodes/${page.nodeId}"
        title="This page is served by node ${page.nodeId}"
        >${page.nodeId}</a
      >
      ${visitor(page)}
      <button type="button" class="live" id="live" hidden aria-pressed="false">Connecting</button>
      <noscript><a class="live" href="${view.path}">Refresh</a></noscript>
    </div>
  </header>`;

const footer = (view: PageView, page: PageContext): Html =>
  html`<footer class="foot">
    <div class="in">
      <span>templatecenter ${page.version} on ${page.nodeId}</span>
      ${view.jsonUrl === undefined ? nothing : html`<a href="${view.jsonUrl}">JSON</a>`}
      ${view.command === undefined ? nothing : html`<code>$ ${view.command}</code>`}
      <span class="push"></span><a href="/ui/help" data-key="h">Settings and help</a>
    </div>
  </footer>`;

/** `<main>` alone is what a resumed stream refetches when it is too far behind. */
function main(view: PageView, page: PageContext): Html {
  const said =
    page.notice === undefined ? nothing : html`<p class="notice" role="status">${page.notice}</p>`;
  return html`<main
    id="main"
    tabindex="-1"
    data-title="${view.title}"
    data-tone="${view.tone}"
    hx-get="${view.path}"
    hx-trigger="reload-needed from:body"
    hx-select="#main"
    hx-target="#main"
    hx-swap="outerMorph"
  >
    ${said}${view.body}
  </main>`;
}

const stream = (view: PageView): Html =>
  view.streamUrl === undefined
    ? nothing
    : html` hx-sse:connect="${view.streamUrl}" hx-sse:close="stream-full" hx-swap="none"`;

/** A whole document. */
export const layout = (view: PageView, page: PageContext): Html =>
  html`<!doctype html>
    <html lang="en" data-theme="${page.settings.theme}" data-density="${page.settings.density}">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="htmx-config" content='{"extensions":"sse,tc","includeIndicatorCSS":false}' />
        <title>${view.title} · templatecenter</title>
        <link rel="icon" href="/ui/icon/${view.tone}.svg" type="image/svg+xml" />
        <link rel="stylesheet" href="${page.styleUrl}" />
        <script src="${page.scriptUrl}" defer></script>
        ${
          view.refresh === true
            ? html`<noscript><meta http-equiv="refresh" content="5" /></noscript>`
            : nothing
        }
      </head>
      <body
        data-shortcuts="${page.settings.shortcuts}"
        hx-headers:inherited='{"X-CSRF-Token":"${page.token}"}'
        ${stream(view)}
      >
        ${sprite}<a class="skip" href="#main">Skip to content</a>
        ${header(view, page)}${main(view, page)}${footer(view, page)}
        <dialog id="dialog" aria-labelledby="confirm-title"></dialog>
        <p class="vh" id="announce" role="status"></p>
        <p class="offline" id="offline" role="status" hidden></p>
      </body>
    </html>`;

/** The hidden fields of every form that changes something. */
export const formFields = (page: PageContext): Html =>
  html`<input type="hidden" name="csrf_token" value="${page.token}" /><input
      type="hidden"
      name="idempotency_key"
      value="${page.submissionKey()}"
    />`;
