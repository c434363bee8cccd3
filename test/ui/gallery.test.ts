/** Every page in every state, in real Chromium: light, dark and narrow. */
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { COLOUR_RULES, violations } from "../support/axe.ts";
import { CHROMIUM, watchPage } from "../support/chromium.ts";
import {
  BUILDING_JOB,
  FAILED_JOB,
  READY_JOB,
  serveUi,
  SNAP,
  tplId,
  type SiteKind,
  type UiSite,
} from "../support/ui-site.ts";

const PAGES: readonly (readonly [string, SiteKind | "closed", string])[] = [
  ["overview", "full", "/ui/"],
  ["overview-empty", "empty", "/ui/"],
  ["templates", "full", "/ui/templates"],
  ["templates-empty", "empty", "/ui/templates"],
  ["templates-no-match", "full", "/ui/templates?status=DELETING"],
  ["template-building", "full", `/ui/templates/${tplId("b")}`],
  ["template-ready", "full", `/ui/templates/${tplId("a")}`],
  ["template-partial", "full", `/ui/templates/${tplId("c")}`],
  ["template-failed", "full", `/ui/templates/${tplId("f")}`],
  ["new", "full", "/ui/templates/new"],
  ["delete", "full", `/ui/templates/${tplId("c")}/delete`],
  ["delete-protected", "full", `/ui/templates/${tplId("f")}/delete`],
  ["labels", "full", `/ui/templates/${tplId("a")}/labels`],
  ["rename", "full", `/ui/templates/${tplId("c")}/rename`],
  ["tags", "full", "/ui/tags"],
  ["tags-empty", "empty", "/ui/tags"],
  ["tag", "full", "/ui/tags/stable"],
  ["promote", "full", "/ui/promote?tag=stable"],
  ["promote-confirm", "full", `/ui/promote?tag=stable&template=${tplId("c")}`],
  ["redo", "full", `/ui/templates/${tplId("c")}/redo`],
  ["redo-confirm", "full", `/ui/templates/${tplId("c")}/redo/confirm?redo_mode=ALL`],
  ["template-why-node", "full", `/ui/templates/${tplId("c")}/why?node=node-b`],
  ["artifact", "full", "/ui/artifacts/rfs-1"],
  ["snapshots", "full", "/ui/snapshots"],
  ["snapshots-empty", "empty", "/ui/snapshots"],
  ["snapshot", "full", `/ui/snapshots/${SNAP}`],
  ["snapshot-deliver", "full", `/ui/snapshots/${SNAP}/deliver`],
  ["snapshot-take", "full", "/ui/sandboxes/sb-4c1f/snapshot"],
  ["jobs", "full", "/ui/jobs"],
  ["jobs-empty", "empty", "/ui/jobs"],
  ["job-running", "full", `/ui/jobs/${BUILDING_JOB}`],
  ["job-failed", "full", `/ui/jobs/${FAILED_JOB}`],
  ["job-ready", "full", `/ui/jobs/${READY_JOB}`],
  ["nodes", "full", "/ui/nodes"],
  ["node", "full", "/ui/nodes/node-a"],
  ["node-empty", "empty", "/ui/nodes/node-a"],
  ["cluster", "full", "/ui/cluster"],
  ["cluster-empty", "empty", "/ui/cluster"],
  ["compat", "full", "/ui/compat"],
  ["compat-many", "two", "/ui/compat"],
  ["compat-empty", "empty", "/ui/compat"],
  ["compat-row", "full", `/ui/compat/${tplId("a")}`],
  ["compat-preview", "full", "/ui/compat/preview?guest_image=2.0.0&kernel=6.12"],
  ["storage", "full", "/ui/storage"],
  ["collect", "full", "/ui/storage/collect"],
  ["retention", "full", "/ui/storage/retention"],
  ["retention-tried", "two", "/ui/storage/retention?keep_last=2&unused_days=30"],
  ["export", "full", `/ui/templates/${tplId("a")}/export`],
  ["export-elsewhere", "full", `/ui/templates/${tplId("c")}/export`],
  ["import", "full", "/ui/import"],
  ["cluster-no-quorum", "two", "/ui/cluster"],
  ["overview-no-quorum", "two", "/ui/"],
  ["template-spreading", "full", `/ui/templates/${tplId("d")}`],
  ["token-new", "full", "/ui/cluster/tokens/new"],
  ["token-new-alone", "empty", "/ui/cluster/tokens/new"],
  ["token-revoke", "full", "/ui/cluster/tokens/tok-1/revoke"],
  ["remove", "full", "/ui/cluster/members/node-2/remove"],
  ["remove-blocked", "two", "/ui/cluster/members/node-2/remove"],
  ["drain", "full", "/ui/nodes/node-a/drain"],
  ["sign-in", "closed", "/ui/sign-in"],
  ["delete-closed", "closed", `/ui/templates/${tplId("c")}/delete`],
  ["help", "full", "/ui/help"],
  ["problem", "full", "/ui/jobs/none"],
];

let browser: Browser;
let sites: Record<SiteKind | "closed", UiSite>;
/** One page for all: what is looked at is loaded once, and then shown dark and narrow as well. */
let page: Page;
let problems: string[];

beforeAll(async () => {
  browser = await chromium.launch(CHROMIUM);
  page = await (await browser.newContext()).newPage();
  problems = watchPage(page);
  sites = {
    full: await serveUi("full"),
    empty: await serveUi("empty"),
    two: await serveUi("two"),
    closed: await serveUi("full", { tokens: [{ name: "api", sha256: "00".repeat(32) }] }),
  };
});
afterAll(async () => {
  await browser.close();
  await sites.full.close();
  await sites.empty.close();
  await sites.two.close();
  await sites.closed.close();
});

async function shoot(name: string): Promise<void> {
  const folder = process.env["UI_SHOTS"];
  if (folder !== undefined)
    await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

const overflow = (): Promise<number> =>
  page.evaluate("document.documentElement.scrollWidth - innerWidth");

test.each(PAGES)("%s (%s) is accessible, fits and breaks no policy", async (name, kind, path) => {
  // What the page before complained of when it was left is not this one's.
  await page.goto("about:blank");
  problems.length = 0;
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(sites[kind].url + path);
  expect(await page.title()).toContain("templatecenter");
  // What comes after the page is there as well.
  await page.locator('main [hx-trigger="load"]').first().waitFor({ state: "detached" });
  await shoot(`${name}-light`);
  expect(await violations(page)).toEqual([]);
  expect(await overflow()).toBeLessThanOrEqual(0);

  // The same elements in the same places: only what looks at colours can find more.
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(`${name}-dark`);
  expect(await violations(page, COLOUR_RULES)).toEqual([]);

  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 900 });
  await shoot(`${name}-narrow`);
  expect(await violations(page)).toEqual([]);
  expect(await overflow()).toBeLessThanOrEqual(0);
  expect(problems.filter((text) => !text.includes("404"))).toEqual([]);
});
