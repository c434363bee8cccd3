/**
 * Who asks, and whether a change may be made: the unix socket's file mode is its check; over TCP a
 * bearer token is needed for changes as soon as one is configured (design §2, ops-notes §6).
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { AppError } from "../../../domain/index.ts";
import { doorOf, fromOf, type AppContext, type AppMiddleware, type AuthConfig } from "../ports.ts";

export const isChange = (method: string): boolean => !["GET", "HEAD", "OPTIONS"].includes(method);

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Equality that takes as long whatever the texts are. */
export const equalSecrets = (a: string, b: string): boolean =>
  timingSafeEqual(sha256(a), sha256(b));

interface Caller {
  readonly actor: string;
  readonly trusted: boolean;
}

/** The name of the token; undefined when it is not known. */
export function createTokenCheck(auth: AuthConfig): (token: string) => string | undefined {
  const known = auth.tokens.map(({ name, sha256: hash }) => ({
    name,
    hash: Buffer.from(hash, "hex"),
  }));
  return (token) => {
    const given = sha256(token);
    let name: string | undefined;
    for (const one of known) {
      if (one.hash.length === given.length && timingSafeEqual(one.hash, given)) name ??= one.name;
    }
    return name;
  };
}

/** @returns who asks; throws AppError unauthorized for a token that is not known */
function createIdentify(auth: AuthConfig): (c: AppContext) => Caller {
  const check = createTokenCheck(auth);
  return (c) => {
    if (doorOf(c) === "unix") return { actor: "socket", trusted: true };
    const header = c.req.header("authorization");
    if (auth.tokens.length === 0 || header === undefined)
      return { actor: "anonymous", trusted: false };
    const name = check(/^Bearer +(\S+)$/i.exec(header)?.[1] ?? "");
    if (name === undefined) throw new AppError("unauthorized", "the token is not known");
    return { actor: `token:${name}`, trusted: true };
  };
}

/**
 * Sets `actor` and `trusted`. @throws AppError unauthorized for a change over TCP without a token
 * while tokens are configured
 * @param hasPage below `/ui/` the page answers: it knows who is signed in, and refuses others
 */
export const authenticate = (auth: AuthConfig, hasPage = false): AppMiddleware => {
  const identify = createIdentify(auth);
  return async (c, next) => {
    const caller = identify(c);
    c.set("actor", caller.actor);
    c.set("trusted", caller.trusted);
    c.set("from", fromOf(c));
    const isOfPage = hasPage && c.req.path.startsWith("/ui/");
    if (!isOfPage && !mayChange(caller, auth) && isChange(c.req.method)) {
      throw new AppError("unauthorized", "changes over TCP need a bearer token", {
        meta: { hint: "send Authorization: Bearer TOKEN, or use the unix socket" },
      });
    }
    await next();
  };
};

/** True when the caller may make changes, and see what only such callers may. */
export const mayChange = (caller: { trusted: boolean }, auth: AuthConfig): boolean =>
  caller.trusted || auth.tokens.length === 0;
