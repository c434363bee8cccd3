/** A registry of our own, in one process with the test, that misbehaves on demand. */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";
import { digestOf } from "./oci-image.ts";

export type Handler = (request: IncomingMessage, response: ServerResponse, path: string) => boolean;

export interface FakeRegistry {
  readonly host: string;
  readonly blobs: Map<string, Buffer>;
  readonly manifests: Map<string, { bytes: Buffer; type: string }>;
  /** `METHOD path range authorization` of every request, in order. */
  readonly seen: { path: string; range?: string; authorization?: string }[];
  /** Asked before the well-behaved answer; true when it has answered. */
  misbehave: Handler;
  stop(): Promise<void>;
}

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

export async function startFakeRegistry(): Promise<FakeRegistry> {
  const blobs: FakeRegistry["blobs"] = new Map();
  const manifests: FakeRegistry["manifests"] = new Map();
  const seen: FakeRegistry["seen"] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    const { range, authorization } = request.headers;
    seen.push({ path, ...(range && { range }), ...(authorization && { authorization }) });
    if (registry.misbehave(request, response, path)) return;
    answer(registry, request, response, path);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const registry: FakeRegistry = {
    host: `127.0.0.1:${address.port}`,
    blobs,
    manifests,
    seen,
    misbehave: () => false,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return registry;
}

function answer(
  { blobs, manifests }: FakeRegistry,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): void {
  if (path === "/v2/") return void response.end("{}");
  const version = /\/manifests\/(.+)$/.exec(path)?.[1];
  const manifest = version === undefined ? undefined : manifests.get(version);
  if (manifest !== undefined) {
    response.setHeader("content-type", manifest.type);
    response.setHeader("docker-content-digest", digestOf(manifest.bytes));
    return void response.end(manifest.bytes);
  }
  const blob = blobs.get(/\/blobs\/(.+)$/.exec(path)?.[1] ?? "");
  if (blob === undefined) return void response.writeHead(404).end();
  sendBlob(blob, request.headers.range, response);
}

export function sendBlob(blob: Buffer, range: string | undefined, response: ServerResponse): void {
  const start = Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? "0");
  if (start > 0) {
    response.statusCode = 206;
    response.setHeader("content-range", `bytes ${start}-${blob.length - 1}/${blob.length}`);
  }
  response.setHeader("content-length", blob.length - start);
  response.end(blob.subarray(start));
}

/** Puts an image of plain blobs under `tag`; answers its layers' digests, lowest first. */
export function putImage(
  { blobs, manifests }: FakeRegistry,
  layers: readonly Buffer[],
  options: { tag?: string; architecture?: string } = {},
): { digest: string; layers: string[]; manifest: Buffer } {
  const put = (bytes: Buffer, mediaType: string) => {
    blobs.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length };
  };
  const configBytes = Buffer.from(
    JSON.stringify({
      architecture: options.architecture ?? "amd64",
      os: "linux",
      config: { Cmd: ["/bin/true"] },
      rootfs: { type: "layers", diff_ids: layers.map((layer) => digestOf(layer)) },
    }),
  );
  const config = put(configBytes, "application/vnd.oci.image.config.v1+json");
  const packed = layers.map((layer) =>
    put(gzipSync(layer, { level: 0 }), "application/vnd.oci.image.layer.v1.tar+gzip"),
  );
  const document = { schemaVersion: 2, mediaType: MANIFEST, config, layers: packed };
  const bytes = Buffer.from(JSON.stringify(document));
  manifests.set(options.tag ?? "latest", { bytes, type: MANIFEST });
  manifests.set(digestOf(bytes), { bytes, type: MANIFEST });
  const digests = packed.map(({ digest }) => digest);
  return { digest: digestOf(bytes), layers: digests, manifest: bytes };
}
