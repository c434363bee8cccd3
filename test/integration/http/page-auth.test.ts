/** The page of a daemon that asks for a token, over its real listeners. */
import { Hono } from "hono";
import { afterEach, beforeEach, expect, it } from "vitest";
import { listen, type Listening } from "../../../src/daemon/http/server.ts";
import { createPageSessions } from "../../../src/daemon/page-sessions.ts";
import { LIMITS } from "../../../src/domain/index.ts";
import { createUi } from "../../../src/ui/index.ts";
import { createFakeService, type FakeService } from "../../support/fake-http-service.ts";
import {
  httpFixture,
  realClock,
  realRandom,
  tokenHash,
  type HttpFixture,
} from "../../support/http-app.ts";
import { openForm } from "../../support/ui-form.ts";
import { bundleFiles } from "../../support/ui-site.ts";

const TOKEN = "tc_right_0123456789";
const TPL = "tpl-000000000000000000000001";
const auth = { tokens: [{ name: "ci", sha256: tokenHash(TOKEN) }] };

let service: FakeService;
let fixture: HttpFixture;
let server: Listening;
let ui: Hono;
/** Asks over the socket as a browser does, so that forms can be opened on it. */
let site: Hono;

beforeEach(async () => {
  service = createFakeService();
  const { queries, commands } = service;
  const signIns = createPageSessions({ auth, clock: realClock, random: realRandom });
  const { log } = httpFixture().deps;
  const common = { queries, commands, version: "1", clock: realClock, random: realRandom, log };
  ui = createUi({ ...common, signIns, bundleFiles });
  fixture = httpFixture({ queries, commands, auth, ui });
  server = await listen({ app: fixture.app, host: "127.0.0.1", port: 0, log, clock: realClock });
  site = new Hono();
  site.all("*", async ({ req }) => {
    const { pathname, search } = new URL(req.url);
    const headers = { ...req.header(), origin: server.url };
    const body = req.method === "POST" ? { body: await req.text() } : {};
    return fetch(server.url + pathname + search, {
      method: req.method,
      headers,
      redirect: "manual",
      ...body,
    });
  });
});
afterEach(async () => {
  await server.close(1_000);
});

const cookieOf = (answer: Response): string =>
  answer.headers.getSetCookie().find((one) => one.includes("-signin=")) ?? "";
const textOf = async (path: string, cookie = "") =>
  (await site.request(path, { headers: { accept: "text/html", cookie } })).text();
const signIn = async (token: string, next = "") => {
  const opened = await openForm(site, `/ui/sign-in?next=${encodeURIComponent(next)}`);
  return opened.send({ api_token: token });
};

it("is read by everybody, but offers the way to sign in instead of its buttons", async () => {
  expect(await textOf(`/ui/templates/${TPL}`)).toContain("You can read; changes need a token");
  const asked = await textOf(`/ui/templates/${TPL}/run`);
  expect(asked).toContain("Sign in to run sandbox");
  expect(asked).toContain(`/ui/sign-in?next=%2Fui%2Ftemplates%2F${TPL}%2Frun`);
  expect(asked).not.toMatch(/<button type="submit"/);
});

it("refuses every form of who is not signed in, and nothing happens", async () => {
  const open = ["/sign-in", "/sign-out", "/settings"];
  const paths = ui.routes
    .filter(({ method, path }) => method === "POST" && !open.includes(path))
    .map(({ path }) => path.replaceAll(/:\w+/g, TPL));
  expect(paths.length).toBeGreaterThan(12);
  for (const path of new Set(paths)) {
    const answer = await site.request(`/ui${path}`, { method: "POST", body: "" });
    expect([path, answer.status]).toEqual([path, 401]);
    expect(await answer.text()).toContain("Sign in with the node");
  }
  expect(service.calls).toEqual([]);
  expect(fixture.audit.at(-1)).toMatchObject({ actor: "anonymous", result: "unauthorized" });
});

it("changes things for who has signed in, and says in the audit who it was", async () => {
  const answer = await signIn(TOKEN, `/ui/templates/${TPL}/run`);
  expect([answer.status, answer.headers.get("location")]).toEqual([
    303,
    `/ui/templates/${TPL}/run`,
  ]);
  const cookie = cookieOf(answer);
  expect(cookie).toMatch(/HttpOnly/);
  expect(cookie).toMatch(/SameSite=Strict/);
  expect(cookie).toMatch(/Path=\/ui/);
  expect(cookie).not.toContain(TOKEN);
  const pair = cookie.split(";")[0] ?? "";
  expect(await textOf("/ui/", pair)).toContain("You are signed in as ci");
  const opened = await openForm(site, `/ui/templates/${TPL}/run`, pair);
  expect((await opened.send()).status).toBe(303);
  expect(service.calls.map(({ name }) => name)).toEqual(["runSandbox"]);
  expect(service.calls[0]?.context?.actor).toBe("token:ci");
  expect(fixture.audit.map(({ actor, action, result }) => [actor, action, result])).toEqual([
    ["token:ci", "POST /ui/sign-in", "ok"],
    ["token:ci", "POST /ui/templates/{id}/run", "ok"],
  ]);

  // The cookie is the page's alone: the API takes tokens.
  const api = { method: "POST", headers: { cookie: pair } };
  expect((await site.request("/v1/jobs/job-1/cancel", api)).status).toBe(401);

  const out = await openForm(site, "/ui/sign-in", pair);
  const left = await out.send();
  expect(left.headers.get("location")).toBe("/ui/?notice=signed-out");
  expect(cookieOf(left)).toMatch(/Max-Age=0/);
  // Whoever has kept the cookie has nothing.
  expect((await (await openForm(site, "/ui/sign-in", pair)).send()).status).toBe(401);
});

it("says that a token is wrong, lets nobody guess fast, and shows no token again", async () => {
  for (let time = 0; time < LIMITS.wrongTokensPerMinute; time += 1) {
    const answer = await signIn("tc_wrong_token");
    expect([answer.status, cookieOf(answer)]).toEqual([401, ""]);
    const text = await answer.text();
    expect(text).toContain("The token is not known.");
    expect(text).not.toContain("tc_wrong_token");
  }
  const answer = await signIn(TOKEN);
  expect([answer.status, cookieOf(answer)]).toEqual([429, ""]);
  expect(await answer.text()).toContain("Too many wrong tokens from this address");
  expect(fixture.audit.at(-1)).toMatchObject({ result: "too_many_requests" });
  expect(JSON.stringify([fixture.audit, fixture.logs])).not.toMatch(/tc_wrong|tc_right/);
});

it.each(["https://evil.example/", "//evil.example", "/ui//evil.example", "/v1/jobs", "/ui/\\x"])(
  "leads nobody to %s after the sign-in",
  async (next) => {
    expect((await signIn(TOKEN, next)).headers.get("location")).toBe("/ui/");
  },
);

it("needs the form's own token for signing in and out", async () => {
  const opened = await openForm(site, "/ui/sign-in");
  const forged = await opened.send({ api_token: TOKEN, csrf_token: "0".repeat(32) });
  expect([forged.status, cookieOf(forged)]).toEqual([403, ""]);
});
