/** What a visitor does: with script, without it, with the keyboard alone. */
import { createHash } from "node:crypto";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { CHROMIUM, watchPage } from "../support/chromium.ts";
import { BUILDING_JOB, READY_JOB, serveUi, tplId, type UiSite } from "../support/ui-site.ts";

let browser: Browser;
let site: UiSite;
let problems: string[];

beforeAll(async () => {
  browser = await chromium.launch(CHROMIUM);
});
afterAll(async () => browser.close());
beforeEach(async () => {
  site = await serveUi();
});
afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
  await site.close();
});

async function open(path: string, options: BrowserContextOptions = {}): Promise<Page> {
  const page = await (await browser.newContext(options)).newPage();
  page.setDefaultTimeout(8_000);
  problems = watchPage(page);
  await page.goto(site.url + path);
  return page;
}

const live = (page: Page) => page.locator('#live[data-state="live"]').waitFor();
/** Ends the open stream as a broken connection does. */
const CUT = "document.body._htmx.sse.reader.cancel()";
const names = () => site.service.calls.map((call) => call.name);

test("a running job's progress, phase and log arrive without a reload", async () => {
  const page = await open(`/ui/jobs/${BUILDING_JOB}`);
  await live(page);
  await page.evaluate('document.body.setAttribute("data-same", "yes")');
  site.service.updateJob(BUILDING_JOB, { progress: 71, phase: "DISTRIBUTING" });
  site.service.addLog(BUILDING_JOB, "<img src=x onerror=alert(1)> is text");
  await page.locator("progress[value='71']").waitFor();
  await page.getByText("<img src=x onerror=alert(1)> is text").waitFor();
  await page.getByText("Distributing (5 of 9) on 1 node.").waitFor();
  expect(await page.locator("#log > li").count()).toBe(7);
  expect(await page.locator("body").getAttribute("data-same")).toBe("yes");
  expect(problems).toEqual([]);
});

test("the end of a job changes the title, the icon and the actions", async () => {
  const page = await open(`/ui/jobs/${BUILDING_JOB}`);
  await live(page);
  site.service.updateJob(BUILDING_JOB, { status: "FAILED", error_message: "the disk is full" });
  await expect.poll(() => page.title()).toMatch(/^Failed/);
  expect(await page.locator("link[rel=icon]").getAttribute("href")).toBe("/ui/icon/bad.svg");
  expect(await page.getByRole("link", { name: "Cancel job" }).count()).toBe(0);
  await page
    .getByText(/the disk is full\./)
    .first()
    .waitFor();
});

test("a live update keeps focus, typed text and opened details", async () => {
  const page = await open(`/ui/templates`);
  await live(page);
  const filter = page.locator("#filter");
  await filter.pressSequentially("pyth");
  site.service.updateJob(BUILDING_JOB, { progress: 77 });
  await page.locator("progress[value='77']").waitFor();
  expect(await filter.inputValue()).toBe("pyth");
  expect(await page.evaluate("document.activeElement.id")).toBe("filter");

  await page.goto(`${site.url}/ui/templates/${tplId("b")}`);
  await live(page);
  await page.locator("#request summary").click();
  site.service.publish("template", tplId("b"));
  site.service.updateJob(BUILDING_JOB, { progress: 78 });
  await page.locator("progress[value='78']").waitFor();
  expect(await page.locator("#request").getAttribute("open")).not.toBeNull();
});

test("a stream that is cut continues where it was, without doubled lines", async () => {
  const page = await open(`/ui/jobs/${BUILDING_JOB}`);
  await live(page);
  site.service.addLog(BUILDING_JOB, "before the cut");
  await page.getByText("before the cut").waitFor();
  await page.context().setOffline(true);
  await page.evaluate(CUT);
  await page.locator('#live[data-state="lost"]').waitFor();
  site.service.addLog(BUILDING_JOB, "during the cut");
  site.service.updateJob(BUILDING_JOB, { progress: 66 });
  await page.context().setOffline(false);
  await page.getByText("during the cut").waitFor();
  await page.locator("progress[value='66']").waitFor();
  expect(await page.locator("#log > li").count()).toBe(8);
});

test("after a restart of the daemon the page loads its state again", async () => {
  const page = await open(`/ui/jobs/${BUILDING_JOB}`);
  await live(page);
  await page.evaluate(CUT);
  site.service.updateJob(BUILDING_JOB, { progress: 55 });
  site.service.restart();
  await page.locator("progress[value='55']").waitFor();
});

test("who uses a template comes after the page, and stays when the page changes", async () => {
  const page = await open(`/ui/templates/${tplId("a")}`);
  await live(page);
  const refs = page.locator(`#refs-${tplId("a")}`);
  await refs.getByText("1 sandbox runs on it.").waitFor();
  expect(await refs.locator("tbody tr").innerText()).toMatch(/sb-4c1f\s+node-a\s+Active.*\s+3\s/s);
  site.service.restart();
  await page.evaluate(CUT);
  site.service.publish("template", tplId("a"));
  await live(page);
  await page.getByRole("link", { name: "Why is it not ready on a node?" }).click();
  await page.getByText("the node is drained").waitFor();
  await refs.getByText("1 sandbox runs on it.").waitFor();
  site.service.refs.length = 0;
  await refs.getByRole("link", { name: "Look again" }).click();
  await refs.getByText("No sandbox runs on it.").waitFor();
  expect(problems).toEqual([]);
});

test("why a replica is not ready is told in a dialog, and leads to its redo", async () => {
  site.service.templates[2]!.replicas[1]!.node_id = "node-b";
  site.service.templates[2]!.desired_nodes = ["node-a", "node-b"];
  const page = await open(`/ui/templates/${tplId("c")}`);
  await page.getByText("It is not ready on 1 of 1 node.").waitFor();
  const row = page.locator(`[id="replica-${tplId("c")}-node-b"]`);
  await row.getByRole("link", { name: "Why?" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("The node is drained.").waitFor();
  await dialog.getByRole("link", { name: "Redo on node-b" }).click();
  await page.getByText("1 node makes its replica anew: node-b.").waitFor();
  expect(names()).toEqual([]);
  expect(problems).toEqual([]);
});

test("deleting asks in a dialog, says what will happen, and Escape leaves all as it is", async () => {
  const page = await open(`/ui/templates/${tplId("c")}`);
  const link = page.getByRole("link", { name: "Delete" });
  await link.focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.getByText(/2 nodes .* remove the replica/).waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  expect(names()).toEqual([]);
  expect(await page.evaluate("document.activeElement.textContent")).toBe("Delete");
  await page.keyboard.press("Enter");
  await dialog.getByRole("button", { name: "Delete template" }).click();
  await page.getByText("The template is being deleted.").waitFor();
  expect(names()).toEqual(["deleteTemplate"]);
  expect(problems).toEqual([]);
});

test("a template in use offers no delete button but names the sandboxes", async () => {
  const page = await open(`/ui/templates/${tplId("a")}/delete`);
  await page.getByText("In use by 1 sandbox: sb-4c1f.").waitFor();
  expect(await page.locator("main form").count()).toBe(0);
});

test("without script a job is cancelled, a sandbox run and stopped, a template made", async () => {
  const page = await open(`/ui/jobs/${BUILDING_JOB}`, { javaScriptEnabled: false });
  await page.getByRole("link", { name: "Cancel job" }).click();
  await page.getByRole("button", { name: "Cancel job" }).click();
  await page.getByText("The job was asked to stop.").waitFor();

  await page.goto(`${site.url}/ui/templates/${tplId("a")}`);
  await page.getByRole("link", { name: "Run sandbox" }).click();
  await page.getByRole("button", { name: "Run sandbox" }).click();
  await page.getByText("The sandbox runs.").waitFor();
  await page.getByRole("link", { name: "Stop" }).first().click();
  await page.getByRole("button", { name: "Stop sandbox" }).click();
  await page.getByText("The sandbox was stopped.").waitFor();

  await page.goto(`${site.url}/ui/templates/new`);
  await page.getByLabel("Image").fill("docker.io/library/busybox:1.36");
  await page.getByRole("button", { name: "Create template" }).click();
  await page.getByText("Accepted. The build has begun").waitFor();
  expect(names()).toEqual(["cancelJob", "runSandbox", "deleteSandbox", "createFromImage"]);
});

test("without script a snapshot is taken, found in the list, gone back to and deleted", async () => {
  const page = await open("/ui/nodes/node-a", { javaScriptEnabled: false });
  await page.getByRole("link", { name: "Snapshot", exact: true }).click();
  await page.getByLabel("Name, if you like").fill("from-a-form");
  await page.getByRole("button", { name: "Take snapshot" }).click();
  await page.waitForURL("**/ui/snapshots/snap-1?notice=snapshot-taken");
  await page.goto(`${site.url}/ui/snapshots`);
  await page.getByRole("searchbox", { name: "Sandbox id" }).fill("sb-4c1f");
  await page.getByRole("button", { name: "Filter" }).click();
  expect(await page.locator("#snapshots tbody tr").count()).toBe(3);
  await page.getByRole("link", { name: "before-upgrade" }).click();
  await page.getByRole("link", { name: "Roll back" }).click();
  await page.getByText("What it did since then is lost").waitFor();
  await page.getByRole("button", { name: "Roll back" }).click();
  await page.getByText("The sandbox runs on the snapshot again.").waitFor();
  await page.getByRole("link", { name: "Deliver", exact: true }).click();
  await page.getByLabel("Every node that it fits").check();
  await page.getByRole("button", { name: "Deliver", exact: true }).click();
  await page.getByText("The nodes have it").waitFor();
  await page.getByRole("link", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Delete snapshot" }).click();
  await page.getByText("The snapshot is gone.").waitFor();
  expect(names()).toEqual([
    ...["createSnapshot", "rollbackSandbox", "deliverSnapshot", "deleteSnapshot"],
  ]);
});

test("who signs in may change things; the browser keeps no token", async () => {
  const token = "a-token-of-the-api";
  const sha256 = createHash("sha256").update(token).digest("hex");
  await site.close();
  site = await serveUi("full", { tokens: [{ name: "api", sha256 }] });
  const page = await open(`/ui/templates/${tplId("c")}`);
  await page.getByRole("link", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("link", { name: "Sign in to delete template" }).click();
  await page.getByLabel("Token").fill("a-wrong-token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("The token is not known.").waitFor();
  expect(await page.getByLabel("Token").inputValue()).toBe("");
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("link", { name: "Sign out" }).waitFor();
  const kept = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])";
  expect(await page.evaluate(kept)).toBe('[{},{},""]');
  const cookies = await page.context().cookies();
  expect(JSON.stringify(cookies)).not.toContain(token);
  expect(cookies.find(({ name }) => name.endsWith("-signin"))).toMatchObject({
    httpOnly: true,
    sameSite: "Strict",
  });
  await page.getByRole("button", { name: "Delete template" }).click();
  await page.getByText("The template is being deleted.").waitFor();
  await page.getByRole("link", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByText("You are signed out").waitFor();
  await page.getByRole("link", { name: "Sign in", exact: true }).waitFor();
  expect(names()).toEqual(["deleteTemplate"]);
});

test("a wrong form comes back with its text, its problems and no password", async () => {
  const page = await open("/ui/templates/new");
  await page.getByLabel("Image").fill("busybox:1");
  await page.getByLabel("Name").fill("Not Good");
  await page.getByText("Registry credentials and guest options").click();
  await page.getByLabel("Registry password").fill("hunter2");
  await page.getByRole("button", { name: "Create template" }).click();
  await page.getByRole("alert").waitFor();
  const name = page.locator("#f-display_name");
  expect(await name.getAttribute("aria-invalid")).toBe("true");
  expect(await name.inputValue()).toBe("Not Good");
  expect(await page.content()).not.toContain("hunter2");
  expect(names()).toEqual([]);
});

test("keys lead through the pages, and can be turned off", async () => {
  const page = await open("/ui/");
  await live(page);
  await page.keyboard.press("g");
  await page.keyboard.press("t");
  await page.waitForURL("**/ui/templates");
  await live(page);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  expect(await page.evaluate("document.activeElement.textContent")).toBe("debian-web");
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/ui/templates/${tplId("a")}`);
  await live(page);
  await page.keyboard.press("p");
  await page.locator('#live[data-state="paused"]').waitFor();

  await page.goto(`${site.url}/ui/help`);
  await page.getByLabel("Keyboard shortcuts").selectOption("off");
  await page.getByLabel("Theme").selectOption("dark");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Your settings were saved in this browser.").waitFor();
  expect(await page.locator("html").getAttribute("data-theme")).toBe("dark");
  expect(await page.locator("body").getAttribute("data-shortcuts")).toBe("off");
});

test("the first stop of Tab skips to the content", async () => {
  const page = await open(`/ui/jobs/${READY_JOB}`);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  expect(await page.evaluate("document.activeElement.id")).toBe("main");
});

test("a new template appears in an open list, which keeps its filter", async () => {
  const page = await open("/ui/templates?status=READY");
  await live(page);
  const { templates } = site.service;
  templates.push({ ...templates[1]!, template_id: tplId("9"), display_name: "fresh" });
  site.service.publish("template", tplId("9"));
  await page.getByRole("link", { name: "fresh" }).waitFor();
  expect(await page.locator("#templates tbody tr").count()).toBe(2);
});

test("without script a join token is made, shown with its command, and revoked", async () => {
  const page = await open("/ui/cluster", { javaScriptEnabled: false });
  await page.getByRole("link", { name: "Make a join token" }).click();
  await page.getByLabel("Good for").selectOption("1 day");
  await page.getByLabel("Nodes that may join").fill("3");
  await page.getByRole("button", { name: "Make token" }).click();
  await page.getByText("templatecenter cluster join tcj1.secret").waitFor();
  expect(site.service.calls[0]?.argument).toEqual({ ttl_seconds: 86_400, uses: 3 });

  await page.getByRole("link", { name: "Back to the cluster" }).click();
  expect(await page.content()).not.toContain("tcj1.secret");
  await page.goto(`${site.url}/ui/cluster/tokens/tok-1/revoke`);
  await page.getByRole("button", { name: "Revoke token" }).click();
  await page.getByText("The token admits nobody any more.").waitFor();
  expect(names()).toEqual(["createJoinToken", "revokeJoinToken"]);
});

test("removing a node asks in a dialog first", async () => {
  const page = await open("/ui/cluster");
  await page.locator("#member-node-2").getByRole("link", { name: "Remove" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("4 nodes are left.").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  expect(names()).toEqual([]);
  expect(await page.locator("#member-node-1").getByRole("link", { name: "Remove" }).count()).toBe(
    0,
  );
});

test("the shares of a swarm move without a reload, and go when all have all", async () => {
  const page = await open(`/ui/templates/${tplId("d")}`);
  await live(page);
  await page.getByText("1 of 4 nodes have all of 128 MiB.").waitFor();
  site.swarms[0] = {
    ...site.swarms[0]!,
    nodes: site.swarms[0]!.nodes.map((node) =>
      node.node_id === "node-2" ? { ...node, have_chunks: 2_048, complete: true } : node,
    ),
  };
  site.service.publish("swarm", "art-1");
  await page.getByText("2 of 4 nodes have all of 128 MiB.").waitFor();
  const [first] = site.swarms[0].nodes;
  const nodes = ["node-1", "node-2", "node-3", "node-4"];
  site.swarms[0] = {
    ...site.swarms[0],
    nodes: nodes.map((node_id) => ({ ...first!, node_id, complete: true })),
  };
  site.service.publish("swarm", "art-1");
  await page.locator(`#swarm-${tplId("d")}`).waitFor({ state: "hidden" });
  expect(problems).toEqual([]);
});

test("an upgrade is previewed in place, and what becomes stale is shown without a reload", async () => {
  const page = await open("/ui/compat");
  await live(page);
  const field = page.getByLabel("Guest image");
  await field.fill("2.0.0");
  await field.press("Enter");
  await page.getByText("3 could start nowhere until they are made again.").waitFor();
  expect(page.url()).toBe(`${site.url}/ui/compat`);
  const refetched = page.waitForRequest((request) => request.url() === `${site.url}/ui/compat`);
  site.service.publish("resnapshot", "cluster");
  await refetched;
  expect(await field.inputValue()).toBe("2.0.0");
  await page.locator("#resnapshot").getByRole("link", { name: "Go on" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Go on" }).click();
  await page.getByText("It goes on, with what failed at the end.").waitFor();
  expect(names()).toEqual(["resumeResnapshot"]);
  expect(problems).toEqual([]);
});
