/**
 * Who we are to a registry: nobody, a name and password, or the bearer of a token fetched from the
 * realm that the registry names (Docker's token authentication).
 */
import { z } from "zod";
import { AppError } from "../../../domain/index.ts";
import type { Clock, RegistryCredentials } from "../../../domain/index.ts";
import { parseChallenges } from "./challenge.ts";
import type { Challenge } from "./challenge.ts";
import { networkFailure, unavailable } from "./http.ts";
import type { HttpAnswer, HttpClient } from "./http.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import { readLimited, statusFailure } from "./status.ts";

const tokenSchema = z.object({
  token: z.string().min(1).optional(),
  access_token: z.string().min(1).optional(),
  expires_in: z.number().positive().optional(),
});

interface Token {
  readonly header: string;
  /** Monotonic milliseconds. */
  readonly expiresAtMs: number;
}

export interface AuthInput {
  readonly client: Pick<HttpClient, "get">;
  readonly clock: Clock;
  readonly credentials: RegistryCredentials | undefined;
  readonly repository: string;
  readonly signal: AbortSignal;
}

/** The authorisation of one repository of one registry, for the life of one pull. */
export class Authorizer {
  readonly #input: AuthInput;
  #basic: string | undefined;
  #token: Token | undefined;
  /** The challenge the token answers, so that it can be renewed before it is refused. */
  #challenge: { registry: URL; challenge: Challenge } | undefined;
  #pending: Promise<void> | undefined;

  constructor(input: AuthInput) {
    this.#input = input;
  }

  /** The `Authorization` header to send now; undefined while the registry has not asked for one. */
  async header(): Promise<string | undefined> {
    if (this.#basic !== undefined) return this.#basic;
    if (this.#challenge === undefined) return undefined;
    if (!this.#isFresh()) await this.#share(this.#challenge);
    return this.#token?.header;
  }

  /**
   * Answers a 401 that came from the registry itself.
   * @param used the header of the refused request: when another request has got a newer one in the
   *   meantime, that one is used
   * @throws AppError registry_unauthorized when there is nothing to answer with
   */
  async renew(answer: HttpAnswer, used: string | undefined): Promise<void> {
    const registry = answer.url;
    if (this.#isFresh() && this.#token?.header !== used) return;
    const challenges = parseChallenges(answer.headers("www-authenticate"));
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    if (bearer !== undefined) {
      this.#token = undefined;
      await this.#share({ registry, challenge: bearer });
      return;
    }
    const isBasic = challenges.some(({ scheme }) => scheme === "basic");
    if (!isBasic || this.#input.credentials === undefined || this.#basic !== undefined) {
      throw refusedBy(registry.host, answer.status);
    }
    this.#basic = basicHeader(this.#input.credentials);
  }

  #isFresh(): boolean {
    return this.#token !== undefined && this.#input.clock.monotonic() < this.#token.expiresAtMs;
  }

  /** Layers pulled at once that find the token expired fetch one, not one each. */
  async #share(challenge: { registry: URL; challenge: Challenge }): Promise<void> {
    this.#challenge = challenge;
    this.#pending ??= this.#fetchToken(challenge).finally(() => {
      this.#pending = undefined;
    });
    await this.#pending;
  }

  async #fetchToken(asked: { registry: URL; challenge: Challenge }): Promise<void> {
    const { client, clock, credentials, signal } = this.#input;
    const url = this.#tokenUrl(asked.registry, asked.challenge);
    const authorization = credentials === undefined ? undefined : basicHeader(credentials);
    const headers = { accept: "application/json" };
    const answer = await client.get({ url, headers, authorization, signal });
    if (answer.status !== 200) {
      await answer.discard();
      // A realm that knows no such repository is not an image that is missing.
      if (answer.status === 404) throw unavailable(url.host, "no token endpoint", { status: 404 });
      throw statusFailure(answer, clock);
    }
    let parsed: z.output<typeof tokenSchema>;
    try {
      const bytes = await readLimited(answer, SOURCE_LIMITS.tokenBytes);
      parsed = tokenSchema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
    } catch (error) {
      if (!(error instanceof SyntaxError) && !(error instanceof z.ZodError)) {
        throw networkFailure(error, url.host, signal);
      }
      // Not as the cause: the parser's message may quote the token.
      throw unavailable(url.host, "the token answer is not valid");
    }
    const token = parsed.token ?? parsed.access_token ?? "";
    if (!/^[\x21-\x7e]+$/.test(token)) throw unavailable(url.host, "the answer holds no token");
    const lifetimeMs =
      parsed.expires_in === undefined ? SOURCE_LIMITS.tokenLifetimeMs : parsed.expires_in * 1000;
    // The margin never takes more than half of a short life, or no token would ever be fresh.
    const marginMs = Math.min(SOURCE_LIMITS.tokenMarginMs, lifetimeMs / 2);
    const expiresAtMs = clock.monotonic() + lifetimeMs - marginMs;
    this.#token = { header: `Bearer ${token}`, expiresAtMs };
  }

  /** @throws AppError registry_unavailable for a realm that a password must not go to */
  #tokenUrl(registry: URL, challenge: Challenge): URL {
    const realm = challenge.parameters.get("realm") ?? "";
    if (!URL.canParse(realm)) throw unavailable(registry.host, "its token realm is no address");
    const url = new URL(realm);
    const isAllowed =
      url.protocol === "https:" || (url.protocol === "http:" && registry.protocol === "http:");
    if (!isAllowed) throw unavailable(registry.host, "its token realm is not https");
    url.username = "";
    url.password = "";
    const service = challenge.parameters.get("service");
    if (service !== undefined) url.searchParams.set("service", service);
    // What we need, not what the challenge says: a registry cannot widen the token it gets.
    url.searchParams.set("scope", `repository:${this.#input.repository}:pull`);
    return url;
  }
}

const basicHeader = ({ username, password }: RegistryCredentials): string =>
  `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;

const refusedBy = (host: string, status: number): AppError =>
  new AppError("registry_unauthorized", `registry ${host} refused the credentials`, {
    meta: { host, status },
  });
