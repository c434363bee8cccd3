/** Bundles on the page: a form read as it comes, what is said before, and what is refused. */
import { describe, expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import { exportPlan, holderOf, importRequestOf } from "../../../src/ui/bundle-models.ts";
import { openUpload } from "../../../src/ui/multipart.ts";
import { createUiApp, SNAP, tplId } from "../../support/ui-site.ts";

const HTML = { headers: { accept: "text/html" } };

/** Pieces of one length, counted as they are taken; `closed` when it was read or given up. */
function source(bytes: Uint8Array, length: number) {
  const seen = { taken: 0, closed: false };
  const stream = (async function* () {
    try {
      for (let at = 0; at < bytes.length; at += length) {
        const piece = bytes.subarray(at, at + length);
        seen.taken += piece.length;
        yield piece;
      }
    } finally {
      seen.closed = true;
    }
  })();
  return { stream, seen };
}

const TYPE = "multipart/form-data; boundary=XyZ";
const part = (head: string, body: string) =>
  `--XyZ\r\nContent-Disposition: form-data; ${head}\r\n\r\n${body}\r\n`;
/** Holds what looks like the end of it. */
const FILE = `a\r\n--Xy\r\n--X\r\n-\r\n\r\n--${"z".repeat(300)}\r\n`;
const FORM = Buffer.from(
  part('name="csrf_token"', "t") +
    part('name="display_name"', "na me\r\n2") +
    part('name="file"; filename="a.bundle"', FILE) +
    "--XyZ--\r\n",
  "latin1",
);

const textOf = async (stream: AsyncIterable<Uint8Array> | undefined): Promise<string> => {
  const parts: Uint8Array[] = [];
  for await (const bytes of stream ?? []) parts.push(bytes);
  return Buffer.concat(parts).toString("latin1");
};

describe("a form with a file", () => {
  test.each([1, 2, 3, 7, 64, 10_000])("is the same in pieces of %i bytes", async (length) => {
    const { stream, seen } = source(FORM, length);
    const form = await openUpload(stream, TYPE);
    expect(form.fields).toEqual({ csrf_token: "t", display_name: "na me\r\n2" });
    expect(await textOf(form.file)).toBe(FILE);
    await form.close();
    expect(seen.closed).toBe(true);
  });

  test("holds no more of the file than a piece and a mark", async () => {
    const big = Buffer.concat([
      FORM.subarray(0, -Buffer.byteLength("\r\n--XyZ--\r\n")),
      Buffer.alloc(1_000_000, "x"),
      Buffer.from("\r\n--XyZ--\r\n"),
    ]);
    const { stream, seen } = source(big, 1_000);
    const { file, close } = await openUpload(stream, TYPE);
    let given = 0;
    for await (const bytes of file ?? []) {
      given += bytes.length;
      expect(seen.taken - given).toBeLessThan(2_500);
    }
    expect(given).toBe(FILE.length + 1_000_000);
    await close();
  });

  test("without a file chosen has none, with the fields all the same", async () => {
    const form = part('name="a"', "1") + part('name="file"; filename=""', "") + "--XyZ--\r\n";
    const { fields, file } = await openUpload(source(Buffer.from(form), 5).stream, TYPE);
    expect(fields).toEqual({ a: "1" });
    expect(file).toBeUndefined();
  });

  test.each([
    ["cut off", FORM.subarray(0, 60), TYPE],
    ["of another type", FORM, "application/x-www-form-urlencoded"],
    ["with a field that is too long", Buffer.from(part('name="a"', "x".repeat(70_000))), TYPE],
  ])("%s is refused and let go", async (_what, bytes, type) => {
    const { stream, seen } = source(bytes, 100);
    await stream.next();
    await expect(openUpload(stream, type)).rejects.toMatchObject({ code: "invalid_request" });
    expect(seen.closed).toBe(true);
  });

  test("that is cut off within its file throws there", async () => {
    const { file } = await openUpload(source(FORM.subarray(0, -30), 50).stream, TYPE);
    await expect(textOf(file)).rejects.toThrow("it is cut off");
  });
});

describe("import", () => {
  async function send(fields: Record<string, string> = {}, file?: string, failWith?: unknown) {
    const { app, service } = createUiApp();
    const page = await app.request("/ui/import", HTML);
    const cookie = page.headers.get("set-cookie")?.split(";")[0] ?? "";
    const markup = await page.text();
    const value = (name: string) =>
      new RegExp(`name="${name}"\\s+value="([^"]+)"`).exec(markup)?.[1] ?? "";
    service.failWith = failWith;
    const body = new FormData();
    const all = {
      csrf_token: value("csrf_token"),
      idempotency_key: value("idempotency_key"),
      ...fields,
    };
    for (const [name, text] of Object.entries(all)) body.append(name, text);
    if (file !== undefined) body.append("file", new File([file], "x.bundle"));
    const answer = await app.request("/ui/import", {
      method: "POST",
      headers: { cookie, origin: "http://localhost" },
      body,
    });
    return { answer, calls: service.calls, text: await answer.text() };
  }

  test("streams the file and leads to its job", async () => {
    const fields = { display_name: "web", trust: " k1,\n k2 ", new_id: "on", template_id: "" };
    const { answer, calls } = await send(fields, "x".repeat(10_000));
    expect(answer.headers.get("location")).toBe("/ui/jobs/job-1?notice=bundle-accepted");
    expect(calls.map(({ argument }) => argument)).toEqual([
      { display_name: "web", trust: ["k1", "k2"], new_id: true, bytes: 10_000 },
    ]);
  });

  test.each([
    ["bundle_untrusted", 403, "is signed by KEY", "The signer is not trusted here."],
    ["bundle_invalid", 422, "it is cut off", "The bundle is damaged, or the file is none."],
    ["template_already_exists", 409, "is here already", "under another id"],
  ] as const)("says %s as the API does, in the form", async (code, status, message, words) => {
    const fields = { trust: "k1", display_name: '"quoted"' };
    const { answer, text } = await send(fields, "x", new AppError(code, message));
    expect(answer.status).toBe(status);
    expect(text.toLowerCase()).toContain(message.toLowerCase());
    expect(text).toContain(words);
    expect(text).toContain('value="&quot;quoted&quot;"');
  });

  test("without a file, with a wrong id, or from another session asks for nothing", async () => {
    const none = await send();
    expect([none.answer.status, none.calls]).toEqual([422, []]);
    expect(none.text).toContain("Choose the file of a bundle.");
    const wrong = await send({ template_id: "../x" }, "x");
    expect([wrong.answer.status, wrong.calls]).toEqual([422, []]);
    const stranger = await send({ csrf_token: "0".repeat(32) }, "x");
    expect([stranger.answer.status, stranger.calls]).toEqual([403, []]);
  });

  test("asks for what was filled in and no more", () => {
    expect(importRequestOf({ display_name: " ", nodes: "a, b" })).toEqual({
      distribution_scope: ["a", "b"],
    });
  });
});

describe("export", () => {
  const thing = { id: "t", kind: "template", name: "web", sizeBytes: 1 } as const;

  test("is offered by a holder; others say who is one", async () => {
    const { app } = createUiApp();
    const here = await (await app.request(`/ui/templates/${tplId("a")}/export`, HTML)).text();
    expect(here).toContain(`action="/ui/templates/${tplId("a")}/export/file"`);
    expect(here).toContain("environment variables: they may be secrets");
    const there = await (await app.request(`/ui/templates/${tplId("c")}/export`, HTML)).text();
    expect(there).not.toContain("export/file");
    expect(there).toContain(
      `href="https://node-b.example.org:7330/ui/templates/${tplId("c")}/export"`,
    );
    expect(there).toContain('href="/ui/nodes/node-c"');
    const failed = exportPlan({ ...thing, status: "FAILED", holders: ["a"] }, "a");
    expect(failed.blocked).toBe("web is failed: only what is ready can be exported.");
    expect(exportPlan({ ...thing, status: "READY", holders: [] }, "a").blocked).toMatch(/^No node/);
    const snapshot = await app.request(`/ui/snapshots/${SNAP}/export`, HTML);
    expect(await snapshot.text()).toContain(`snapshot export ${SNAP}`);
  });

  test("links to a holder's own page only where a browser may reach it", () => {
    const at = (address: string) => holderOf("n", { address }, "/ui/x").href;
    expect(at("http://10.0.0.2:7330/")).toBe("http://10.0.0.2:7330/ui/x");
    expect(["http://127.0.0.1:7330", "http://[::1]:7330", "", "javascript:x"].map(at)).toEqual(
      Array.from({ length: 4 }, () => "/ui/nodes/n"),
    );
  });

  test("downloads the bundle; who is not signed in gets none", async () => {
    const path = `/ui/templates/${tplId("a")}/export/file`;
    const { app, service } = createUiApp();
    const answer = await app.request(path, HTML);
    expect(answer.headers.get("content-type")).toBe("application/x-tar");
    expect(answer.headers.get("content-disposition")).toContain(`${tplId("a")}.bundle`);
    expect((await answer.arrayBuffer()).byteLength).toBe(1_000);
    expect(service.calls.map(({ name }) => name)).toEqual(["exportBundle"]);
    const closed = createUiApp("full", { tokens: [{ name: "api", sha256: "00".repeat(32) }] });
    expect((await closed.app.request(path, HTML)).status).toBe(401);
    expect(closed.service.calls).toEqual([]);
  });
});
