/**
 * GET over HTTP/1.1 for registries: redirects are followed by hand, so that credentials go to the
 * host they are for and to no other; every wait has a limit.
 */
import { rootCertificates } from "node:tls";
import { Agent } from "undici";
import type { Dispatcher } from "undici";
import { AppError } from "../../../domain/index.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { TransientFailure } from "./retry.ts";

export interface HttpTimeouts {
  readonly connectMs: number;
  readonly headersMs: number;
  readonly idleMs: number;
}

export interface HttpOptions {
  /** PEM, trusted besides the authorities that Node brings. */
  readonly caPem?: string | undefined;
  /** `host[:port]` whose certificate is not checked. */
  readonly insecureHosts: readonly string[];
  readonly timeouts?: Partial<HttpTimeouts> | undefined;
}

export interface HttpRequest {
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to the origin of `url` only. */
  readonly authorization?: string | undefined;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  /** Where the answer came from in the end. */
  readonly url: URL;
  readonly body: AsyncIterable<Uint8Array>;
  header(name: string): string | undefined;
  headers(name: string): readonly string[];
  /** Ends an answer whose body is not wanted. */
  discard(): Promise<void>;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const CERTIFICATE_ERRORS = /^(?:CERT_|ERR_TLS_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/;
const DISCARD_BYTES = 64 * 1024;

export class HttpClient {
  readonly #checking: Agent;
  readonly #trusting: Agent;
  readonly #insecureHosts: ReadonlySet<string>;

  constructor(options: HttpOptions) {
    const { connectTimeoutMs, headersTimeoutMs, idleTimeoutMs } = SOURCE_LIMITS;
    const { timeouts, caPem } = options;
    const agent = (tls: { rejectUnauthorized: boolean; ca?: string[] }) =>
      new Agent({
        connect: { timeout: timeouts?.connectMs ?? connectTimeoutMs, ...tls },
        headersTimeout: timeouts?.headersMs ?? headersTimeoutMs,
        bodyTimeout: timeouts?.idleMs ?? idleTimeoutMs,
        allowH2: false,
      });
    this.#checking = agent({
      rejectUnauthorized: true,
      ...(caPem === undefined ? {} : { ca: [...rootCertificates, caPem] }),
    });
    this.#trusting = agent({ rejectUnauthorized: false });
    this.#insecureHosts = new Set(options.insecureHosts.map((host) => host.toLowerCase()));
  }

  isInsecure(host: string): boolean {
    return this.#insecureHosts.has(host);
  }

  /**
   * The answer after redirects, of whatever status.
   * @throws TransientFailure for what the network did; AppError registry_unavailable for a bad
   *   certificate or a redirect that is not followed; the signal's reason when it aborts
   */
  async get(request: HttpRequest): Promise<HttpAnswer> {
    let url = request.url;
    for (let hop = 0; hop <= SOURCE_LIMITS.redirects; hop += 1) {
      const isSameOrigin = url.origin === request.url.origin;
      const answer = await this.#once(url, request, isSameOrigin);
      const location = REDIRECTS.has(answer.status) ? answer.header("location") : undefined;
      if (location === undefined) return answer;
      await answer.discard();
      url = redirectTarget(location, url);
    }
    throw unavailable(url.host, "redirected too often");
  }

  async #once(url: URL, request: HttpRequest, isSameOrigin: boolean): Promise<HttpAnswer> {
    const { authorization, signal } = request;
    const agent = this.isInsecure(url.host) ? this.#trusting : this.#checking;
    const headers = {
      "user-agent": "templatecenter",
      ...request.headers,
      ...(isSameOrigin && authorization !== undefined ? { authorization } : {}),
    };
    try {
      signal.throwIfAborted();
      const { origin, pathname, search } = url;
      const path = `${pathname}${search}`;
      const data = await agent.request({ origin, path, method: "GET", headers, signal });
      return new Answer(data, url);
    } catch (error) {
      throw networkFailure(error, url.host, signal);
    }
  }

  /** Ends all connections, those in use too. */
  async close(): Promise<void> {
    await Promise.all([this.#checking.destroy(), this.#trusting.destroy()]);
  }
}

class Answer implements HttpAnswer {
  readonly #data: Dispatcher.ResponseData;
  readonly url: URL;

  constructor(data: Dispatcher.ResponseData, url: URL) {
    this.#data = data;
    this.url = url;
    // A body that fails when nobody reads it must not end the process; readers get the error too.
    data.body.on("error", () => undefined);
  }

  get status(): number {
    return this.#data.statusCode;
  }

  get body(): AsyncIterable<Uint8Array> {
    return this.#data.body;
  }

  header(name: string): string | undefined {
    return this.headers(name)[0];
  }

  headers(name: string): readonly string[] {
    const value = this.#data.headers[name];
    return value === undefined ? [] : Array.isArray(value) ? value : [value];
  }

  async discard(): Promise<void> {
    try {
      await this.#data.body.dump({ limit: DISCARD_BYTES });
    } catch {
      // Nothing was wanted of it: a connection that breaks now is simply not used again.
    }
  }
}

function redirectTarget(location: string, from: URL): URL {
  if (!URL.canParse(location, from.href)) throw unavailable(from.host, "redirected to no address");
  const to = new URL(location, from);
  if (to.protocol !== "https:" && to.protocol !== "http:") {
    throw unavailable(from.host, "redirected to another protocol");
  }
  if (from.protocol === "https:" && to.protocol === "http:") {
    throw unavailable(from.host, "redirected from https to http");
  }
  // Credentials in an address would be sent by us to a host of the server's choice.
  to.username = "";
  to.password = "";
  to.hash = "";
  return to;
}

export const unavailable = (
  host: string,
  what: string,
  options: { status?: number; cause?: unknown } = {},
): AppError =>
  new AppError("registry_unavailable", `registry ${host}: ${what}`, {
    meta: { host, ...(options.status === undefined ? {} : { status: options.status }) },
    cause: options.cause,
  });

/** What to throw for an error of the HTTP client, in a request or in its body. */
export function networkFailure(error: unknown, host: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof AppError || error instanceof TransientFailure) return error;
  const code = errorCode(error);
  if (CERTIFICATE_ERRORS.test(code)) {
    return unavailable(host, "its certificate is not trusted", { cause: error });
  }
  if (code === "ENOTFOUND") return unavailable(host, "no such host", { cause: error });
  return new TransientFailure(unavailable(host, "the connection failed", { cause: error }));
}

const errorCode = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
