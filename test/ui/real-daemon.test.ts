/**
 * The page of the real daemon in a real browser: a template is asked for, made, run and deleted.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { CHROMIUM, watchPage } from "../support/chromium.ts";
import { TestDaemon } from "../support/daemon.ts";

let browser: Browser;
let page: Page;
let daemon: TestDaemon;
let work: string;
let image: string;
let problems: string[];

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "tc-page-"));
  image = (await assembleDemoImage(join(work, "image"))).reference;
  daemon = await TestDaemon.make("qemu");
  await daemon.start();
  browser = await chromium.launch(CHROMIUM);
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  problems = watchPage(page);
});

afterAll(async () => {
  await browser?.close();
  await daemon?.remove();
  await rm(work, { recursive: true, force: true });
});

test("an empty daemon says what to do first", async () => {
  await page.goto(daemon.url);
  expect(new URL(page.url()).pathname).toMatch(/^\/ui\/?$/);
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  expect(await page.getByRole("link", { name: "New template" }).count()).toBeGreaterThan(0);
});

test("a template asked for on the page becomes READY before the reader's eyes", async () => {
  await page.goto(`${daemon.url}/ui/templates/new`);
  await page.evaluate(
    "document.querySelectorAll('details').forEach((one) => { one.open = true; })",
  );
  await page.locator('[name="source_image_ref"]').fill(image);
  await page.locator('[name="display_name"]').fill("from-the-page");
  await page.locator('[name="writable_layer_size"]').fill("1Gi");
  for (const [name, value] of [
    ["mem", "128Mi"],
    ["exposed_ports", "8080"],
    ["probe_port", "8080"],
    ["probe_path", "/health"],
  ] as const) {
    const field = page.locator(`[name="${name}"]`);
    await field.fill(value);
  }
  await page.locator('main form button[type="submit"]').first().click();
  await page.waitForURL(/\/ui\/(jobs|templates)\/(?!new)/);
  // No reload: the stream brings the end of the job, and what can be done then.
  await page
    .getByText(/Run a sandbox/)
    .first()
    .waitFor({ timeout: 150_000 });
  await expect
    .poll(async () => (await daemon.ask("GET", "/v1/templates/from-the-page")).body["status"], {
      timeout: 60_000,
    })
    .toBe("READY");
  await page.goto(`${daemon.url}/ui/templates/from-the-page`);
  const text = await page.locator("main").innerText();
  for (const phase of ["Pulling", "Unpacking", "Building ext4", "Snapshotting", "Registering"]) {
    expect(text).toContain(phase);
  }
  expect(text).toContain("phase SNAPSHOTTING");
}, 240_000);

test("its compat is judged on the page, again when it is asked, and against an upgrade", async () => {
  await page.goto(`${daemon.url}/ui/compat`);
  const cell = page.locator("#heat-map td.ok");
  expect(await cell.innerText()).toBe("OK");
  await page.getByRole("link", { name: "Scan all nodes" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Scan all nodes" }).click();
  await page.getByText("The nodes have judged their replicas again.").waitFor();
  expect(await cell.innerText()).toBe("OK");
  await page.getByLabel("Guest image").fill("9.0");
  await page.getByRole("button", { name: "Preview" }).click();
  await page.getByText("1 could start nowhere until they are made again.").waitFor();
}, 120_000);

test("its memory is made anew from the page, and the page said before where", async () => {
  await page.goto(`${daemon.url}/ui/templates/from-the-page`);
  await page.getByRole("link", { name: "Redo", exact: true }).click();
  await page.getByLabel(/Memory only/).check();
  await page.getByRole("button", { name: "Go on" }).click();
  await page.getByText(/^1 node makes its replica anew: /).waitFor();
  await page.getByText(/root filesystem stays as it is/).waitFor();
  await page.getByRole("button", { name: "Redo" }).click();
  await page.waitForURL(/\/ui\/jobs\//);
  const done = page.locator("main").getByText(/^Finished in .*; ready on 1 of 1 node/);
  await done.waitFor({ timeout: 120_000 });
}, 180_000);

test("it is labelled, tagged and protected on the page, and found again", async () => {
  await page.goto(`${daemon.url}/ui/templates/from-the-page`);
  await page.getByRole("link", { name: "Edit labels" }).click();
  await page.getByLabel(/^Labels, one on a line/).fill("team=web\nstage=production");
  await page.getByRole("button", { name: "Save labels" }).click();
  await page.getByText("The labels were saved.").waitFor();
  await page.goto(`${daemon.url}/ui/templates?label=stage%3Dproduction`);
  expect(await page.locator("#templates tbody tr").count()).toBe(1);
  await page.goto(`${daemon.url}/ui/templates?label=stage%3Dtest`);
  await page.getByText("Nothing matches").waitFor();

  await page.goto(`${daemon.url}/ui/promote?tag=production&template=from-the-page`);
  await page.getByRole("button", { name: "Make tag" }).click();
  await page.getByText("The tag points there now.").waitFor();
  const { body } = await daemon.ask("GET", "/v1/templates/production");
  expect(body["display_name"]).toBe("from-the-page");

  await page.goto(`${daemon.url}/ui/templates/from-the-page`);
  await page.getByRole("link", { name: "Protect", exact: true }).click();
  await page.getByRole("button", { name: "Protect", exact: true }).click();
  await page.getByText("It is protected from deletion.").waitFor();
  await page.getByRole("link", { name: "Delete", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("It is protected from deletion, also from retention.").waitFor();
  expect(await dialog.getByRole("button").filter({ hasText: "Delete" }).count()).toBe(0);
  await dialog.getByRole("link", { name: "Unprotect" }).click();
  await page.getByRole("button", { name: "Unprotect" }).click();
  await page.getByText("It can be deleted again.", { exact: true }).waitFor();
}, 120_000);

test("it goes out as a bundle and comes in again; a damaged one is refused", async () => {
  await page.goto(`${daemon.url}/ui/templates/from-the-page`);
  await page.getByRole("link", { name: "Export" }).click();
  const [download] = await Promise.all([
    page.waitForEvent("download", { timeout: 60_000 }),
    page.getByRole("button", { name: "Download bundle" }).click(),
  ]);
  expect(download.suggestedFilename()).toMatch(/^tpl-[0-9a-f]+\.bundle$/);
  const file = join(work, "page.bundle");
  await download.saveAs(file);

  const bytes = await readFile(file);
  const damaged = join(work, "damaged.bundle");
  const middle = bytes.length >> 1;
  bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
  await writeFile(damaged, bytes);
  const send = async (path: string) => {
    await page.goto(`${daemon.url}/ui/import`);
    await page.getByLabel("Name").fill("came-back");
    await page.getByLabel("Under a new id").check();
    await page.getByLabel("Bundle").setInputFiles(path);
    await page.getByRole("button", { name: "Import" }).click();
  };
  await send(damaged);
  await page.getByText("The bundle is damaged, or the file is none.").waitFor({ timeout: 60_000 });
  expect(await page.getByLabel("Name").inputValue()).toBe("came-back");
  // The browser tells of every answer that is no success.
  expect(problems.splice(0).join()).toMatch(/^Failed to load resource: .* 422/);

  await send(file);
  await page.waitForURL(/\/ui\/jobs\//, { timeout: 60_000 });
  const done = page.locator("main").getByText(/^Finished in .*; ready on 1 of 1 node/);
  await done.waitFor({ timeout: 120_000 });
  const { body } = await daemon.ask("GET", "/v1/templates/came-back");
  expect(body).toMatchObject({ status: "READY", labels: { team: "web" } });
}, 300_000);

test("the rule of retention and what it would take are shown, and where it is set", async () => {
  await page.goto(`${daemon.url}/ui/storage/retention`);
  await page.getByText("No rule is in force: no template goes by itself.").waitFor();
  await page.getByLabel("Keep last").fill("1");
  await page.getByRole("button", { name: "Try" }).click();
  await page.getByText("The rule names no template now.").waitFor();
}, 60_000);

test("nodes and jobs show this host and the job that has ended", async () => {
  await page.goto(`${daemon.url}/ui/nodes`);
  await page.locator("main", { hasText: "qemu" }).waitFor();
  await page.goto(`${daemon.url}/ui/jobs`);
  await page
    .locator("main", { hasText: "CREATE" })
    .or(page.locator("main", { hasText: "Create" }))
    .first()
    .waitFor();
});

test("a sandbox that runs is shown on the node's page, and keeps its template from deletion", async () => {
  const { body } = await daemon.ask("POST", "/v1/sandboxes", { template_id: "from-the-page" });
  const id = String(body["sandbox_id"]);
  const node = await daemon.ask("GET", "/v1/nodes/self");
  await page.goto(`${daemon.url}/ui/nodes/${String(node.body["node_id"])}`);
  await page.getByText(id).first().waitFor();
  const refused = await daemon.ask("DELETE", "/v1/templates/from-the-page");
  expect(refused).toMatchObject({ status: 409, body: { code: "template_in_use" } });
  await page.getByRole("link", { name: "Snapshot", exact: true }).click();
  await page.getByLabel("Name, if you like").fill("from-its-row");
  await page.getByRole("button", { name: "Take snapshot" }).click();
  await page.waitForURL(/\/ui\/snapshots/);
  await page.goto(`${daemon.url}/ui/snapshots?sandbox_id=${id}`);
  await page.getByRole("link", { name: "from-its-row" }).click();
  const main = page.locator("main");
  await main.getByText(/^Memory and disk of sandbox .* frozen/).waitFor({ timeout: 60_000 });
  await main.getByText("No sandbox runs on it.", { exact: true }).waitFor();
  expect(await page.locator(".lineage li").count()).toBe(2);
  await page.getByRole("link", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Delete snapshot" }).click();
  const left = async () =>
    (await daemon.ask("GET", `/v1/snapshots?sandbox_id=${id}`)).body["items"];
  await expect.poll(left, { timeout: 60_000 }).toEqual([]);
  await daemon.ask("DELETE", `/v1/sandboxes/${id}`);
}, 180_000);

test("the browser has complained of nothing", () => {
  expect(problems).toEqual([]);
});
