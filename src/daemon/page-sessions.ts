/**
 * Who is signed in on the page. A token is compared and forgotten; what the browser gets is a
 * random secret, of which only a hash is kept here, until the daemon ends or twelve hours are over.
 */
import { createHash } from "node:crypto";
import { AppError, LIMITS, type Clock, type Random, type SignIns } from "../domain/index.ts";
import { createTokenCheck } from "./http/middleware/auth.ts";
import type { AuthConfig } from "./http/ports.ts";

const WINDOW_MS = 60_000;

interface PageSession {
  readonly name: string;
  /** On the monotonic clock: setting the host's clock ends and lengthens nothing. */
  readonly endsAt: number;
}

const keyOf = (secret: string): string => createHash("sha256").update(secret).digest("hex");

/** Drops the oldest entries above `most`; a Map keeps the order in which they came. */
function bound(map: Map<string, unknown>, most: number): void {
  for (const oldest of map.keys()) {
    if (map.size <= most) return;
    map.delete(oldest);
  }
}

export function createPageSessions(parts: {
  readonly auth: AuthConfig;
  readonly clock: Clock;
  readonly random: Random;
}): SignIns {
  const { auth, clock, random } = parts;
  const check = createTokenCheck(auth);
  const sessions = new Map<string, PageSession>();
  /** Address → times of its wrong tokens within the window. */
  const wrong = new Map<string, number[]>();
  const recent = (from: string): number[] =>
    (wrong.get(from) ?? []).filter((at) => clock.monotonic() - at < WINDOW_MS);
  return {
    required: auth.tokens.length > 0,
    signIn(token, from) {
      const before = recent(from);
      const [oldest] = before;
      if (oldest !== undefined && before.length >= LIMITS.wrongTokensPerMinute) {
        const seconds = Math.ceil((oldest + WINDOW_MS - clock.monotonic()) / 1_000);
        throw new AppError(
          "too_many_requests",
          `too many wrong tokens from this address; try again in ${seconds} s`,
          { meta: { retry_after_s: seconds } },
        );
      }
      const name = check(token.trim());
      if (name === undefined) {
        wrong.delete(from);
        wrong.set(from, [...before, clock.monotonic()]);
        bound(wrong, LIMITS.pageSessions);
        throw new AppError("unauthorized", "the token is not known");
      }
      wrong.delete(from);
      const secret = Buffer.from(random.bytes(32)).toString("hex");
      sessions.set(keyOf(secret), { name, endsAt: clock.monotonic() + LIMITS.pageSessionMs });
      bound(sessions, LIMITS.pageSessions);
      return { secret, name };
    },
    whoIs(secret) {
      const session = sessions.get(keyOf(secret));
      if (session === undefined || session.endsAt <= clock.monotonic()) return undefined;
      return session.name;
    },
    signOut(secret) {
      sessions.delete(keyOf(secret));
    },
  };
}
