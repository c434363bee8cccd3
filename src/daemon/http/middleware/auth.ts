/**
 * Who asks, and whether a change may be made: the unix socket's file mode is its check; over TCP a
 * bearer token is needed for changes as soon as one is configured (design §2, ops-notes §6).
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { AppError } from "../../../domain/index.ts";
import { doorOf, type AppContext, type AppMiddleware, type AuthConfig } from "../ports.ts";

export const isChange = (method: string): boolean => !["GET", "HEAD", "OPTIONS"].includes(method);

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Equality that takes as long whatever the texts are. */
export const equalSecrets = (a: string, b: string): boolean =>
  timingSafeEqual(sha256(a), sha256(b));

interface Caller {
  readonly actor: string;
  readonly trusted: boolean;
}

/** @returns who asks; throws AppError unauthorized for a token that is not known */
function createIdentify(auth: AuthConfig): (c: AppContext) => Caller {
  const known = auth.tokens.map((token) => ({
    actor: `token:${token.name}`,
    hash: Buffer.from(token.sha256, "hex"),
  }));
  return (c) => {
    if (doorOf(c) === "unix") return { actor: "socket", trusted: true };
    const header = c.req.header("authorization");
    if (known.length === 0 || header === undefined) return { actor: "anonymous", trusted: false };
    const given = sha256(/^Bearer +(\S+)$/i.exec(header)?.[1] ?? "");
    let actor: string | undefined;
    for (const token of known) {
      if (token.hash.length === given.length && timingSafeEqual(token.hash, given)) {
        actor ??= token.actor;
      }
    }
    if (actor === undefined) throw new AppError("unauthorized", "the token is not known");
    return { actor, trusted: true };
  };
}

/**
 * Sets `actor` and `trusted`. @throws AppError unauthorized for a change over TCP without a token
 * while tokens are configured
 */
export const authenticate = (auth: AuthConfig): AppMiddleware => {
  const identify = createIdentify(auth);
  return async (c, next) => {
    const caller = identify(c);
    c.set("actor", caller.actor);
    c.set("trusted", caller.trusted);
    if (!mayChange(caller, auth) && isChange(c.req.method)) {
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
