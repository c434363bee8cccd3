import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Pool } from "undici";
import { listen, type Listening } from "../../../src/daemon/http/server.ts";
import { openApiDocument } from "../../../src/daemon/http/openapi.ts";
import { AppError, LIMITS } from "../../../src/domain/index.ts";
import { aJob, anArtifact, SHA } from "../../support/fake-http-service.ts";
import { httpFixture, tokenHash, type HttpFixture } from "../../support/http-app.ts";

const TPL = "tpl-000000000000000000000001";

interface Body extends Record<string, unknown> {
  items: Body[];
  errors: { pointer: string; detail: string }[];
  create_request: Body;
  code: string;
  detail: string;
  job_id: string;
}

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
  json: Body;
}

interface Asked {
  method?: "GET" | "HEAD" | "POST" | "DELETE" | "PUT";
  body?: unknown;
  raw?: string;
  headers?: Record<string, string>;
}

let fixture: HttpFixture;
let server: Listening;
let pool: Pool;

async function serve(over: Parameters<typeof httpFixture>[0] = {}): Promise<void> {
  fixture = httpFixture(over);
  const { log, clock } = fixture.deps;
  server = await listen({ app: fixture.app, host: "127.0.0.1", port: 0, log, clock });
  pool = new Pool(server.url);
}

async function ask(path: string, { method, body, raw, headers = {} }: Asked = {}): Promise<Answer> {
  const text = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  const answer = await pool.request({
    path,
    method: method ?? (text === undefined ? "GET" : "POST"),
    headers: { ...(text === undefined ? {} : { "content-type": "application/json" }), ...headers },
    body: text,
  });
  const bytes = Buffer.from(await answer.body.arrayBuffer());
  const type = String(answer.headers["content-type"] ?? "");
  return {
    status: answer.statusCode,
    headers: answer.headers,
    text: bytes.toString("latin1"),
    json:
      type.includes("json") && bytes.length > 0 ? JSON.parse(bytes.toString("utf8")) : undefined,
  };
}

const problemOf = (answer: Answer): [number, string] => {
  expect(answer.headers["content-type"]).toBe("application/problem+json");
  expect(answer.json.status).toBe(answer.status);
  expect(answer.json.instance).toBe(answer.headers["x-request-id"]);
  return [answer.status, answer.json.code];
};

beforeAll(() => serve());
afterEach(() => {
  fixture.service.failWith = undefined;
});
afterAll(async () => {
  await pool.close();
  await server.close(1_000);
});

const createBody = { source_image_ref: "registry.example/web:1", writable_layer_size: "1Gi" };

describe("templates", () => {
  it("accepts an image with 202, Location and the job", async () => {
    const answer = await ask("/v1/templates/from-image", { body: createBody });
    expect(answer.status).toBe(202);
    expect(answer.headers["location"]).toBe(`/v1/jobs/${answer.json.job_id}`);
    const call = fixture.service.calls.at(-1)!;
    expect(call.context?.requestId).toBe(answer.headers["x-request-id"]);
    expect(call.context?.signal).toBeUndefined();
  });

  it("names every wrong field of a create request by its JSON pointer", async () => {
    const answer = await ask("/v1/templates/from-image", {
      body: {
        writable_layer_size: "1Gi",
        exposed_ports: [70_000],
        container_overrides: { envs: [{ key: "A", value: 1 }], "a/b": 1 },
        imagee: "x",
      },
    });
    expect(problemOf(answer)).toEqual([400, "invalid_request"]);
    const pointers = answer.json.errors.map((one) => one.pointer);
    expect(new Set(pointers)).toEqual(
      new Set([
        "/source_image_ref",
        "/exposed_ports/0",
        "/container_overrides/envs/0/value",
        "/container_overrides/a~1b",
        "/imagee",
      ]),
    );
    expect(answer.json.errors).toContainEqual({
      pointer: "/imagee",
      detail: "is not a known field",
    });
    expect(answer.json.detail).toContain("/source_image_ref is required");
  });

  it("accepts a redo with 202, Location and the job, and refuses a mode there is not", async () => {
    const path = `/v1/templates/${TPL}/redo`;
    const answer = await ask(path, { body: { redo_mode: "FAILED_ONLY" } });
    expect(answer.status).toBe(202);
    expect(answer.headers["location"]).toBe(`/v1/jobs/${answer.json.job_id}`);
    const wrong = await ask(path, { body: { redo_mode: "SOME" } });
    expect(problemOf(wrong)).toEqual([400, "invalid_request"]);
    expect(wrong.json.errors.map((one) => one.pointer)).toEqual(["/redo_mode"]);
  });

  it("lists with filters and pages", async () => {
    const all = await ask("/v1/templates?limit=1&status=READY");
    expect(all.json.items.map((one) => one.template_id)).toEqual([TPL]);
    expect((await ask("/v1/templates?status=FAILED")).json.items).toEqual([]);
    const bad = await ask("/v1/templates?limit=0&colour=red");
    expect(problemOf(bad)).toEqual([400, "invalid_request"]);
    expect(bad.json.errors.map((one) => one.pointer)).toEqual(["/limit", "/colour"]);
  });

  it("shows one by id and by name, with its request on demand", async () => {
    expect((await ask(`/v1/templates/${TPL}`)).json.create_request).toBeUndefined();
    const named = await ask("/v1/templates/web?include_request=true");
    expect(named.json.create_request.request_id).toBe("fresh");
    expect((await ask(`/v1/templates/${TPL}/request`)).json.template_id).toBe(TPL);
    expect((await ask("/v1/templates/web/replicas")).json.items[0]?.node_id).toBe("node-a");
    expect((await ask("/v1/templates/web/kind")).json).toEqual({
      template_id: TPL,
      kind: "template",
    });
  });

  it("answers 404 with its own code for a template that is not there", async () => {
    for (const path of ["", "/request", "/replicas", "/kind"]) {
      expect(problemOf(await ask(`/v1/templates/tpl-none${path}`))).toEqual([
        404,
        "template_not_found",
      ]);
    }
  });

  it("passes the command's conflict on, and force to the command", async () => {
    fixture.service.failWith = new AppError("template_in_use", "template is used by 2 sandboxes");
    const path = `/v1/templates/${TPL}?force=true`;
    const refused = await ask(path, { method: "DELETE" });
    expect(problemOf(refused)).toEqual([409, "template_in_use"]);
    expect(refused.json.detail).toBe("template is used by 2 sandboxes");
    expect(fixture.service.calls.at(-1)?.argument).toEqual({ id: TPL, force: true });
    fixture.service.templates.push({ ...fixture.service.templates[0]!, template_id: "tpl-2" });
    expect((await ask("/v1/templates/tpl-2", { method: "DELETE" })).json.template_id).toBe("tpl-2");
  });
});

describe("jobs", () => {
  it("lists, shows, logs and cancels", async () => {
    expect((await ask("/v1/jobs?status=RUNNING")).json.items[0]?.job_id).toBe("job-1");
    expect((await ask("/v1/jobs/job-1")).json.phase).toBe("UNPACKING");
    expect(problemOf(await ask("/v1/jobs/nope"))).toEqual([404, "job_not_found"]);
    fixture.service.addLog("job-1", "one");
    fixture.service.addLog("job-1", "two");
    const log = await ask("/v1/jobs/job-1/log?after=1");
    expect(log.json.items.map((line) => line.message)).toEqual(["two"]);
    const cancelled = await ask("/v1/jobs/job-1/cancel", { method: "POST" });
    expect([cancelled.status, cancelled.json.cancel_requested]).toEqual([202, true]);
    fixture.service.jobs.push(aJob({ job_id: "job-done", status: "READY" }));
    const late = await ask("/v1/jobs/job-done/cancel", { method: "POST" });
    expect(problemOf(late)).toEqual([409, "job_not_active"]);
  });
});

describe("artifacts", () => {
  const content = "/v1/artifacts/rfs-1/content";
  const token = { "x-cube-artifact-token": "the-token" };

  it("serves all bytes with length, tag and id", async () => {
    const answer = await ask(`${content}?token=the-token`);
    expect(answer.status).toBe(200);
    expect(Buffer.from(answer.text, "latin1")).toEqual(Buffer.from(fixture.service.bytes));
    expect(answer.headers).toMatchObject({
      "content-length": "1000",
      "content-type": "application/octet-stream",
      "accept-ranges": "bytes",
      etag: `"${SHA}"`,
      "x-cube-artifact-id": "rfs-1",
    });
  });

  it("answers HEAD with the same headers and opens nothing", async () => {
    const before = fixture.service.calls.length;
    const answer = await ask(content, { method: "HEAD", headers: token });
    expect([answer.status, answer.headers["content-length"], answer.text]).toEqual([
      200,
      "1000",
      "",
    ]);
    expect(fixture.service.calls.length).toBe(before);
  });

  it.each([
    ["bytes=0-9", 0, 9],
    ["bytes=990-", 990, 999],
    ["bytes=-5", 995, 999],
    ["bytes=150-5000", 150, 999],
  ])("serves the range %s", async (range, start, end) => {
    const answer = await ask(content, { headers: { ...token, range } });
    expect(answer.status).toBe(206);
    expect(answer.headers["content-range"]).toBe(`bytes ${start}-${end}/1000`);
    expect(answer.headers["content-length"]).toBe(String(end - start + 1));
    const expected = fixture.service.bytes.subarray(start, end + 1);
    expect(Buffer.from(answer.text, "latin1")).toEqual(Buffer.from(expected));
  });

  it("refuses a range past the end with 416 and the size", async () => {
    const answer = await ask(content, { headers: { ...token, range: "bytes=1000-" } });
    expect(problemOf(answer)).toEqual([416, "range_not_satisfiable"]);
    expect(answer.headers["content-range"]).toBe("bytes */1000");
  });

  it("ignores several ranges, and a range whose If-Range does not match", async () => {
    const several = await ask(content, { headers: { ...token, range: "bytes=0-1,4-5" } });
    expect([several.status, several.text.length]).toEqual([200, 1_000]);
    const other = { ...token, range: "bytes=0-1", "if-range": '"other"' };
    expect((await ask(content, { headers: other })).status).toBe(200);
    const same = { ...token, range: "bytes=0-1", "if-range": `"${SHA}"` };
    expect((await ask(content, { headers: same })).status).toBe(206);
  });

  it("answers 304 to a caller that has the bytes", async () => {
    const answer = await ask(content, { headers: { ...token, "if-none-match": `"${SHA}"` } });
    expect([answer.status, answer.text]).toEqual([304, ""]);
  });

  it("uses real status codes for a wrong token, a missing artifact and a missing file", async () => {
    expect(problemOf(await ask(content))).toEqual([401, "artifact_token_invalid"]);
    expect(problemOf(await ask(`${content}?token=x`))).toEqual([401, "artifact_token_invalid"]);
    expect(problemOf(await ask("/v1/artifacts/none/content"))).toEqual([404, "artifact_not_found"]);
    fixture.service.failWith = new AppError("artifact_source_missing");
    const gone = await ask(content, { headers: token });
    expect(problemOf(gone)).toEqual([410, "artifact_source_missing"]);
    fixture.service.failWith = new Error("disk");
    expect(problemOf(await ask(content, { headers: token }))).toEqual([500, "internal"]);
    fixture.service.artifacts.push(anArtifact({ artifact_id: "rfs-b", status: "BUILDING" }));
    const early = await ask("/v1/artifacts/rfs-b/content", { headers: token });
    expect(problemOf(early)).toEqual([409, "artifact_not_ready"]);
  });

  it("lists, shows, and hands the token out only on demand", async () => {
    expect((await ask("/v1/artifacts")).json.items[0]?.artifact_id).toBe("rfs-1");
    expect((await ask("/v1/artifacts/rfs-1")).json.download_token).toBeUndefined();
    const shown = await ask("/v1/artifacts/rfs-1?include_token=true");
    expect(shown.json.download_token).toBe("the-token");
  });
});

describe("resolve, sandboxes, nodes", () => {
  it("resolves and keeps unknown fields of the request", async () => {
    const answer = await ask("/v1/resolve", { body: { template_id: TPL, extra: { a: 1 } } });
    expect(answer.status).toBe(200);
    expect(answer.json).toMatchObject({ template_id: TPL, request: { extra: { a: 1 } } });
    expect(answer.headers).toMatchObject({
      "x-content-type-options": "nosniff",
      "cache-control": "no-store",
    });
  });

  it("answers resolve's errors as problems with the request id", async () => {
    expect(problemOf(await ask("/v1/resolve", { body: { template_id: "x" } }))).toEqual([
      404,
      "template_not_found",
    ]);
    expect(problemOf(await ask("/v1/resolve", { body: { template_id: 5 } }))).toEqual([
      400,
      "invalid_request",
    ]);
    fixture.service.failWith = new AppError("template_stale_needs_redo", "stale", {
      meta: { nodes: ["node-a"] },
    });
    const stale = await ask("/v1/resolve", { body: { template_id: TPL } });
    expect(problemOf(stale)).toEqual([409, "template_stale_needs_redo"]);
    expect(stale.json.nodes).toEqual(["node-a"]);
  });

  it("runs, shows and ends a sandbox", async () => {
    const made = await ask("/v1/sandboxes", { body: { template_id: TPL, sandbox_id: "s1" } });
    expect([made.status, made.headers["location"]]).toEqual([201, "/v1/sandboxes/s1"]);
    expect((await ask("/v1/sandboxes")).json.items.length).toBe(2);
    expect((await ask("/v1/sandboxes/s1")).json.status).toBe("RUNNING");
    const gone = await ask("/v1/sandboxes/s1", { method: "DELETE" });
    expect([gone.status, gone.text]).toEqual([204, ""]);
    expect(problemOf(await ask("/v1/sandboxes/s1"))).toEqual([404, "sandbox_not_found"]);
  });

  it("takes, lists, shows and releases runtime refs", async () => {
    const body = { snapshot_id: TPL, sandbox_id: "outside-1" };
    const made = await ask("/v1/runtime-refs", { body });
    expect([made.status, made.json.status]).toEqual([201, "ACTIVE"]);
    const listed = await ask(`/v1/snapshots/${TPL}/runtime-refs`);
    expect(listed.json).toMatchObject({ count: 1, items: [{ sandbox_id: "outside-1" }] });
    const one = await ask("/v1/runtime-refs?sandbox_id=outside-1");
    expect(one.json.snapshot_id).toBe(TPL);
    expect(problemOf(await ask("/v1/runtime-refs"))).toEqual([400, "invalid_request"]);
    expect(problemOf(await ask("/v1/runtime-refs", { body: { snapshot_id: " " } }))).toEqual([
      400,
      "invalid_request",
    ]);
    const gone = await ask("/v1/runtime-refs?sandbox_id=outside-1", { method: "DELETE" });
    expect(gone.json).toEqual({ released: 1 });
    expect(problemOf(await ask("/v1/runtime-refs?sandbox_id=outside-1"))).toEqual([
      404,
      "runtime_ref_not_found",
    ]);
  });

  it("takes what a runtime observed, or why it could not look, and nothing else", async () => {
    const path = "/v1/nodes/self/runtime-refs";
    const observed = { observed: [{ snapshot_id: TPL, sandbox_id: "outside-2" }] };
    expect((await ask(path, { method: "PUT", body: observed })).status).toBe(204);
    expect(fixture.service.calls.at(-1)).toMatchObject({
      name: "observeRuntimeRefs",
      argument: observed,
    });
    const failed = { error: "cannot list" };
    expect((await ask(path, { method: "PUT", body: failed })).status).toBe(204);
    expect(problemOf(await ask(path, { method: "PUT", body: {} }))).toEqual([
      400,
      "invalid_request",
    ]);
  });

  it("shows nodes", async () => {
    expect((await ask("/v1/nodes")).json.items[0]?.node_id).toBe("node-a");
    expect((await ask("/v1/nodes/self")).json.node_id).toBe("node-a");
    expect(problemOf(await ask("/v1/nodes/zz"))).toEqual([404, "node_not_found"]);
  });
});

describe("operations", () => {
  it("answers probes with a word, and with lines when asked", async () => {
    expect((await ask("/healthz")).json).toEqual({ status: "ok" });
    expect((await ask("/readyz?verbose")).text).toBe("[+]catalog ok\nok\n");
  });

  it("prints metrics by route pattern, never by id", async () => {
    await ask("/v1/some-unknown-path");
    const { text } = await ask("/metrics");
    expect(text).toMatch(
      /_http_requests_total\{route="\/v1\/jobs\/\{id\}",method="GET",status="200"\}/,
    );
    expect(text).toContain('route="unmatched"');
    expect(text).toContain('route="/v1/resolve",method="POST",status="200"');
    expect(text).not.toContain(TPL);
  });

  it("redirects the root to the page", async () => {
    const answer = await ask("/");
    expect([answer.status, answer.headers["location"]]).toEqual([302, "/ui/"]);
  });

  it("serves the OpenAPI document that the table of routes makes", async () => {
    const answer = await ask("/v1/openapi.json");
    expect(answer.json).toEqual(JSON.parse(JSON.stringify(openApiDocument("0.1.0"))));
  });

  it("answers an unknown path with 404 and a wrong method with 405 and Allow", async () => {
    expect(problemOf(await ask("/v1/nothing"))).toEqual([404, "not_found"]);
    const wrong = await ask("/v1/templates/x", { method: "PUT" });
    expect(problemOf(wrong)).toEqual([405, "method_not_allowed"]);
    expect(wrong.headers["allow"]).toBe("DELETE, GET, HEAD");
    expect((await ask("/v1/resolve")).headers["allow"]).toBe("POST");
  });
});

function* pieces(bytes: number): Generator<Buffer> {
  for (let sent = 0; sent < bytes; sent += 65_536) yield Buffer.alloc(65_536, 120);
}

describe("bodies", () => {
  it("refuses what is not JSON without quoting it", async () => {
    const raw = '{"registry_password": hunter2}';
    const answer = await ask("/v1/templates/from-image", { raw });
    expect(problemOf(answer)).toEqual([400, "invalid_request"]);
    expect(answer.json.detail).toContain("not well-formed JSON");
    expect(answer.text).not.toContain("hunter2");
    const type = { "content-type": "text/plain" };
    const other = await ask("/v1/templates/from-image", { raw: "{}", headers: type });
    expect(problemOf(other)).toEqual([415, "unsupported_media_type"]);
  });

  it.each(["/v1/templates/from-image", "/v1/resolve"])(
    "refuses too large a body on %s, declared or not",
    async (path) => {
      const raw = "x".repeat(LIMITS.requestBodyBytes + 1);
      expect(problemOf(await ask(path, { raw }))).toEqual([413, "payload_too_large"]);
      const chunked = await pool.request({
        path,
        method: "POST",
        headers: { "content-type": "application/json" },
        body: Readable.from(pieces(raw.length)),
      });
      expect(chunked.statusCode).toBe(413);
      await chunked.body.dump();
    },
  );

  it("reads a chunked body of allowed size", async () => {
    const answer = await pool.request({
      path: "/v1/resolve",
      method: "POST",
      headers: { "content-type": "application/json" },
      body: Readable.from([Buffer.from('{"template_id":'), Buffer.from(`"${TPL}"}`)]),
    });
    expect(answer.statusCode).toBe(200);
    await answer.body.dump();
  });

  it("keeps a registry password out of logs, audit rows and answers", async () => {
    fixture.service.failWith = new Error("boom");
    const body = { ...createBody, registry_username: "u", registry_password: "s3cr3t-pw" };
    const answer = await ask("/v1/templates/from-image", {
      body,
      headers: { "idempotency-key": "pw" },
    });
    expect(problemOf(answer)).toEqual([500, "internal"]);
    const written = JSON.stringify([fixture.logs, fixture.audit, answer.text]);
    expect(written).not.toContain("s3cr3t-pw");
  });

  it("hides the cause of an internal error and logs its chain", async () => {
    fixture.service.failWith = new Error("outer", { cause: new Error("inner detail") });
    const answer = await ask("/v1/resolve", { body: {} });
    expect(answer.json.detail).toBe("internal error");
    const logged = fixture.logs.findLast((record) => record.level === "error");
    expect(logged?.fields["error"]).toContain("inner detail");
    expect(logged?.fields["request_id"]).toBe(answer.json.instance);
  });
});

describe("request id, host, origin, audit", () => {
  it("keeps a sane request id and replaces any other", async () => {
    const kept = await ask("/v1/jobs", { headers: { "x-request-id": "abc-1" } });
    expect(kept.headers["x-request-id"]).toBe("abc-1");
    const made = await ask("/v1/jobs", { headers: { "x-request-id": "a b<script>" } });
    expect(made.headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
  });

  it.each(["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"])(
    "refuses the Host %s on every door of the API",
    async (host) => {
      const headers = { host };
      expect(problemOf(await ask("/v1/jobs", { headers }))).toEqual([421, "host_not_allowed"]);
      const body = { template_id: TPL };
      expect((await ask("/v1/resolve", { body, headers })).status).toBe(421);
    },
  );

  it.each(["localhost:1", "[::1]:7330", "10.0.0.1", "CP1.example:7330"])(
    "takes the Host %s",
    async (host) => expect((await ask("/v1/jobs", { headers: { host } })).status).toBe(200),
  );

  it("refuses changes that another site's page makes", async () => {
    const path = "/v1/jobs/job-1/cancel";
    const foreign: Record<string, string>[] = [
      { "sec-fetch-site": "cross-site" },
      { origin: "http://evil.example" },
    ];
    for (const headers of foreign) {
      expect(problemOf(await ask(path, { method: "POST", headers }))).toEqual([403, "forbidden"]);
    }
    const own = { "sec-fetch-site": "same-origin", origin: server.url };
    expect((await ask(path, { method: "POST", headers: own })).status).toBe(202);
  });

  it("writes an audit row for each change, refused ones too, and none for reads", async () => {
    const before = fixture.audit.length;
    await ask("/v1/jobs");
    await ask("/v1/resolve", { body: { template_id: TPL } });
    const done = await ask("/v1/templates/from-image", { body: createBody });
    await ask("/v1/templates/none", { method: "DELETE" });
    expect(fixture.audit.slice(before)).toMatchObject([
      {
        action: "POST /v1/templates/from-image",
        actor: "anonymous",
        subject: done.json.job_id,
        result: "ok",
        details: { from: "127.0.0.1", status: 202 },
        request_id: done.headers["x-request-id"],
      },
      { action: "DELETE /v1/templates/{id}", subject: "none", result: "template_not_found" },
    ]);
  });
});

describe("Idempotency-Key", () => {
  const post = (key: string, body: unknown) =>
    ask("/v1/templates/from-image", { body, headers: { "idempotency-key": key } });
  const made = () => fixture.service.calls.filter((call) => call.name === "createFromImage").length;

  it("replays the first answer, and the command runs once", async () => {
    const before = made();
    const first = await post("k1", createBody);
    const reordered = { writable_layer_size: "1Gi", source_image_ref: createBody.source_image_ref };
    const again = await post("k1", reordered);
    expect(again.headers["idempotency-replayed"]).toBe("true");
    expect([again.status, again.json, again.headers["location"]]).toEqual([
      202,
      first.json,
      first.headers["location"],
    ]);
    expect(made()).toBe(before + 1);
  });

  it("refuses the key for another body", async () => {
    await post("k2", createBody);
    const other = await post("k2", { ...createBody, display_name: "other" });
    expect(problemOf(other)).toEqual([422, "idempotency_mismatch"]);
  });

  it("forgets the key of a request that failed", async () => {
    fixture.service.failWith = new AppError("no_template_nodes");
    expect((await post("k3", createBody)).status).toBe(409);
    expect(fixture.idempotencyKeys()).not.toContain("k3");
    expect((await post("k3", createBody)).status).toBe(202);
  });

  it("replays a deletion's 204", async () => {
    fixture.service.sandboxes.push({ ...fixture.service.sandboxes[0]!, sandbox_id: "sb-del" });
    const headers = { "idempotency-key": "k4" };
    const first = await ask("/v1/sandboxes/sb-del", { method: "DELETE", headers });
    const again = await ask("/v1/sandboxes/sb-del", { method: "DELETE", headers });
    expect([first.status, again.status]).toEqual([204, 204]);
    expect(again.headers["idempotency-replayed"]).toBe("true");
  });
});

describe("Prefer: wait", () => {
  it("holds the answer until the job ends", async () => {
    const before = fixture.service.jobs.length;
    const held = ask("/v1/templates/from-image", {
      body: createBody,
      headers: { prefer: "wait=60" },
    });
    await expect.poll(() => fixture.service.jobs.length).toBe(before + 1);
    await expect.poll(() => fixture.service.listeners()).toBeGreaterThan(0);
    fixture.service.updateJob(fixture.service.jobs.at(-1)!.job_id, { status: "READY" });
    const answer = await held;
    expect([answer.status, answer.json.status]).toEqual([200, "READY"]);
    expect(answer.headers["preference-applied"]).toBe("wait=60");
    expect(answer.headers["location"]).toBe(`/v1/jobs/${answer.json.job_id}`);
    expect(fixture.service.listeners()).toBe(0);
  });

  it("answers 202 when the time is up", async () => {
    const answer = await ask("/v1/templates/from-image", {
      body: createBody,
      headers: { prefer: "respond-async, wait=0" },
    });
    expect([answer.status, answer.json.status]).toEqual([202, "PENDING"]);
  });
});

describe("with tokens configured", () => {
  const auth = { tokens: [{ name: "ci", sha256: tokenHash("tc_right") }] };
  const cancel = (headers: Record<string, string>) =>
    ask("/v1/jobs/job-1/cancel", { method: "POST", headers });

  it("needs a token for changes over TCP, and none for reads and resolve", async () => {
    await pool.close();
    await server.close(1_000);
    await serve({ auth });
    expect((await ask("/v1/jobs")).status).toBe(200);
    expect((await ask("/v1/resolve", { body: { template_id: TPL } })).status).toBe(200);
    const without = await cancel({});
    expect(problemOf(without)).toEqual([401, "unauthorized"]);
    expect(without.headers["www-authenticate"]).toContain("Bearer");
    expect(problemOf(await cancel({ authorization: "Bearer tc_wrong" }))).toEqual([
      401,
      "unauthorized",
    ]);
    expect((await cancel({ authorization: "Bearer tc_right" })).status).toBe(202);
    expect(fixture.audit.at(-1)?.actor).toBe("token:ci");
    expect(fixture.audit.at(-2)).toMatchObject({ result: "unauthorized" });
    const hidden = await ask("/v1/artifacts/rfs-1?include_token=true");
    expect(problemOf(hidden)).toEqual([401, "unauthorized"]);
    const trusted = await ask("/v1/artifacts/rfs-1/content", {
      headers: { authorization: "Bearer tc_right" },
    });
    expect(trusted.status).toBe(200);
  });
});
