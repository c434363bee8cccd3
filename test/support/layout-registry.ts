/** A registry that serves one OCI layout, its blobs at a rate the test sets. */
import { createServer, type ServerResponse } from "node:http";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface LayoutRegistry {
  /** `127.0.0.1:<port>` */
  readonly host: string;
  /** Of each blob. */
  bytesPerSecond: number;
  /** Before the first byte of a blob. */
  delayMs: number;
  /** Requests for blobs so far. */
  readonly blobRequests: number;
  stop(): Promise<void>;
}

const TICK_MS = 20;
const DIGEST = /\/(manifests|blobs)\/(?:sha256:)?([^/]+)$/;

export async function startLayoutRegistry(dir: string): Promise<LayoutRegistry> {
  const index = JSON.parse(await readFile(join(dir, "index.json"), "utf8")) as {
    manifests: { digest: string; mediaType: string }[];
  };
  const [top] = index.manifests;
  if (top === undefined) throw new Error("the layout is empty");
  const state = { bytesPerSecond: Infinity, delayMs: 0, blobRequests: 0 };

  const trickle = (response: ServerResponse, bytes: Buffer): void => {
    const startAt = performance.now() + state.delayMs;
    let sent = 0;
    const timer = setInterval(() => {
      if (performance.now() < startAt) return;
      const step = Math.ceil((state.bytesPerSecond * TICK_MS) / 1_000);
      response.write(bytes.subarray(sent, sent + Math.min(step, bytes.length)));
      sent += step;
      if (sent < bytes.length) return;
      clearInterval(timer);
      response.end();
    }, TICK_MS);
    response.once("close", () => clearInterval(timer));
  };
  const answer = async (path: string, range: string | undefined, response: ServerResponse) => {
    if (path === "/v2/") return void response.end("{}");
    const [, kind, name = ""] = DIGEST.exec(path) ?? [];
    const hex = kind === "manifests" && name === "demo" ? top.digest.slice(7) : name;
    const file = join(dir, "blobs/sha256", hex);
    const bytes = await readFile(file).catch(() => undefined);
    if (kind === undefined || bytes === undefined) return void response.writeHead(404).end();
    if (kind === "manifests") {
      response.setHeader("content-type", top.mediaType);
      response.setHeader("docker-content-digest", `sha256:${hex}`);
      return void response.end(bytes);
    }
    state.blobRequests += 1;
    const from = Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": bytes.length - from,
      "content-type": "application/octet-stream",
      ...(from > 0 && { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    trickle(response, bytes.subarray(from));
  };
  const server = createServer((request, response) => {
    answer(request.url ?? "", request.headers.range, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    host: `127.0.0.1:${address.port}`,
    get bytesPerSecond() {
      return state.bytesPerSecond;
    },
    set bytesPerSecond(value) {
      state.bytesPerSecond = value;
    },
    get delayMs() {
      return state.delayMs;
    },
    set delayMs(value) {
      state.delayMs = value;
    },
    get blobRequests() {
      return state.blobRequests;
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
