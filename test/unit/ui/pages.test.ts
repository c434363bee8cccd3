/** The markup and the answers of every page, without a socket. */
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  BUILDING_JOB,
  FAILED_JOB,
  READY_JOB,
  SNAP,
  createUiApp,
  tplId,
} from "../../support/ui-site.ts";
import { aTemplate } from "../../support/fake-http-service.ts";

const PATHS = [
  "/ui/",
  "/ui/templates",
  "/ui/templates/new",
  ...["a", "b", "c", "f"].map((digit) => `/ui/templates/${tplId(digit)}`),
  `/ui/templates/${tplId("c")}/delete`,
  `/ui/templates/${tplId("a")}/run`,
  `/ui/templates/${tplId("c")}/redo`,
  `/ui/templates/${tplId("c")}/redo/confirm?redo_mode=ALL`,
  `/ui/templates/${tplId("a")}/redo/confirm?redo_mode=FAILED_ONLY`,
  `/ui/templates/${tplId("c")}/why`,
  `/ui/templates/${tplId("c")}/why?node=node-b`,
  `/ui/templates/${tplId("a")}/refs`,
  ...["rename", "labels", "protect", "unprotect"].map(
    (verb) => `/ui/templates/${tplId("a")}/${verb}`,
  ),
  `/ui/templates/${tplId("f")}/delete`,
  "/ui/templates?label=team%3Dweb",
  "/ui/tags",
  "/ui/tags/stable",
  "/ui/tags/debian-web",
  ...["rollback", "delete"].map((verb) => `/ui/tags/stable/${verb}`),
  "/ui/tags/debian-web/rollback",
  "/ui/promote",
  "/ui/promote?tag=Wrong&template=none",
  ...["stable", "debian-web", "new-one"].map(
    (tag) => `/ui/promote?tag=${tag}&template=${tplId("a")}`,
  ),
  `/ui/promote?tag=stable&template=${tplId("f")}`,
  ...["a", "c", "f"].map((digit) => `/ui/templates/${tplId(digit)}/export`),
  `/ui/snapshots/${SNAP}/export`,
  "/ui/import",
  "/ui/storage/retention",
  "/ui/storage/retention?keep_last=0&unused_days=x",
  "/ui/storage/retention/apply?keep_last=2",
  "/ui/artifacts/rfs-1",
  "/ui/artifacts/rfs-1/why",
  "/ui/snapshots",
  "/ui/snapshots?status=DELETING",
  ...["", "/rollback", "/delete", "/refs", "/why"].map((rest) => `/ui/snapshots/${SNAP}${rest}`),
  "/ui/sandboxes/sb-4c1f/snapshot",
  "/ui/jobs",
  ...[BUILDING_JOB, FAILED_JOB, READY_JOB].map((id) => `/ui/jobs/${id}`),
  `/ui/jobs/${BUILDING_JOB}/cancel`,
  "/ui/nodes",
  "/ui/nodes/node-a",
  `/ui/templates/${tplId("d")}`,
  "/ui/cluster",
  "/ui/cluster/tokens/new",
  "/ui/cluster/tokens/tok-1/revoke",
  "/ui/cluster/members/node-2/remove",
  "/ui/cluster/members/none/remove",
  "/ui/compat",
  ...["a", "b", "c", "d", "f"].map((digit) => `/ui/compat/${tplId(digit)}`),
  ...["adopt", "resnapshot"].map((verb) => `/ui/compat/${tplId("c")}/${verb}`),
  `/ui/compat/${tplId("f")}/resnapshot`,
  "/ui/compat/rescan",
  "/ui/compat/resnapshot/resume",
  "/ui/compat/preview?guest_image=2.0.0",
  "/ui/compat/preview?extra=qemu",
  "/ui/sandboxes/sb-4c1f/stop",
  "/ui/help",
  "/ui/sign-in",
  "/ui/jobs/none",
];
const HTML = { headers: { accept: "text/html" } };

/** What is wrong with the markup, by the rules of the page. */
function faults(markup: string): string[] {
  const found: string[] = [];
  const ids = [...markup.matchAll(/<[a-z][^>]*?\sid="([^"]*)"/g)].map((match) => match[1] ?? "");
  for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index))) {
    found.push(`id ${id} comes twice`);
  }
  for (const [tag] of markup.matchAll(/<[a-z][^>]*>/g)) {
    if (/\sstyle=/.test(tag)) found.push(`style in ${tag}`);
    if (/\son[a-z]+=/.test(tag)) found.push(`handler in ${tag}`);
    if (/\shx-[^=]*="js:/.test(tag)) found.push(`js: in ${tag}`);
    if (/\shx-trigger="[^"]*\[/.test(tag)) found.push(`filter in ${tag}`);
    if (/<script(?![^>]*\ssrc=)/.test(tag)) found.push(`inline script ${tag}`);
    const target = /\shx-target="#([^"]*)"/.exec(tag)?.[1];
    if (target !== undefined && !ids.includes(target)) found.push(`no target ${target}`);
    for (const name of ["aria-describedby", "aria-labelledby", "for"]) {
      const named = new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1]?.split(" ") ?? [];
      const missing = named.filter((id) => !ids.includes(id) && !tag.includes('id="dialog"'));
      found.push(...missing.map((id) => `${name} names no element: ${id}`));
    }
  }
  for (const [form] of markup.matchAll(/<form[\s\S]*?<\/form>/g)) {
    if (!/\saction="\/ui\//.test(form)) found.push("a form without action");
    const method = /\smethod="(get|post)"/.exec(form)?.[1];
    if (method === undefined) found.push("a form without method");
    const guarded = form.includes('name="csrf_token"') && form.includes('name="idempotency_key"');
    if (method === "post" && !guarded) found.push("a post form without token and key");
  }
  return found;
}

describe("markup", () => {
  const { app } = createUiApp();
  test.each(PATHS)("of %s keeps the rules", async (path) => {
    const answer = await app.request(path, HTML);
    const markup = await answer.text();
    expect(answer.headers.get("content-type")).toContain("text/html");
    expect(faults(markup)).toEqual([]);
    expect(markup.match(/<h1[ >]/g)).toHaveLength(1);
    expect(markup).not.toContain("<script>alert");
    expect(markup).not.toContain("undefined");
  });
  test("the rules see what breaks them", () => {
    const bad = `<p id="a" style="x"></p><b id="a" onclick="y" hx-target="#z"></b><form></form>`;
    expect(faults(bad)).toHaveLength(6);
  });
});

describe("answers", () => {
  test("have the whole policy and are never stored; assets are for ever", async () => {
    const { app } = createUiApp();
    const page = await app.request("/ui/", HTML);
    expect(page.headers.get("content-security-policy")).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; " +
        "require-trusted-types-for 'script'; trusted-types htmx default",
    );
    expect(page.headers.get("cache-control")).toBe("no-store");
    expect(page.headers.get("set-cookie")).toMatch(/^tc-session-[0-9a-f]{8}=.*HttpOnly/);
    const markup = await page.text();
    const urls = [...markup.matchAll(/\/ui\/assets\/[a-z0-9.-]+/g)].map(([url]) => url);
    let sent = 0;
    let bytes = 0;
    for (const url of urls) {
      const plain = await (await app.request(url)).text();
      const asset = await app.request(url, { headers: { "accept-encoding": "gzip, br" } });
      expect(asset.headers.get("cache-control")).toContain("immutable");
      expect(asset.headers.get("content-encoding")).toBe("gzip");
      const packed = Buffer.from(await asset.arrayBuffer());
      expect(gunzipSync(packed).toString()).toBe(plain);
      sent += packed.byteLength;
      bytes += plain.length;
    }
    expect(urls).toHaveLength(2);
    expect(sent).toBeLessThanOrEqual(24 * 1024);
    expect(bytes).toBeLessThanOrEqual(72 * 1024);
  });
  test("lists of 200 templates stay under 120 kB", async () => {
    const { app, service } = createUiApp("empty");
    for (let index = 0; index < 200; index += 1) {
      const template_id = `tpl-${String(index).padStart(24, "0")}`;
      service.templates.push(aTemplate({ template_id, display_name: `service-${index}` }));
    }
    const overview = await (await app.request("/ui/", HTML)).text();
    expect(overview.length).toBeLessThanOrEqual(120 * 1024);
    const list = await (await app.request("/ui/templates", HTML)).text();
    expect(list.length).toBeLessThanOrEqual(120 * 1024);
    expect(list).toContain("Next page");
  });
  test("lead to the API when JSON is asked", async () => {
    const { app } = createUiApp();
    const answer = await app.request(`/ui/jobs/${READY_JOB}`, {
      headers: { accept: "application/json" },
    });
    expect(answer.status).toBe(303);
    expect(answer.headers.get("location")).toBe(`/v1/jobs/${READY_JOB}`);
  });
  test("say what failed, its code, and what to try", async () => {
    const { app } = createUiApp();
    const answer = await app.request("/ui/templates/tpl-none", HTML);
    expect(answer.status).toBe(404);
    const text = await answer.text();
    expect(text).toContain("template_not_found");
    expect(text).toContain("It may have been deleted.");
  });
});

describe("forms", () => {
  const CANCEL = `/ui/jobs/${BUILDING_JOB}/cancel`;
  const post = async (
    fields: Record<string, string>,
    headers: Record<string, string> = {},
    path = CANCEL,
  ) => {
    const { app, service } = createUiApp();
    const page = await app.request(path, HTML);
    const cookie = page.headers.get("set-cookie")?.split(";")[0] ?? "";
    const markup = await page.text();
    const value = (name: string) =>
      new RegExp(`name="${name}"\\s+value="([^"]+)"`).exec(markup)?.[1];
    const send = () =>
      app.request(path, {
        method: "POST",
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          origin: "http://localhost",
          cookie,
          ...headers,
        },
        body: new URLSearchParams({
          csrf_token: value("csrf_token") ?? "",
          idempotency_key: value("idempotency_key") ?? "",
          ...fields,
        }).toString(),
      });
    return { send, service };
  };
  test("act once for one key and lead to the result", async () => {
    const { send, service } = await post({});
    const [first, second] = [await send(), await send()];
    expect([first.status, second.status]).toEqual([303, 303]);
    expect(second.headers.get("location")).toBe(`/ui/jobs/${BUILDING_JOB}?notice=job-cancelled`);
    expect(service.calls.map((call) => call.name)).toEqual(["cancelJob"]);
  });
  test("garbage is collected only when the form is sent, and only with its token", async () => {
    const calls = (service: { calls: { name: string; argument: unknown }[] }) =>
      service.calls.map(({ name, argument }) => [name, argument]);
    const asked = ["collectGarbage", { dryRun: true }];
    const { send, service } = await post({}, {}, "/ui/storage/collect");
    expect(calls(service)).toEqual([asked]);
    expect((await send()).headers.get("location")).toBe("/ui/storage?notice=garbage-collected");
    expect(calls(service)).toEqual([asked, ["collectGarbage", { dryRun: false }]]);
    const forged = await post({ csrf_token: "0".repeat(32) }, {}, "/ui/storage/collect");
    expect((await forged.send()).status).toBe(403);
    expect(calls(forged.service)).toEqual([asked]);
  });
  test.each([
    ["a wrong token", { csrf_token: "0".repeat(32) }, {}],
    ["no session", {}, { cookie: "" }],
    ["another origin", {}, { origin: "http://evil.example", "sec-fetch-site": "cross-site" }],
  ])("with %s are refused", async (_name, fields, headers) => {
    const { send, service } = await post(fields, headers);
    const answer = await send();
    expect(answer.status).toBe(403);
    expect(service.calls).toEqual([]);
  });
});
