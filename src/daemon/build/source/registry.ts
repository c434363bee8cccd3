/** Images from a registry: the pull side of the OCI distribution specification. */
import { createHash } from "node:crypto";
import { AppError } from "../../../domain/index.ts";
import type { Platform, RegistryCredentials } from "../../../domain/index.ts";
import { Authorizer } from "./auth.ts";
import { digestOf, isDigest, verifyStream, wrongDigest, wrongSize } from "./digest.ts";
import type { ExpectedContent } from "./digest.ts";
import { HttpClient, networkFailure, unavailable } from "./http.ts";
import type { HttpAnswer, HttpOptions } from "./http.ts";
import type { Document } from "./image.ts";
import { readImage } from "./image.ts";
import type { ImageContent } from "./image.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { ACCEPTED_MANIFESTS } from "./manifest.ts";
import type { Descriptor } from "./manifest.ts";
import { apiHost } from "./reference.ts";
import type { RegistryReference } from "./reference.ts";
import { Backoff, retrying, TransientFailure } from "./retry.ts";
import type { RetryPorts } from "./retry.ts";
import { readLimited, statusFailure } from "./status.ts";

export interface RegistryInput {
  readonly reference: RegistryReference;
  readonly credentials: RegistryCredentials | undefined;
  readonly http: HttpOptions;
  readonly ports: RetryPorts;
  /** Ends everything: the job's end. */
  readonly signal: AbortSignal;
}

const LOOPBACK = /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::\d+)?$/;

/** One repository of one registry, for the life of one pull. */
export class RegistrySession {
  readonly #input: RegistryInput;
  readonly #client: HttpClient;
  readonly #authorizer: Authorizer;
  #base: Promise<URL> | undefined;

  constructor(input: RegistryInput) {
    this.#input = input;
    this.#client = new HttpClient(input.http);
    this.#authorizer = new Authorizer({
      client: this.#client,
      clock: input.ports.clock,
      credentials: input.credentials,
      repository: input.reference.repository,
      signal: input.signal,
    });
  }

  /**
   * @throws AppError image_not_found, image_platform_missing, image_refused,
   *   image_digest_mismatch, registry_unauthorized, registry_unavailable
   */
  async readImage(platform: Platform): Promise<ImageContent> {
    const { digest, tag } = this.#input.reference;
    const first = await this.#manifest(digest ?? tag ?? "latest");
    return await readImage(
      first,
      {
        readManifest: async ({ digest: child }) => await this.#manifest(child),
        readConfig: async (descriptor) => await this.#small(descriptor),
      },
      platform,
    );
  }

  /** The blob, verified. Cut downloads go on where they ended. */
  openBlob(expected: ExpectedContent, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
    return verifyStream(this.#resumed(expected, signal), expected);
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  async #manifest(version: string): Promise<Document> {
    const headers = { accept: ACCEPTED_MANIFESTS };
    return await this.#retried(async () => {
      const answer = await this.#request(`manifests/${version}`, headers, this.#input.signal);
      const bytes = await this.#body(answer);
      const announced = answer.header("docker-content-digest");
      if (isDigest(version)) checkDigest(version, bytes);
      if (announced !== undefined) checkDigest(announced, bytes);
      return { bytes, mediaType: answer.header("content-type") ?? "" };
    });
  }

  async #small({ digest }: Descriptor): Promise<Uint8Array> {
    return await this.#retried(async () => {
      const answer = await this.#request(`blobs/${digest}`, {}, this.#input.signal);
      return await this.#body(answer);
    });
  }

  async #body(answer: HttpAnswer): Promise<Uint8Array> {
    try {
      return await readLimited(answer, SOURCE_LIMITS.documentBytes);
    } catch (error) {
      throw networkFailure(error, answer.url.host, this.#input.signal);
    }
  }

  async #retried<T>(work: () => Promise<T>): Promise<T> {
    return await retrying(this.#input.ports, this.#input.signal, work);
  }

  /** One try, with the authorisation the registry asks for. @throws for any status but 200, 206 */
  async #request(
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const { reference, ports } = this.#input;
    this.#base ??= this.#findBase();
    const base = await this.#base.catch((error: unknown) => {
      this.#base = undefined;
      throw error;
    });
    const url = new URL(`/v2/${reference.repository}/${path}`, base);
    // A token may be refused that was good when it was taken: one more round than the flow needs.
    for (let round = 0; ; round += 1) {
      const authorization = await this.#authorizer.header();
      const answer = await this.#client.get({ url, headers, authorization, signal });
      if (answer.status === 200 || answer.status === 206) return answer;
      await answer.discard();
      const isOurs = answer.url.origin === base.origin;
      if (answer.status !== 401 || !isOurs || round === 2) throw statusFailure(answer, ports.clock);
      await this.#authorizer.renew(answer, authorization);
    }
  }

  /**
   * https, unless http was asked for. Registries on this machine and those listed as insecure are
   * asked over https first, and over http when they do not speak TLS.
   */
  async #findBase(): Promise<URL> {
    const { reference, signal } = this.#input;
    const host = apiHost(reference);
    if (reference.scheme === "http") return new URL(`http://${host}`);
    const secure = new URL(`https://${host}`);
    const mayBePlain = LOOPBACK.test(host) || this.#client.isInsecure(host);
    if (reference.scheme === "https" || !mayBePlain) return secure;
    const plain = new URL(`http://${host}`);
    try {
      await (await this.#client.get({ url: new URL("/v2/", secure), signal })).discard();
      return secure;
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
    }
    await (await this.#client.get({ url: new URL("/v2/", plain), signal })).discard();
    return plain;
  }

  async *#resumed(
    expected: ExpectedContent,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void> {
    const backoff = new Backoff(this.#input.ports);
    const position = { offset: 0, mayUseRange: true };
    for (;;) {
      const before = position.offset;
      try {
        yield* this.#download(expected, position, signal);
        return;
      } catch (error) {
        if (position.offset - before >= SOURCE_LIMITS.progressBytes) backoff.reset();
        await backoff.wait(error, signal);
      }
    }
  }

  /** From `position` on; moves it with every byte handed out. */
  async *#download(
    expected: ExpectedContent,
    position: { offset: number; mayUseRange: boolean },
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void> {
    const asksRange = position.offset > 0 && position.mayUseRange;
    const headers: Record<string, string> = asksRange
      ? { range: `bytes=${position.offset}-${expected.sizeBytes - 1}` }
      : {};
    const answer = await this.#blobAnswer(expected, headers, position, signal);
    const { host } = answer.url;
    // A server may ignore the range and begin again: what is known already is passed over.
    let toSkip = answer.status === 206 ? 0 : position.offset;
    try {
      for await (const bytes of answer.body) {
        const rest = toSkip === 0 ? bytes : bytes.subarray(Math.min(toSkip, bytes.length));
        toSkip -= bytes.length - rest.length;
        if (rest.length === 0) continue;
        position.offset += rest.length;
        yield rest;
      }
    } catch (error) {
      throw networkFailure(error, host, signal);
    }
    if (position.offset >= expected.sizeBytes) return;
    throw new TransientFailure(wrongSize(expected, position.offset));
  }

  async #blobAnswer(
    expected: ExpectedContent,
    headers: Readonly<Record<string, string>>,
    position: { offset: number; mayUseRange: boolean },
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    let answer: HttpAnswer;
    try {
      answer = await this.#request(`blobs/${expected.digest}`, headers, signal);
    } catch (error) {
      // 416 and the like: the next try asks for everything.
      const status = error instanceof AppError ? error.meta["status"] : undefined;
      if (status !== 416 || !("range" in headers)) throw error;
      position.mayUseRange = false;
      throw new TransientFailure(unavailable("", "refused the range", { cause: error }));
    }
    try {
      checkLength(answer, expected, position.offset);
      return answer;
    } catch (error) {
      await answer.discard();
      if (answer.status === 206) position.mayUseRange = false;
      throw error;
    }
  }
}

/**
 * @throws AppError image_digest_mismatch for a length that cannot be; TransientFailure for a range
 *   that was not asked for
 */
function checkLength(answer: HttpAnswer, expected: ExpectedContent, offset: number): void {
  if (answer.status === 200) {
    const length = answer.header("content-length");
    if (length !== undefined && Number(length) !== expected.sizeBytes) {
      throw wrongSize(expected, Number(length));
    }
    return;
  }
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(answer.header("content-range") ?? "");
  const [, start, , total] = range ?? [];
  if (total !== undefined && total !== "*" && Number(total) !== expected.sizeBytes) {
    throw wrongSize(expected, Number(total));
  }
  if (start === undefined || Number(start) !== offset) {
    throw new TransientFailure(
      unavailable(answer.url.host, "answered another range", { status: 206 }),
    );
  }
}

/** @throws AppError image_digest_mismatch, also for a digest of an algorithm we do not know */
function checkDigest(expected: string, bytes: Uint8Array): void {
  const isLong = /^sha512:[0-9a-f]{128}$/.test(expected);
  const actual = isLong
    ? `sha512:${createHash("sha512").update(bytes).digest("hex")}`
    : digestOf(bytes);
  if (actual !== expected) throw wrongDigest(expected.slice(0, 140), actual);
}
