/** The listeners: TCP, and the unix socket for local administration. */
import { chmod, lstat, unlink } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { AppError, type Clock, type Log } from "../../domain/index.ts";
import { problem } from "./answer.ts";
import type { HttpApp } from "./app.ts";
import type { Bindings } from "./ports.ts";
import { isUpload } from "./upload.ts";

/**
 * A request's head must be here within this; a body within `REQUEST_MS`, and of one that is a
 * stream some byte.
 */
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 15_000;
const MAX_HEADER_BYTES = 16 * 1024;
const SOCKET_MODE = 0o660;
const PROBE_MS = 1_000;
const IDLE_LOOK_MS = 25;

export interface ListenOptions {
  readonly app: HttpApp;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Absent: no unix socket. */
  readonly socketPath?: string;
  readonly log: Log;
  readonly clock: Clock;
}

export interface Listening {
  readonly address: string;
  readonly port: number;
  /** `http://host:port`, as a browser on this host reaches it. */
  readonly url: string;
  /** Path of the unix socket, which `<data>/daemon.json` tells the client commands. */
  readonly socket?: string;
  /** Takes no more, ends event streams, and cuts what is left after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

/**
 * @throws AppError config_invalid when the address or the socket cannot be taken, with the cause
 */
export async function listen(options: ListenOptions): Promise<Listening> {
  const tcp = createDoor(options.app, "tcp", options.clock);
  const unix =
    options.socketPath === undefined ? undefined : createDoor(options.app, "unix", options.clock);
  try {
    await start(tcp, { host: options.host, port: options.port });
    if (unix !== undefined && options.socketPath !== undefined) {
      await startSocket(unix, options.socketPath, options.clock);
    }
  } catch (error) {
    tcp.close();
    throw error;
  }
  const bound = tcp.address();
  const { address, port } =
    typeof bound === "object" && bound !== null ? bound : { address: options.host, port: 0 };
  const shown = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
  const url = `http://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
  const servers = unix === undefined ? [tcp] : [tcp, unix];
  let closing: Promise<void> | undefined;
  return {
    address,
    port,
    url,
    ...(options.socketPath === undefined ? {} : { socket: options.socketPath }),
    close: (graceMs) => (closing ??= closeAll(servers, options, graceMs)),
  };
}

/** Node's own limit is the same for all requests: too short for those whose body is a stream. */
function boundBodyTime(request: IncomingMessage, response: ServerResponse, clock: Clock): void {
  const { socket } = request;
  if (isUpload(request.method, request.url?.split("?")[0] ?? "")) {
    socket.setTimeout(REQUEST_MS, () => socket.destroy());
    request.once("end", () => socket.setTimeout(0));
    return;
  }
  const timer = clock.after(REQUEST_MS, () => {
    if (request.complete) return;
    if (!response.headersSent)
      socket.write("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n");
    socket.destroy();
  });
  const cancel = () => timer.cancel();
  request.once("end", cancel);
  response.once("close", cancel);
}

function createDoor(app: HttpApp, door: "tcp" | "unix", clock: Clock): Server {
  const listener = getRequestListener(
    (request, env) => app.fetch(request, Object.assign(env, { door }) as Bindings),
    {
      // Only what never became a request gets here: a bad target or a bad Host.
      errorHandler: (error) =>
        problem(
          new AppError("invalid_request", "the request line or Host is malformed", {
            cause: error,
          }),
          "",
        ),
    },
  );
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      boundBodyTime(request, response, clock);
    }
    void listener(request, response);
  };
  return createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    onRequest,
  );
}

function start(server: Server, where: { host: string; port: number } | { path: string }) {
  const name = "path" in where ? where.path : `${where.host}:${where.port}`;
  return new Promise<void>((resolve, reject) => {
    const fail = (cause: Error): void =>
      reject(new AppError("config_invalid", `cannot listen on ${name}`, { cause }));
    server.once("error", fail);
    server.listen(where, () => {
      server.off("error", fail);
      resolve();
    });
  });
}

async function startSocket(server: Server, path: string, clock: Clock): Promise<void> {
  await removeStale(path, clock);
  await start(server, { path });
  await chmod(path, SOCKET_MODE);
}

/**
 * Removes a socket file that a dead daemon left.
 * @throws AppError config_invalid when somebody answers on it, or when it is no socket
 */
async function removeStale(path: string, clock: Clock): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new AppError("config_invalid", `${path} exists and is no socket`);
  if (await answers(path, clock)) {
    throw new AppError("config_invalid", `another daemon listens on ${path}`);
  }
  await unlink(path);
}

function answers(path: string, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    // No answer in time is a daemon that is stuck, not one that is gone.
    const timer = clock.after(PROBE_MS, () => settle(true));
    const settle = (alive: boolean): void => {
      timer.cancel();
      socket.destroy();
      resolve(alive);
    };
    socket.once("connect", () => settle(true));
    socket.once("error", () => settle(false));
  });
}

async function closeAll(
  servers: readonly Server[],
  { app, clock, log }: ListenOptions,
  graceMs: number,
): Promise<void> {
  const closed = servers.map(
    (server) => new Promise<void>((resolve) => server.close(() => resolve())),
  );
  app.streams.closeAll();
  let open = true;
  // Connections fall idle one by one as their last answers go out.
  const closeIdle = (): void => {
    for (const server of servers) server.closeIdleConnections();
    if (open) clock.after(IDLE_LOOK_MS, closeIdle);
  };
  closeIdle();
  const timer = clock.after(graceMs, () => {
    log.warn("connections cut at the end of the grace period", { grace_ms: graceMs });
    for (const server of servers) server.closeAllConnections();
  });
  await Promise.all(closed);
  open = false;
  timer.cancel();
}
