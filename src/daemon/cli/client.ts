/**
 * The HTTP client of the commands: the daemon's unix socket, or `--server URL` with a token. What
 * the daemon answers as a problem becomes the AppError it was.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Agent, type Dispatcher } from "undici";
import { AppError, ERRORS, errorText, type ErrorCode } from "../../domain/index.ts";
import type { CliIo } from "./io.ts";

export interface Target {
  /** `http://host:port`, or of the socket's made-up host. */
  readonly origin: string;
  readonly socketPath?: string;
  readonly token?: string;
  /** For messages. */
  readonly name: string;
  readonly dataDir: string;
}

export interface ConnectionOptions {
  readonly dataDir?: string;
  readonly server?: string;
  readonly token?: string;
  readonly tokenFile?: string;
}

interface Call {
  readonly method?: "GET" | "POST" | "PUT" | "DELETE";
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  /** Sent as it comes, instead of `body`; its type is in the headers. */
  readonly stream?: Readable;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Milliseconds without a byte before the call is given up; 0: never. */
  readonly silenceMs?: number;
}

export interface Client {
  readonly target: Target;
  /** @throws AppError as the daemon answered, or daemon_unreachable */
  json(path: string, call?: Call): Promise<unknown>;
  /** The answer's head and body; for downloads and event streams. @throws AppError as `json` */
  open(path: string, call?: Call): Promise<Dispatcher.ResponseData>;
  close(): Promise<void>;
}

const DEFAULT_DATA_DIR = "/var/lib/templatecenter";
const SILENCE_MS = 60_000;

/** Data directory: option, TEMPLATECENTER_DATA_DIR, the user's own daemon, else the service's. */
async function dataDirOf(io: CliIo, given: string | undefined): Promise<string> {
  const named = given ?? io.env["TEMPLATECENTER_DATA_DIR"];
  if (named !== undefined && named !== "") return named;
  const home = io.env["HOME"] ?? "";
  const base = io.env["XDG_DATA_HOME"] ?? (home === "" ? "" : join(home, ".local", "share"));
  if (base === "") return DEFAULT_DATA_DIR;
  const own = join(base, "templatecenter");
  return (await daemonFile(own)) === undefined ? DEFAULT_DATA_DIR : own;
}

/** `<data>/daemon.json` as the daemon wrote it when it started listening. */
async function daemonFile(dataDir: string): Promise<{ socket?: string } | undefined> {
  try {
    const value = JSON.parse(await readFile(join(dataDir, "daemon.json"), "utf8")) as unknown;
    const socket = typeof value === "object" && value !== null && "socket" in value && value.socket;
    return typeof socket === "string" ? { socket } : {};
  } catch {
    return undefined;
  }
}

async function tokenOf(io: CliIo, options: ConnectionOptions): Promise<string | undefined> {
  if (options.tokenFile === undefined) return options.token ?? io.env["TEMPLATECENTER_TOKEN"];
  try {
    return (await readFile(options.tokenFile, "utf8")).trim();
  } catch (cause) {
    throw new AppError("config_invalid", `cannot read the token file ${options.tokenFile}`, {
      cause,
    });
  }
}

/** @throws AppError config_invalid for a server that is no http address */
export async function findTarget(io: CliIo, options: ConnectionOptions): Promise<Target> {
  const dataDir = await dataDirOf(io, options.dataDir);
  const server = options.server ?? io.env["TEMPLATECENTER_SERVER"];
  if (server !== undefined && server !== "") {
    const url = URL.canParse(server) ? new URL(server) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol)) {
      const example = "http://127.0.0.1:7330";
      throw new AppError("config_invalid", `--server ${server} is no address such as ${example}`);
    }
    return { origin: url.origin, name: url.origin, token: await tokenOf(io, options), dataDir };
  }
  const socketPath = (await daemonFile(dataDir))?.socket ?? join(dataDir, "templatecenter.sock");
  return { origin: "http://localhost", socketPath, name: socketPath, dataDir };
}

export function createClient(target: Target): Client {
  const agent = new Agent({
    connect: { timeout: 5_000, ...(target.socketPath && { socketPath: target.socketPath }) },
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  const open = async (path: string, call: Call = {}): Promise<Dispatcher.ResponseData> => {
    const answer = await agent
      .request(requestOf(target, path, call))
      .catch((error: unknown) => Promise.reject(unreachable(target, error, call.signal)));
    if (answer.statusCode < 400) return answer;
    throw problemError(answer.statusCode, await answer.body.text());
  };
  return {
    target,
    open,
    async json(path, call) {
      const answer = await open(path, call);
      const text = await answer.body
        .text()
        .catch((error: unknown) => Promise.reject(unreachable(target, error, call?.signal)));
      return text === "" ? undefined : (JSON.parse(text) as unknown);
    },
    close: () => agent.destroy(),
  };
}

function requestOf(target: Target, path: string, call: Call): Dispatcher.RequestOptions {
  const query = Object.entries(call.query ?? {}).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(
    query.map(([name, value]): [string, string] => [name, String(value)]),
  );
  const headers: Record<string, string> = { accept: "application/json", ...call.headers };
  if (target.token !== undefined) headers["authorization"] = `Bearer ${target.token}`;
  if (call.body !== undefined) headers["content-type"] = "application/json";
  return {
    origin: target.origin,
    path: search.size === 0 ? path : `${path}?${search.toString()}`,
    method: call.method ?? "GET",
    headers,
    body: call.stream ?? (call.body === undefined ? null : JSON.stringify(call.body)),
    signal: call.signal,
    headersTimeout: call.silenceMs ?? SILENCE_MS,
    bodyTimeout: call.silenceMs ?? SILENCE_MS,
  };
}

function unreachable(target: Target, cause: unknown, signal: AbortSignal | undefined): Error {
  if (signal?.aborted === true && cause instanceof Error) return cause;
  const denied = errorText(cause).includes("EACCES");
  const hint = denied
    ? "the socket belongs to another user: run as root or join the templatecenter group"
    : target.socketPath === undefined
      ? "check the address and that the daemon listens there"
      : `start it with: templatecenter daemon --data-dir ${target.dataDir}` +
        ", or: systemctl start templatecenter";
  return new AppError("daemon_unreachable", `no daemon answers at ${target.name}`, {
    cause,
    meta: { hint },
  });
}

/** The AppError that a problem answer was made from; an answer of another server is `internal`. */
function problemError(status: number, text: string): AppError {
  let value: Record<string, unknown> = {};
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // Not ours: the status is all there is.
  }
  const { code, detail, type, title, instance, retryable, status: _status, ...meta } = value;
  if (typeof code !== "string" || !(code in ERRORS)) {
    return new AppError("internal", `the server answered ${status} and no known problem`);
  }
  const message = typeof detail === "string" ? detail : undefined;
  const request = typeof instance === "string" ? { request_id: instance } : {};
  return new AppError(code as ErrorCode, message, { meta: { ...meta, ...request } });
}
