import { createConnection } from "node:net";
import { link, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Client, type Dispatcher } from "undici";
import { createParser } from "eventsource-parser";
import { listen, type Listening } from "../../../src/daemon/http/server.ts";
import { isAppError, LIMITS } from "../../../src/domain/index.ts";
import { httpFixture, tokenHash, type HttpFixture } from "../../support/http-app.ts";

let dir: string;
let fixture: HttpFixture;
const open: Listening[] = [];

interface Frame {
  event?: string | undefined;
  id?: string | undefined;
  data: Record<string, unknown>;
}

/** Reads an event stream; `frames` grows as they come, `done` resolves at the stream's end. */
function readFrames(answer: Dispatcher.ResponseData): { frames: Frame[]; done: Promise<void> } {
  const frames: Frame[] = [];
  const parser = createParser({
    onEvent: ({ event, id, data }) => {
      frames.push({ event, id, data: JSON.parse(data) as Record<string, unknown> });
    },
  });
  const done = (async () => {
    for await (const chunk of answer.body) parser.feed(String(chunk));
  })();
  // A test that hangs up means to.
  done.catch(() => undefined);
  return { frames, done };
}

async function serve(over: Parameters<typeof httpFixture>[0] = {}, socketPath?: string) {
  fixture = httpFixture(over);
  const { log, clock } = fixture.deps;
  const server = await listen({
    app: fixture.app,
    host: "127.0.0.1",
    port: 0,
    socketPath,
    log,
    clock,
  });
  open.push(server);
  return server;
}

const get = (client: Client, path: string, headers: Record<string, string> = {}) =>
  client.request({ path, method: "GET", headers });

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-http-"));
});
afterEach(async () => {
  for (const server of open.splice(0)) await server.close(0);
  await rm(dir, { recursive: true });
});

describe("a job's events", () => {
  it("start with a snapshot, tell states and log lines, and end with the job", async () => {
    const { url } = await serve();
    const client = new Client(url);
    const answer = await get(client, "/v1/jobs/job-1/events");
    expect(answer.headers["content-type"]).toBe("text/event-stream");
    const { frames, done } = readFrames(answer);
    await expect.poll(() => frames.length).toBe(1);
    fixture.service.addLog("job-1", "unpacking");
    fixture.service.publish("job-progress", "job-1");
    fixture.service.addLog("job-other", "not for us");
    fixture.service.updateJob("job-1", { status: "READY", progress: 100 });
    await done;
    expect(frames.map((frame) => frame.event)).toEqual([
      "snapshot",
      "log",
      "progress",
      "job",
      "end",
    ]);
    expect(frames[1]?.data["message"]).toBe("unpacking");
    expect(frames[4]?.data).toMatchObject({ job_id: "job-1", status: "READY" });
    expect(fixture.service.listeners()).toBe(0);
    await client.close();
  });

  it("of an ended job are its snapshot and the end", async () => {
    const { url } = await serve();
    fixture.service.updateJob("job-1", { status: "FAILED", error_message: "no" });
    const client = new Client(url);
    const { frames, done } = readFrames(await get(client, "/v1/jobs/job-1/events"));
    await done;
    expect(frames.map((frame) => frame.event)).toEqual(["snapshot", "end"]);
    await client.close();
  });

  it("resume after Last-Event-ID with the lines that were missed, each once", async () => {
    const { url } = await serve();
    const client = new Client(url);
    fixture.service.addLog("job-1", "seen");
    const seen = fixture.service.queries.lastEventId();
    fixture.service.addLog("job-1", "missed 1");
    fixture.service.addLog("job-1", "missed 2");
    const headers = { "last-event-id": seen };
    const { frames, done } = readFrames(await get(client, "/v1/jobs/job-1/events", headers));
    await expect.poll(() => frames.length).toBe(3);
    fixture.service.updateJob("job-1", { status: "READY" });
    await done;
    const lines = frames.filter((frame) => frame.event === "log");
    expect(lines.map((frame) => frame.data["message"])).toEqual(["missed 1", "missed 2"]);
    expect(frames.some((frame) => frame.event === "snapshot")).toBe(false);
    await client.close();
  });

  it("start again with a snapshot when the daemon has been restarted", async () => {
    const { url } = await serve();
    fixture.service.restart();
    fixture.service.updateJob("job-1", { status: "READY" });
    const client = new Client(url);
    const headers = { "last-event-id": "1.1" };
    const { frames, done } = readFrames(await get(client, "/v1/jobs/job-1/events", headers));
    await done;
    expect(frames[0]?.event).toBe("snapshot");
    await client.close();
  });
});

describe("/v1/events", () => {
  it("says hello, then sends the types asked for, and resync for an unknown id", async () => {
    const { url } = await serve();
    const client = new Client(url, { pipelining: 1 });
    const { frames } = readFrames(await get(client, "/v1/events?types=template,node"));
    await expect.poll(() => frames.length).toBe(1);
    fixture.service.publish("job", "job-1");
    fixture.service.publish("template", "tpl-1", { status: "READY" });
    await expect.poll(() => frames.length).toBe(2);
    expect(frames.map((frame) => frame.event)).toEqual(["hello", "template"]);
    expect(frames[1]?.data).toMatchObject({ subject: "tpl-1", data: { status: "READY" } });
    await client.destroy();
    await expect.poll(() => fixture.service.listeners()).toBe(0);
    const second = new Client(url);
    const resumed = readFrames(await get(second, "/v1/events", { "last-event-id": "9.9" }));
    await expect.poll(() => resumed.frames[0]?.event).toBe("resync");
    await second.destroy();
  });

  it("names an unknown type", async () => {
    const client = new Client((await serve()).url);
    const answer = await get(client, "/v1/events?types=job,nope");
    const body = (await answer.body.json()) as { errors: { pointer: string }[] };
    expect([answer.statusCode, body.errors[0]?.pointer]).toEqual([400, "/types"]);
    await client.close();
  });

  it("are refused with 429 above the limit of open streams", async () => {
    const { url } = await serve();
    const clients = Array.from({ length: LIMITS.eventStreams }, () => new Client(url));
    const answers = await Promise.all(clients.map((client) => get(client, "/v1/events")));
    expect(answers.every((answer) => answer.statusCode === 200)).toBe(true);
    const late = new Client(url);
    const answer = await get(late, "/v1/events");
    expect(answer.statusCode).toBe(429);
    expect(answer.headers["retry-after"]).toBe("1");
    await answer.body.dump();
    for (const one of answers) one.body.on("error", () => undefined);
    await Promise.all(clients.map((client) => client.destroy()));
    await expect.poll(() => fixture.app.streams.size()).toBe(0);
    const again = await get(late, "/v1/jobs");
    expect(again.statusCode).toBe(200);
    await again.body.dump();
    await late.close();
  });
});

describe("listening", () => {
  it("ends event streams and waiting requests at once when it closes", async () => {
    const server = await serve();
    const client = new Client(server.url);
    const other = new Client(server.url);
    const { frames, done } = readFrames(await get(client, "/v1/events"));
    await expect.poll(() => frames.length).toBe(1);
    const held = other.request({
      path: "/v1/templates/from-image",
      method: "POST",
      headers: { "content-type": "application/json", prefer: "wait=600" },
      body: JSON.stringify({ source_image_ref: "x/y", writable_layer_size: "1Gi" }),
    });
    await expect.poll(() => fixture.service.listeners()).toBe(2);
    await server.close(60_000);
    await done;
    const answer = await held;
    expect(answer.statusCode).toBe(202);
    await answer.body.dump();
    await Promise.all([client.destroy(), other.destroy()]);
  });

  it("cuts what is left when the grace period is over", async () => {
    const server = await serve();
    const socket = createConnection({ host: server.address, port: server.port });
    await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
    const gone = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined);
    socket.resume();
    const head = ["POST /v1/resolve HTTP/1.1", "Host: localhost", "Content-Length: 10"];
    const type = "Content-Type: application/json";
    socket.write([...head, type, "", ""].join("\r\n"));
    await server.close(50);
    await gone;
  });

  it("answers a request line that is none with a problem", async () => {
    const server = await serve();
    const socket = createConnection({ host: server.address, port: server.port });
    const text = await new Promise<string>((resolve) => {
      let all = "";
      socket.on("data", (chunk) => (all += chunk.toString("utf8")));
      socket.on("end", () => resolve(all));
      socket.write("GET /a HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n");
    });
    expect(text).toContain("HTTP/1.1 400");
    expect(text).toContain("invalid_request");
  });

  it("gives the unix socket mode 0660, full rights and no Host check", async () => {
    const path = join(dir, "templatecenter.sock");
    const auth = { tokens: [{ name: "a", sha256: tokenHash("t") }] };
    await serve({ auth }, path);
    expect((await stat(path)).mode & 0o777).toBe(0o660);
    const client = new Client("http://any.example", { socketPath: path });
    const cancelled = await client.request({ path: "/v1/jobs/job-1/cancel", method: "POST" });
    expect(cancelled.statusCode).toBe(202);
    await cancelled.body.dump();
    expect(fixture.audit.at(-1)).toMatchObject({ actor: "socket", details: { from: "unix" } });
    const content = await client.request({ path: "/v1/artifacts/rfs-1/content", method: "GET" });
    expect((await content.body.arrayBuffer()).byteLength).toBe(1_000);
    await client.close();
  });

  it("takes a dead daemon's socket over, and never a living one's or a file", async () => {
    const path = join(dir, "templatecenter.sock");
    const first = await serve({}, path);
    expect(first.socket).toBe(path);
    const refused = await serve({}, path).catch((error: unknown) => error);
    expect(isAppError(refused, "config_invalid")).toBe(true);
    await first.close(0);
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(path, () => resolve()));
    // Closing would remove the file; a killed process leaves it: link it elsewhere and back.
    await link(path, `${path}.kept`);
    await new Promise<void>((resolve) => dead.close(() => resolve()));
    await rename(`${path}.kept`, path);
    expect((await serve({}, path)).socket).toBe(path);
    const file = join(dir, "file");
    await writeFile(file, "");
    const notSocket = await serve({}, file).catch((error: unknown) => error);
    expect(isAppError(notSocket, "config_invalid")).toBe(true);
    expect((await stat(file)).isFile()).toBe(true);
  });

  it("says which address it could not take", async () => {
    const { port } = await serve();
    const { log, clock } = fixture.deps;
    const options = { app: fixture.app, host: "127.0.0.1", port, log, clock };
    const refused = await listen(options).catch((error: unknown) => error);
    expect(isAppError(refused, "config_invalid")).toBe(true);
    expect((refused as Error).message).toContain(`127.0.0.1:${port}`);
  });
});
